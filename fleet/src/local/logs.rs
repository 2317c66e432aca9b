//! Reading what containers printed.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::mpsc;

use super::replica::Entry;
use crate::runtime::{LogOptions, LogStream, RuntimeError};

/// How often a followed log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Most lines that `tail` keeps in memory.
const MAX_TAIL: usize = 100_000;

pub(super) fn open(entry: Arc<Entry>, options: LogOptions) -> Result<LogStream, RuntimeError> {
    let status = entry.status();
    let index = match &options.container {
        Some(name) => status.containers.iter().position(|container| container.name == *name).ok_or_else(|| {
            RuntimeError::NotFound(format!("container {name} is not valid for pod {}", status.spec.name))
        })?,
        None if status.spec.containers.len() == 1 => status.spec.init_containers.len(),
        None => {
            let names: Vec<&str> = status.containers.iter().map(|container| container.name.as_str()).collect();
            let message = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                status.spec.name,
                names.join(" ")
            );
            return Err(RuntimeError::Invalid(message));
        }
    };
    let container = &status.containers[index];
    let run = if options.previous {
        container.restarts.checked_sub(1).ok_or_else(|| {
            let message =
                format!("previous terminated container {} in pod {} not found", container.name, status.spec.name);
            RuntimeError::Invalid(message)
        })?
    } else {
        container.restarts
    };
    let path = entry.folder().container(&container.name).log(run);
    let (lines, mut receiver) = mpsc::channel(256);
    tokio::spawn(read(Reading { entry, index, run, path, options }, lines));
    Ok(Box::pin(futures::stream::poll_fn(move |context| receiver.poll_recv(context))))
}

struct Reading {
    entry: Arc<Entry>,
    index: usize,
    run: u32,
    path: PathBuf,
    options: LogOptions,
}

type Lines = mpsc::Sender<Result<Bytes, RuntimeError>>;

async fn read(reading: Reading, lines: Lines) {
    if let Err(error) = reading.send(&lines).await {
        let _ = lines.send(Err(error)).await;
    }
}

impl Reading {
    async fn send(&self, lines: &Lines) -> Result<(), RuntimeError> {
        let mut kept: VecDeque<Bytes> = VecDeque::new();
        for path in [self.path.with_extension("log.1"), self.path.clone()] {
            let is_current = path == self.path;
            let file = if is_current { self.first(lines).await? } else { self.open(&path).await? };
            let Some(file) = file else { continue };
            let mut reader = BufReader::new(file);
            let mut line = Vec::new();
            loop {
                let was_over = is_current && self.is_over();
                match self.next(&mut reader, &mut line).await? {
                    Some(text) => {
                        if let Some(tail) = self.options.tail {
                            kept.push_back(text);
                            if kept.len() > tail.min(MAX_TAIL) {
                                kept.pop_front();
                            }
                        } else if lines.send(Ok(text)).await.is_err() {
                            return Ok(());
                        }
                    }
                    None if !is_current => break,
                    None => {
                        for text in kept.drain(..) {
                            if lines.send(Ok(text)).await.is_err() {
                                return Ok(());
                            }
                        }
                        if !self.options.follow || was_over {
                            return Ok(());
                        }
                        return self.follow(reader, line, lines).await;
                    }
                }
            }
        }
        for text in kept {
            if lines.send(Ok(text)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn follow(&self, mut reader: BufReader<File>, mut line: Vec<u8>, lines: &Lines) -> Result<(), RuntimeError> {
        loop {
            let was_over = self.is_over();
            while let Some(text) = self.next(&mut reader, &mut line).await? {
                if lines.send(Ok(text)).await.is_err() {
                    return Ok(());
                }
            }
            if was_over || lines.is_closed() {
                return Ok(());
            }
            // The log may have been turned over: what is open was read to its end, the next one begins anew.
            if self.is_another(&reader).await
                && let Some(file) = self.open(&self.path).await?
            {
                reader = BufReader::new(file);
                line.clear();
                continue;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn is_another(&self, reader: &BufReader<File>) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let (Ok(open), Ok(named)) = (reader.get_ref().metadata().await, tokio::fs::metadata(&self.path).await) else {
            return false;
        };
        open.ino() != named.ino()
    }

    /// The run's log; a followed one is waited for, because a container that is only about to start has none.
    async fn first(&self, lines: &Lines) -> Result<Option<File>, RuntimeError> {
        loop {
            let was_over = self.is_over();
            let file = self.open(&self.path).await?;
            if file.is_some() || was_over || !self.options.follow || lines.is_closed() {
                return Ok(file);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn open(&self, path: &PathBuf) -> Result<Option<File>, RuntimeError> {
        match File::open(path).await {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RuntimeError::Io { what: format!("opening {}", path.display()), source }),
        }
    }

    /// Whether nothing more will be printed by this run.
    fn is_over(&self) -> bool {
        let status = self.entry.status();
        let Some(container) = status.containers.get(self.index) else { return true };
        container.restarts != self.run
            || matches!(container.state, crate::runtime::ContainerState::Ended(_))
            || super::is_last(status.phase)
    }

    /// The next whole line, as asked for; half a line stays in `line` for the next call.
    async fn next(&self, reader: &mut BufReader<File>, line: &mut Vec<u8>) -> Result<Option<Bytes>, RuntimeError> {
        loop {
            let read = reader.read_until(b'\n', line).await;
            read.map_err(|source| RuntimeError::Io { what: format!("reading {}", self.path.display()), source })?;
            if line.last() != Some(&b'\n') {
                return Ok(None);
            }
            let text = self.shown(line);
            line.clear();
            if text.is_some() {
                return Ok(text);
            }
        }
    }

    /// A line of the file as it is shown; `None` for one before `since`.
    fn shown(&self, line: &[u8]) -> Option<Bytes> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (time, _stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if let Some(since) = self.options.since {
            let at: Option<jiff::Timestamp> = std::str::from_utf8(time).ok()?.parse().ok();
            if at.is_some_and(|at| at.as_millisecond() < since.0) {
                return None;
            }
        }
        let mut shown = Vec::with_capacity(line.len());
        if self.options.timestamps {
            shown.extend_from_slice(time);
            shown.push(b' ');
        }
        shown.extend_from_slice(if tag == b"P" { text.strip_suffix(b"\n").unwrap_or(text) } else { text });
        Some(Bytes::from(shown))
    }
}
