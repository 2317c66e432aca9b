//! One query under way: what its selectors ask for is read, all of it at the same time, and evaluated. What is little and in memory is
//! answered on the thread that asks; everything else on one thread that may wait, and on several where there is much to evaluate.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tidemill_eval::promql::partial::{Partial, Task};
use tidemill_eval::promql::{Annotations, Engine, Options, Source, Value};
use tidemill_eval::{Error as EvalError, Result as EvalResult};

use super::source::{InMemory, LakeSource, Recorder, Share};
use super::{PromqlRequest, failed};
use crate::Error;
use crate::together::together;

/// Fewer samples are evaluated on one thread.
const DIVIDED_SAMPLES: usize = 20_000;
/// What is answered at once has no more bytes of text, steps, samples that are loaded or made, and samples looked at by any step.
const FEW_BYTES: usize = 2_000;
const FEW_STEPS: i64 = 1_000;
const FEW_SAMPLES: usize = 5_000;
const FEW_LOOKS: i64 = 1_000_000;

/// The outcome of a query.
pub(super) type Outcome = EvalResult<(Value, Annotations)>;

/// A query, and what it is asked of.
pub(super) struct Asked {
    pub(super) request: PromqlRequest,
    pub(super) engine: Engine,
    pub(super) source: LakeSource,
    /// How many may evaluate.
    pub(super) threads: usize,
}

/// How far a query came on the thread that asked.
pub(super) enum Begun {
    Answered(Outcome),
    Under(Way),
}

/// A query to be gone on with.
pub(super) struct Way {
    asked: Arc<Asked>,
    read: Read,
}

/// What of a query's samples is read.
enum Read {
    Nothing,
    /// This is reading them.
    Reading(Reading),
    Everything,
}

type Reading = BoxFuture<'static, EvalResult<()>>;

/// The value of a query over `source`.
pub(super) fn evaluate(engine: &Engine, request: &PromqlRequest, source: &dyn Source) -> Outcome {
    match request.step_ms {
        0 => engine.instant(&request.query, request.start_ms, &[source]),
        step => engine.range(&request.query, (request.start_ms, request.end_ms, step), &[source]),
    }
}

impl Asked {
    /// Answers the query if that takes little and nothing but memory, and otherwise begins to read: the way to another thread and back
    /// takes as long as a small query.
    pub(super) fn begin(self: Arc<Self>) -> Begun {
        let under_way = |asked, read| Begun::Under(Way { asked, read });
        if self.request.query.len() > FEW_BYTES || self.steps() > FEW_STEPS {
            return under_way(self, Read::Nothing);
        }
        let recorder = Recorder::default();
        if let Err(EvalError::Limit(_)) = self.evaluate(&self.engine_of_few(), &recorder) {
            return under_way(self, Read::Nothing);
        }
        let mut reading = Arc::clone(&self).read(recorder);
        // What reads on goes on there.
        let runtime = self.source.runtime().clone();
        let _entered = runtime.enter();
        match (&mut reading).now_or_never() {
            None => under_way(self, Read::Reading(reading)),
            Some(Err(error)) => Begun::Answered(Err(error)),
            Some(Ok(())) => {
                let looks = i64::try_from(self.source.samples()).unwrap_or(i64::MAX).saturating_mul(self.steps());
                let is_little = looks <= FEW_LOOKS && self.source.has_little();
                match is_little.then(|| self.evaluate(&self.engine_of_few(), &InMemory(&self.source))) {
                    None | Some(Err(EvalError::Limit(_))) => under_way(self, Read::Everything),
                    Some(outcome) => Begun::Answered(outcome),
                }
            }
        }
    }

    fn engine_of_few(&self) -> Engine {
        let options = self.engine.options().clone();
        let (max_samples, max_bytes) = (options.max_samples.min(FEW_SAMPLES), self.source.bytes_left());
        Engine::new(Options { max_samples, max_bytes, ..options })
    }

    fn steps(&self) -> i64 {
        let PromqlRequest { start_ms, end_ms, step_ms, .. } = self.request;
        end_ms.saturating_sub(start_ms).checked_div(step_ms).unwrap_or(0).saturating_add(1)
    }

    fn read(self: Arc<Self>, recorder: Recorder) -> Reading {
        async move { self.source.read_ahead(recorder.asked()).await }.boxed()
    }

    fn evaluate(&self, engine: &Engine, source: &dyn Source) -> Outcome {
        evaluate(engine, &self.request, source)
    }

    /// Evaluates parts of the series on several threads; `None` where that is not worth it, or the query cannot be divided.
    fn divided(self: &Arc<Self>, engine: &Engine) -> EvalResult<Option<(Value, Annotations)>> {
        let count = self.threads;
        if count < 2 || self.source.samples() < DIVIDED_SAMPLES {
            return Ok(None);
        }
        let request = &self.request;
        let (query, times) = (request.query.as_str(), (request.start_ms, request.end_ms, request.step_ms));
        let tasks = match engine.tasks(query, times) {
            Ok(tasks) if !tasks.is_empty() => Arc::new(tasks),
            // What is wrong is told by the evaluation of the whole.
            _ => return Ok(None),
        };
        let share_of_bytes = Options { max_bytes: engine.options().max_bytes / count, ..engine.options().clone() };
        let part_engine = Engine::new(share_of_bytes);
        let (own, tasks_of) = (Arc::clone(self), Arc::clone(&tasks));
        let run = move |place: usize| -> EvalResult<Vec<(Partial, Annotations)>> {
            let (query, share) = (own.request.query.as_str(), Share { whole: &own.source, place, count });
            tasks_of.iter().map(|task| part_engine.run_task(query, times, *task, &share)).collect()
        };
        let parts = together(self.source.runtime(), count, run).map_err(failed)?;
        if parts.iter().any(|part| matches!(part, Err(EvalError::Limit(_)))) {
            // Each part counts for itself: whether the whole is too much is told by its evaluation.
            return Ok(None);
        }
        let mut answers: Vec<(Task, Vec<Partial>)> = tasks.iter().map(|task| (*task, Vec::new())).collect();
        let mut notes = Annotations::default();
        for part in parts {
            for ((_, partials), (partial, own)) in answers.iter_mut().zip(part?) {
                partials.push(partial);
                notes.merge(own);
            }
        }
        let (value, own) = engine.finish(query, times, answers)?;
        notes.merge(own);
        Ok(Some((value, notes)))
    }
}

impl Way {
    /// Goes on to the answer, on a thread that may wait, unless the caller is gone before everything is read.
    pub(super) fn finish(&mut self, caller_is_gone: impl Future<Output = ()>) -> Outcome {
        let (asked, read) = (&self.asked, std::mem::replace(&mut self.read, Read::Everything));
        let reading = match read {
            Read::Everything => None,
            Read::Reading(reading) => Some(reading),
            Read::Nothing => {
                let recorder = Recorder::default();
                // What is wrong with the query is told by the evaluation itself.
                drop(asked.evaluate(&asked.engine, &recorder));
                Some(Arc::clone(asked).read(recorder))
            }
        };
        if let Some(reading) = reading {
            let reading = async {
                tokio::select! {
                    biased;
                    read = reading => read,
                    () = caller_is_gone => Err(failed(Error::Cancelled)),
                }
            };
            asked.source.runtime().block_on(reading)?;
        }
        // What the samples take is no longer there for what is made of them.
        let options = asked.engine.options().clone();
        let engine = Engine::new(Options { max_bytes: asked.source.bytes_left(), ..options });
        match asked.divided(&engine)? {
            Some(answer) => Ok(answer),
            None => asked.evaluate(&engine, &asked.source),
        }
    }
}
