//! The small parent of a container's process.
//!
//! Owns: starting the process in a group of its own, writing down what it prints and how it ended. It lives as long as the container, in a session of its own, so
//! that the server may be killed and started again without the container noticing or its exit code getting lost. Never: restarting anything.
//! It uses threads and no runtime, to stay small.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, WaitStatus};

use super::cgroup::Group;
use super::files::{ContainerFolder, Launch, Run};
use super::{descendants, now, process};
use crate::runtime::{ContainerEnd, RuntimeError};

/// The word by which the server's own program becomes a shim.
pub const COMMAND: &str = "fleet-shim";
/// A longer line is written in parts, as CRI does it.
const MAX_LINE: u64 = 16 * 1024;
/// A log is turned over at this size; two are kept.
const MAX_LOG_BYTES: u64 = 10 * 1024 * 1024;
/// How long output is waited for that a process left behind may still hold open.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);

/// Runs the container of the folder that the first argument names, to its end. Returns the exit code of the shim itself.
pub fn main(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> u8 {
    let Some(folder) = arguments.next() else { return 2 };
    u8::from(run(ContainerFolder::at(PathBuf::from(folder))).is_err())
}

fn run(folder: ContainerFolder) -> Result<(), RuntimeError> {
    // A session of its own: no signal of the server's terminal comes here. It fails only for who leads one already.
    let _ = rustix::process::setsid();
    let Some(_lock) = folder.try_lock()? else { return Ok(()) };
    let Some(launch) = folder.launch()? else { return Ok(()) };
    if folder.end(launch.run)?.is_some() {
        return Ok(());
    }
    let started_at = now();
    let log = Arc::new(Mutex::new(Log::open(&folder.log(launch.run))?));
    // What loses its parent becomes a child of this process, and so nothing of the container outlives it.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let kills_before = launch.group.as_ref().map_or(0, Group::out_of_memory_kills);
    let mut child = match start(&launch) {
        Ok(child) => child,
        Err((exit_code, what)) => {
            if let Ok(mut log) = log.lock() {
                log.line("stderr", b"F", what.as_bytes());
            }
            let end = ContainerEnd {
                exit_code,
                signal: None,
                reason: format!("CannotStart: {what}"),
                started_at,
                finished_at: now(),
            };
            return folder.write_end(launch.run, &end);
        }
    };
    let start_ticks = process::start_ticks(child.id()).unwrap_or_default();
    let run = Run { pid: child.id(), start_ticks, started_at };
    folder.write_run(launch.run, &run)?;
    let (done, all_done) = mpsc::channel::<()>();
    if let Some(output) = child.stdout.take() {
        copy_lines(output, "stdout", log.clone(), done.clone());
    }
    if let Some(output) = child.stderr.take() {
        copy_lines(output, "stderr", log, done);
    }
    let status = descendants::wait_for(child.id())
        .map_err(|source| RuntimeError::Io { what: "waiting for the container".to_owned(), source })?;
    // What the container's process leaves behind goes with it, as with a container's first process.
    if let Some(group) = &launch.group {
        group.kill();
    }
    descendants::end_all(child.id());
    // The channel closes when both copies have ended.
    while let Ok(()) = all_done.recv_timeout(OUTPUT_GRACE) {}
    let was_out_of_memory = launch.group.as_ref().is_some_and(|group| group.out_of_memory_kills() > kills_before)
        || folder.path().join(format!("{}.oom", launch.run)).exists();
    folder.write_end(launch.run, &end_of(status, started_at, was_out_of_memory))
}

/// Starts the process within its limits; an exit code and the reason where it cannot be.
fn start(launch: &Launch) -> Result<Child, (i32, String)> {
    if let Some(group) = &launch.group {
        group.enter().map_err(|error| (126, error.to_string()))?;
    }
    if let Some(bytes) = launch.data_bytes {
        let now = rustix::process::getrlimit(Resource::Data);
        let most = now.maximum.map_or(bytes, |most| most.min(bytes));
        rustix::process::setrlimit(Resource::Data, Rlimit { current: Some(most), maximum: Some(most) })
            .map_err(|error| (126, format!("limiting the data of a process to {most} bytes: {error}")))?;
    }
    let child = command(launch).spawn();
    if let Some(group) = &launch.group {
        group.leave().map_err(|error| (126, error.to_string()))?;
    }
    child.map_err(|error| {
        let exit_code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
        (exit_code, format!("cannot start {}: {error}", launch.program.display()))
    })
}

fn command(launch: &Launch) -> Command {
    let mut command = Command::new(&launch.program);
    command.args(&launch.args).env_clear().envs(&launch.env).current_dir(&launch.working_dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command
}

fn end_of(status: WaitStatus, started_at: tidemill_scaling::TimeMs, was_out_of_memory: bool) -> ContainerEnd {
    let signal = status.terminating_signal();
    let exit_code = status.exit_status().unwrap_or_else(|| 128 + signal.unwrap_or_default());
    let reason = if was_out_of_memory && exit_code != 0 {
        "OOMKilled"
    } else if exit_code == 0 {
        "Completed"
    } else {
        "Error"
    };
    ContainerEnd { exit_code, signal, reason: reason.to_owned(), started_at, finished_at: now() }
}

fn copy_lines(output: impl Read + Send + 'static, stream: &'static str, log: Arc<Mutex<Log>>, done: mpsc::Sender<()>) {
    std::thread::spawn(move || {
        let _done = done;
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let is_whole = line.last() == Some(&b'\n');
            if is_whole {
                line.pop();
            }
            let Ok(mut log) = log.lock() else { return };
            log.line(stream, if is_whole { b"F" } else { b"P" }, &line);
        }
    });
}

/// A log in the format of CRI: `time stream tag text`.
struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Log {
    fn open(path: &Path) -> Result<Self, RuntimeError> {
        let io = |source| RuntimeError::Io { what: format!("opening {}", path.display()), source };
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        Ok(Self { path: path.to_owned(), file, bytes })
    }

    /// A full disk loses lines and not the container.
    fn line(&mut self, stream: &str, tag: &[u8], text: &[u8]) {
        let mut line = format!("{:.9} {stream} ", jiff::Timestamp::now()).into_bytes();
        line.extend_from_slice(tag);
        line.push(b' ');
        line.extend_from_slice(text);
        line.push(b'\n');
        if self.bytes + line.len() as u64 > MAX_LOG_BYTES && self.bytes > 0 {
            let before = self.path.with_extension("log.1");
            if std::fs::rename(&self.path, before).is_ok()
                && let Ok(next) = Self::open(&self.path)
            {
                *self = next;
            }
        }
        if self.file.write_all(&line).is_ok() {
            self.bytes += line.len() as u64;
        }
    }
}
