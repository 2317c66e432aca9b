//! Everything that descends from a container's process, as its shim sees it: orphans are the shim's children.

use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group, wait};

use super::process;

/// Between two looks at what is left.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Whatever the kernel holds back longer is left to it.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Waits for one child, and takes the ends of orphans on the way.
pub(super) fn wait_for(child: u32) -> io::Result<WaitStatus> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if u32::try_from(pid.as_raw_nonzero().get()) == Ok(child) => return Ok(status),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends the group that `child` led, and whatever descends from this process.
pub(super) fn end_all(child: u32) {
    if let Some(group) = pid_of(child) {
        // A group that has no member any more is what is wanted.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let own = u32::try_from(getpid().as_raw_nonzero().get()).unwrap_or_default();
    let deadline = Instant::now() + END_WITHIN;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => continue,
            Ok(None) => {}
            Err(_) => return,
        }
        if Instant::now() > deadline {
            return;
        }
        // Each that ends makes its own children this process's.
        for pid in process::all().iter().filter(|stat| stat.parent == own).filter_map(|stat| pid_of(stat.pid)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}
