//! A query under way: its first batch decides that the plan holds, then batches flow until the end, the limit, or the drop.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::stats::StatsHandle;
use crate::{Error, Result};

/// Batches that may wait for a slow reader.
const BATCHES_AHEAD: usize = 2;

/// The answer of a query. Dropping it cancels the query.
#[derive(Debug)]
pub struct QueryStream {
    schema: SchemaRef,
    first: Option<RecordBatch>,
    rest: mpsc::Receiver<Result<RecordBatch>>,
    /// Ends the query when dropped.
    _task: AbortOnDrop,
    stats: StatsHandle,
    ended: bool,
}

impl QueryStream {
    /// The columns of every batch.
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    /// What the query has done so far; stays readable after the stream is gone.
    pub fn stats(&self) -> StatsHandle {
        self.stats.clone()
    }

    /// All batches.
    ///
    /// # Errors
    /// The query's failure; batches before it are lost.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }

    pub(crate) fn new(
        schema: SchemaRef,
        first: Option<RecordBatch>,
        rest: mpsc::Receiver<Result<RecordBatch>>,
        task: AbortOnDrop,
        stats: StatsHandle,
    ) -> Self {
        Self { schema, first, rest, _task: task, stats, ended: false }
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let item = std::task::ready!(self.rest.poll_recv(context));
        if !matches!(item, Some(Ok(_))) {
            self.ended = true;
            self.stats.ended();
        }
        Poll::Ready(item)
    }
}

/// A task that does not outlive its handle.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(pub(crate) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where the batches after the first go.
pub(crate) fn channel() -> (mpsc::Sender<Result<RecordBatch>>, mpsc::Receiver<Result<RecordBatch>>) {
    mpsc::channel(BATCHES_AHEAD)
}

/// The next batch that has rows, within the time that is left.
pub(crate) async fn next_batch(
    rows: &mut SendableRecordBatchStream,
    deadline: Instant,
    limit: Duration,
) -> Option<Result<RecordBatch>> {
    loop {
        match tokio::time::timeout_at(deadline, rows.next()).await {
            Err(_) => return Some(Err(Error::TimeLimit { limit })),
            Ok(Some(Ok(batch))) if batch.num_rows() == 0 => {}
            Ok(item) => return item.map(|batch| batch.map_err(Error::from)),
        }
    }
}

/// Sends what is left; ends early when the reader is gone.
pub(crate) async fn forward(
    mut rows: SendableRecordBatchStream,
    sender: mpsc::Sender<Result<RecordBatch>>,
    deadline: Instant,
    limit: Duration,
) {
    while let Some(item) = next_batch(&mut rows, deadline, limit).await {
        let has_failed = item.is_err();
        let sent = tokio::time::timeout_at(deadline, sender.send(item)).await;
        if has_failed || !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}
