//! The one writer: a thread that owns the writing connection and commits queued writes in groups.
//!
//! Owns: transactions. Each write runs in a savepoint, so that one that fails leaves the others of its group alone; nobody is
//! answered before the group's commit. Never: I/O besides SQLite's inside a transaction. Start with [`Writer::run`].

use rusqlite::Connection;
use tidemill_types::ErrorKind;
use tokio::sync::{mpsc, oneshot};

use super::connection::failed;
use crate::{Error, Result};

const QUEUED_WRITES: usize = 256;
const GROUP_WRITES: usize = 64;

/// A handle to the writer thread, which ends with its last handle.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    sender: mpsc::Sender<Write>,
}

/// A write that ran and waits for its group's commit.
struct Ran {
    is_ok: bool,
    answer: Box<dyn FnOnce(Result<()>) + Send>,
}

/// A queued write; given an error instead of a connection, it only answers.
type Write = Box<dyn FnOnce(Result<&Connection>) -> Ran + Send>;

impl Writer {
    /// Starts the thread.
    pub(super) fn start(connection: Connection) -> Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUED_WRITES);
        std::thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || run_writer(&connection, receiver))
            .map_err(|source| Error::from_io("open", "the writer thread", source))?;
        Ok(Self { sender })
    }

    /// Runs `work` in a transaction and returns after its commit; an error of `work` rolls back what it did.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let write: Write = Box::new(move |connection| {
            let result = connection.and_then(work);
            let is_ok = result.is_ok();
            let answer = Box::new(move |committed: Result<()>| {
                // Whoever asked may have gone; the write stands.
                let _ = answer.send(result.and_then(|value| committed.map(|()| value)));
            });
            Ran { is_ok, answer }
        });
        let gone = |_| Error::new(operation, "the metastore", ErrorKind::Unavailable, "its writer has ended");
        self.sender.send(write).await.map_err(|_| gone(()))?;
        answered.await.map_err(|_| gone(()))?
    }
}

fn run_writer(connection: &Connection, mut receiver: mpsc::Receiver<Write>) {
    while let Some(first) = receiver.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP_WRITES {
            let Ok(next) = receiver.try_recv() else { break };
            group.push(next);
        }
        let mut group = group.into_iter();
        while group.len() > 0 {
            run_group(connection, &mut group);
        }
    }
}

/// Runs writes in one transaction until the group ends, or SQLite rolls the transaction back by itself (disk full).
fn run_group(connection: &Connection, group: &mut std::vec::IntoIter<Write>) {
    if let Err(source) = connection.execute_batch("BEGIN IMMEDIATE") {
        let error = failed("begin")(source);
        for write in group {
            (write(Err(error.again())).answer)(Ok(()));
        }
        return;
    }
    let mut ran = Vec::with_capacity(group.len());
    let mut is_lost = false;
    for write in group.by_ref() {
        let outcome = run_in_savepoint(connection, write);
        ran.push(outcome);
        if connection.is_autocommit() {
            is_lost = true;
            break;
        }
    }
    let committed = if is_lost { Ok(()) } else { connection.execute_batch("COMMIT") };
    let problem = match committed {
        Ok(()) if !is_lost => None,
        Ok(()) => Some(Error::new("commit", "the metastore", ErrorKind::Busy, "the transaction was rolled back")),
        Err(source) => {
            // A failed commit may leave the transaction open.
            let _ = connection.execute_batch("ROLLBACK");
            Some(failed("commit")(source))
        }
    };
    for outcome in ran {
        (outcome.answer)(match &problem {
            None => Ok(()),
            Some(error) => Err(error.again()),
        });
    }
}

fn run_in_savepoint(connection: &Connection, write: Write) -> Ran {
    if let Err(source) = connection.execute_batch("SAVEPOINT one_write") {
        tracing::warn!(%source, "could not begin a savepoint");
    }
    let ran = write(Ok(connection));
    let end = if ran.is_ok { "RELEASE one_write" } else { "ROLLBACK TO one_write; RELEASE one_write" };
    if !connection.is_autocommit()
        && let Err(source) = connection.execute_batch(end)
    {
        // The whole group is undone, which every write of it is told.
        tracing::warn!(%source, "could not end a savepoint");
        let _ = connection.execute_batch("ROLLBACK");
    }
    ran
}
