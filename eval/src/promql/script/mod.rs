//! Prometheus's test scripts for PromQL: data is loaded, queries are evaluated, results are compared.
//!
//! The format is that of `promql/promqltest` of Prometheus. As there, an instant query is also run with its time fixed by `@` at other
//! times, and in the middle of a range. Start with [`run`].

mod almost;
mod command;
mod compare;
mod eval;
mod load;
mod series;

use super::engine::{Engine, Options};
use super::memory::MemoryStore;
use super::source::Source;
use crate::error::Result;

use command::Command;

/// Where a script's data goes, and where its queries find it.
pub trait Store {
    /// Forgets all data.
    ///
    /// # Errors
    /// The store failed.
    fn clear(&mut self) -> Result<()>;

    /// Adds the samples of `data`.
    ///
    /// # Errors
    /// The store failed.
    fn load(&mut self, data: &Loaded) -> Result<()>;

    /// The partitions that hold all data.
    fn sources(&self) -> Vec<&dyn Source>;
}

/// Samples to be stored, in their order.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Each sample with its series.
    pub samples: Vec<LoadedSample>,
}

/// One sample to be stored.
#[derive(Debug, Clone)]
pub struct LoadedSample {
    /// The series' labels.
    pub labels: crate::labels::Labels,
    /// The time, in milliseconds since 1970.
    pub time: i64,
    /// When the counter began, in milliseconds, or 0.
    pub start: i64,
    /// A number or a histogram.
    pub value: super::value::Sample,
}

/// What came of a script.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many queries gave what was expected.
    pub passed: usize,
    /// Those that did not.
    pub failed: Vec<Failure>,
}

/// A query that gave something else, or a line that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The line in the script, from 1.
    pub line: usize,
    /// What was evaluated.
    pub what: String,
    /// How it differs.
    pub message: String,
}

/// The store that a script uses by default: one in memory, divided into a number of partitions.
#[derive(Debug)]
pub struct MemoryPartitions {
    hints: load::Hints,
    stores: Vec<MemoryStore>,
}

impl MemoryPartitions {
    /// Empty partitions, at least one.
    pub fn new(count: usize) -> Self {
        let stores = (0..count.max(1)).map(|_| MemoryStore::default()).collect();
        Self { hints: load::Hints::default(), stores }
    }
}

impl Store for MemoryPartitions {
    fn clear(&mut self) -> Result<()> {
        *self = Self::new(self.stores.len());
        Ok(())
    }

    fn load(&mut self, data: &Loaded) -> Result<()> {
        for sample in &data.samples {
            let partition = load::partition(&sample.labels, self.stores.len());
            self.hints.store(sample, &mut self.stores[partition]);
        }
        Ok(())
    }

    fn sources(&self) -> Vec<&dyn Source> {
        self.stores.iter().map(|store| store as &dyn Source).collect()
    }
}

/// Runs a script over `store`.
pub fn run(script: &str, store: &mut dyn Store) -> Report {
    let engine = Engine::new(Options { max_samples: 1_000_000, ..Options::default() });
    let mut report = Report::default();
    let commands = match command::parse_commands(script) {
        Ok(commands) => commands,
        Err(failure) => {
            report.failed.push(failure);
            return report;
        }
    };
    for command in commands {
        let (line, what, result) = match command {
            Command::Clear => (0, "clear".to_owned(), store.clear().map_err(|error| error.to_string())),
            Command::Load(line, data) => {
                (line, "load".to_owned(), store.load(&data).map_err(|error| error.to_string()))
            }
            Command::Eval(evaluation) => {
                let result = eval::run(&evaluation, &engine, &store.sources());
                if result.is_ok() {
                    report.passed += 1;
                }
                (evaluation.line, evaluation.query, result)
            }
        };
        if let Err(message) = result {
            report.failed.push(Failure { line, what, message });
        }
    }
    report
}
