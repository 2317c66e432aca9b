//! The small parent of a container's process.
//!
//! Owns: starting the process in a group of its own, writing down what it prints and how it ended. It lives as long as the container, in a session of its own, so
//! that the server may be killed and started again without the container noticing or its exit code getting lost. Never: restarting anything.
//! It uses threads and no runtime, to stay small.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use super::files::{ContainerFolder, Launch, Run};
use super::{now, process};
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
    let mut child = match command(&launch).spawn() {
        Ok(child) => child,
        Err(error) => {
            let what = format!("cannot start {}: {error}", launch.program.display());
            if let Ok(mut log) = log.lock() {
                log.line("stderr", b"F", what.as_bytes());
            }
            let exit_code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
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
    folder.write_run(
        launch.run,
        &Run { pid: child.id(), start_ticks: process::start_ticks(child.id()).unwrap_or_default(), started_at },
    )?;
    let (done, all_done) = mpsc::channel::<()>();
    if let Some(output) = child.stdout.take() {
        copy_lines(output, "stdout", log.clone(), done.clone());
    }
    if let Some(output) = child.stderr.take() {
        copy_lines(output, "stderr", log, done);
    }
    let status =
        child.wait().map_err(|source| RuntimeError::Io { what: "waiting for the container".to_owned(), source })?;
    // What the container's process leaves behind goes with it, as with a container's first process.
    if let Some(group) = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap_or_default()) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    // The channel closes when both copies have ended.
    while let Ok(()) = all_done.recv_timeout(OUTPUT_GRACE) {}
    folder.write_end(launch.run, &end_of(status, started_at, &folder, launch.run))
}

fn command(launch: &Launch) -> Command {
    let mut command = Command::new(&launch.program);
    command.args(&launch.args).env_clear().envs(&launch.env).current_dir(&launch.working_dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command
}

fn end_of(
    status: ExitStatus,
    started_at: tidemill_scaling::TimeMs,
    folder: &ContainerFolder,
    run: u32,
) -> ContainerEnd {
    let signal = status.signal();
    let exit_code = status.code().unwrap_or_else(|| 128 + signal.unwrap_or_default());
    let reason = if folder.path().join(format!("{run}.oom")).exists() {
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
