//! A query under way: its first batch decides that the plan holds, then batches flow until the end, the limit, or the drop.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::{FutureExt, Stream, StreamExt};
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
    rest: mpsc::Receiver<RecordBatch>,
    end: End,
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
        rest: mpsc::Receiver<RecordBatch>,
        end: End,
        task: AbortOnDrop,
        stats: StatsHandle,
    ) -> Self {
        Self { schema, first, rest, end, _task: task, stats, ended: false }
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
        if let Some(batch) = std::task::ready!(self.rest.poll_recv(context)) {
            return Poll::Ready(Some(Ok(batch)));
        }
        self.ended = true;
        self.stats.ended();
        Poll::Ready(self.end.read().err().map(Err))
    }
}

/// A task that does not outlive its handle.
#[derive(Debug)]
pub(crate) struct AbortOnDrop {
    task: JoinHandle<()>,
    /// For those of its parts that look whether it is gone, because they run long between two awaits.
    _reader: Arc<()>,
}

impl AbortOnDrop {
    pub(crate) fn new(task: JoinHandle<()>) -> Self {
        Self::with_reader(task, Arc::default())
    }

    pub(crate) fn with_reader(task: JoinHandle<()>, reader: Arc<()>) -> Self {
        Self { task, _reader: reader }
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a query ended. Without a word it was aborted: a lost sender alone never looks like a complete answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct End(Arc<OnceLock<Result<()>>>);

impl End {
    fn tell(&self, outcome: Result<()>) {
        // Only the first word counts.
        let _ = self.0.set(outcome);
    }

    fn read(&self) -> Result<()> {
        self.0.get().cloned().unwrap_or(Err(Error::Cancelled))
    }
}

/// Where the batches after the first go.
pub(crate) fn channel() -> (mpsc::Sender<RecordBatch>, mpsc::Receiver<RecordBatch>) {
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

/// Sends what is left and tells the end; stops early when the reader is gone.
pub(crate) async fn forward(
    rows: Option<SendableRecordBatchStream>,
    sender: mpsc::Sender<RecordBatch>,
    end: End,
    deadline: Instant,
    limit: Duration,
) {
    let outcome = match rows {
        None => Ok(()),
        Some(rows) => guarded(send_all(rows, &sender, deadline, limit)).await.and_then(|sent| sent),
    };
    end.tell(outcome);
}

/// Runs a part of a query, of which a panic is a failure like others, and not a query that somebody cancelled.
pub(crate) async fn guarded<T>(part: impl Future<Output = T>) -> Result<T> {
    AssertUnwindSafe(part).catch_unwind().await.map_err(failure_of)
}

/// A panic as the failure of a query.
pub(crate) fn failure_of(panic: Box<dyn Any + Send>) -> Error {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Error::Engine(Arc::new(DataFusionError::Internal(format!("the query engine failed: {text}"))))
}

async fn send_all(
    mut rows: SendableRecordBatchStream,
    sender: &mpsc::Sender<RecordBatch>,
    deadline: Instant,
    limit: Duration,
) -> Result<()> {
    while let Some(batch) = next_batch(&mut rows, deadline, limit).await {
        match tokio::time::timeout_at(deadline, sender.send(batch?)).await {
            Err(_) => return Err(Error::TimeLimit { limit }),
            Ok(Err(_)) => return Err(Error::Cancelled),
            Ok(Ok(())) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;

    fn batch() -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).expect("one column")
    }

    fn stream(items: Vec<std::result::Result<RecordBatch, DataFusionError>>) -> SendableRecordBatchStream {
        Box::pin(RecordBatchStreamAdapter::new(batch().schema(), futures::stream::iter(items)))
    }

    fn query(rest: mpsc::Receiver<RecordBatch>, end: End) -> QueryStream {
        let task = AbortOnDrop::new(tokio::spawn(async {}));
        QueryStream::new(batch().schema(), Some(batch()), rest, end, task, StatsHandle::new())
    }

    #[tokio::test]
    async fn an_answer_is_complete_only_when_its_end_is_told() {
        let limit = Duration::from_secs(60);
        let deadline = Instant::now() + limit;
        let (sender, rest) = channel();
        let end = End::default();
        forward(Some(stream(vec![Ok(batch()), Ok(batch())])), sender, end.clone(), deadline, limit).await;
        assert_eq!(query(rest, end).collect().await.expect("it is complete").len(), 3);

        let (sender, rest) = channel();
        let end = End::default();
        let failing = stream(vec![Ok(batch()), Err(DataFusionError::Execution("no".to_owned()))]);
        forward(Some(failing), sender, end.clone(), deadline, limit).await;
        assert!(query(rest, end).collect().await.is_err());

        // The task is gone without a word.
        let (sender, rest) = channel();
        drop(sender);
        assert!(matches!(query(rest, End::default()).collect().await, Err(Error::Cancelled)));
    }

    #[tokio::test]
    async fn a_panic_is_no_cancellation() {
        let error = guarded(async { panic!("a partition was {}", "used") }).await.map(|(): ()| ()).expect_err("panics");
        assert_eq!(error.kind(), tidemill_types::ErrorKind::Internal);
        assert!(error.to_string().contains("a partition was used"), "{error}");
    }

    #[tokio::test]
    async fn a_slow_reader_meets_the_time_limit_and_not_a_short_answer() {
        let limit = Duration::from_secs(60);
        let (sender, rest) = channel();
        let end = End::default();
        let many = (0..10).map(|_| Ok(batch())).collect();
        // The deadline has come: what is ready still flows, and the third batch finds no room.
        forward(Some(stream(many)), sender, end.clone(), Instant::now(), limit).await;
        assert!(matches!(query(rest, end).collect().await, Err(Error::TimeLimit { .. })));
    }
}
