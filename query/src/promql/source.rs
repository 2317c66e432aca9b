//! The lake as a source of series. What a query's selectors ask for is read ahead; what only the evaluation finds out is read then.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidemill_eval::promql::{Select, Series, Source};
use tidemill_eval::{Error as EvalError, Result as EvalResult};
use tokio::runtime::Handle;

use super::failed;
use super::gathered::Gathered;
use super::rollups::tier_of;
use super::select::{FEW_STRETCHES, Reader};

/// Notes what is asked and has nothing.
#[derive(Debug, Default)]
pub(super) struct Recorder(Mutex<Vec<Select>>);

impl Recorder {
    /// What was asked, each once.
    pub(super) fn asked(self) -> Vec<Select> {
        let mut known = std::collections::HashSet::new();
        let mut asked = self.0.into_inner();
        asked.retain(|select| known.insert(key_of(select)));
        asked
    }
}

impl Source for Recorder {
    fn select(&self, select: &Select) -> EvalResult<Vec<Series>> {
        self.0.lock().push(select.clone());
        Ok(Vec::new())
    }
}

/// The metrics of one organization, for one query.
pub(super) struct LakeSource {
    reader: Reader,
    runtime: Handle,
    ahead: Mutex<HashMap<String, Arc<Gathered>>>,
}

/// One of `count` parts of the series of a source.
pub(super) struct Share<'a> {
    pub(super) whole: &'a LakeSource,
    pub(super) place: usize,
    pub(super) count: usize,
}

/// What of a source was read ahead, for a thread that may not wait; anything else is past its limits.
pub(super) struct InMemory<'a>(pub(super) &'a LakeSource);

impl LakeSource {
    pub(super) fn new(reader: Reader, runtime: Handle) -> Self {
        Self { reader, runtime, ahead: Mutex::default() }
    }

    /// Where reading goes on.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Reads what is known to be asked for.
    ///
    /// # Errors
    /// What could not be read.
    pub(super) async fn read_ahead(&self, asked: Vec<Select>) -> EvalResult<()> {
        let reads = futures::future::try_join_all(asked.iter().map(|select| self.reader.gather(select)));
        let read = tokio::time::timeout_at(self.reader.deadline, reads).await;
        let read = read.unwrap_or_else(|_| Err(self.is_late())).map_err(failed)?;
        self.reader.stats.planned();
        let keyed = asked.iter().map(key_of).zip(read.into_iter().map(Arc::new));
        self.ahead.lock().extend(keyed);
        Ok(())
    }

    fn is_late(&self) -> crate::Error {
        crate::Error::TimeLimit { limit: self.reader.limits.time }
    }

    /// How much of the query's memory is left.
    pub(super) fn bytes_left(&self) -> usize {
        self.reader.budget.bytes_left()
    }

    /// How many samples were read ahead.
    pub(super) fn samples(&self) -> usize {
        self.ahead.lock().values().map(|gathered| gathered.samples()).sum()
    }

    /// Whether what was read ahead is so little that it is put together at once.
    pub(super) fn has_little(&self) -> bool {
        self.ahead.lock().values().map(|gathered| gathered.stretches()).sum::<usize>() <= FEW_STRETCHES
    }

    fn known(&self, select: &Select) -> Option<Arc<Gathered>> {
        self.ahead.lock().get(&key_of(select)).map(Arc::clone)
    }
}

impl Source for Share<'_> {
    fn select(&self, select: &Select) -> EvalResult<Vec<Series>> {
        match self.whole.known(select) {
            Some(gathered) => gathered.part(self.place, self.count).map_err(failed),
            None => Ok(self.whole.select(select)?.into_iter().skip(self.place).step_by(self.count).collect()),
        }
    }
}

impl Source for InMemory<'_> {
    fn select(&self, select: &Select) -> EvalResult<Vec<Series>> {
        let known = self.0.known(select).ok_or_else(|| EvalError::Limit("it has to be read".to_owned()))?;
        known.whole(&self.0.runtime).map_err(failed)
    }
}

impl Source for LakeSource {
    fn select(&self, select: &Select) -> EvalResult<Vec<Series>> {
        if let Some(gathered) = self.known(select) {
            return gathered.whole(&self.runtime).map_err(failed);
        }
        // The clock belongs to the runtime, so it is asked for inside of it.
        let reading = async { tokio::time::timeout_at(self.reader.deadline, self.reader.select(select)).await };
        let read = self.runtime.block_on(reading);
        read.unwrap_or_else(|_| Err(self.is_late())).map_err(failed)
    }
}

/// What makes two requests the same. The function makes a difference only where a rollup may stand in for points.
fn key_of(select: &Select) -> String {
    let windows = select.windows.filter(|windows| tier_of(windows).is_some());
    format!("{:?} {} {} {windows:?}", select.matchers, select.start_ms, select.end_ms)
}

/// Shared by those that read.
pub(super) type SharedParts = Arc<crate::plan::Parts>;
