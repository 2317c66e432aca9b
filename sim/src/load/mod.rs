//! When items arrive: from a recorded trace, or from a generator.

mod generator;
mod trace;

use std::fmt;

pub use generator::GENERATORS;

use crate::random::Random;

/// Items that one load may have.
const MAX_ARRIVALS: usize = 10_000_000;

/// Arrivals in milliseconds from the start, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// What it is, for reports.
    pub name: String,
    /// When each item arrives.
    pub arrivals_ms: Vec<i64>,
    /// How long the load lasts.
    pub duration_ms: i64,
}

/// Why a load cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// What is wrong, with the line of a trace.
    pub message: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LoadError {}

pub(crate) fn refused(message: impl Into<String>) -> LoadError {
    LoadError { message: message.into() }
}

impl Load {
    /// A generator's load, such as `poisson:0.5` or `burst:0.2,20,3600,60`.
    ///
    /// # Errors
    /// An unknown generator, or numbers that it cannot use.
    pub fn generate(text: &str, duration_ms: i64, seed: u64) -> Result<Self, LoadError> {
        generator::generate(text, duration_ms, &mut Random::new(seed ^ 0x6c6f_6164))
    }

    /// A trace: `time,count` or `time` alone, one header line allowed. `factor` multiplies counts, for traces larger or smaller than wanted.
    ///
    /// # Errors
    /// A line that is neither, with its number; times that go back; more items than can be simulated.
    pub fn trace(name: &str, text: &str, factor: f64, seed: u64) -> Result<Self, LoadError> {
        trace::read(name, text, factor, &mut Random::new(seed ^ 0x6c6f_6164))
    }

    /// Adds the arrivals of a stretch of time with this many items, evenly by chance; fractions of items come by chance.
    pub(crate) fn spread(
        &mut self,
        from_ms: i64,
        length_ms: i64,
        items: f64,
        random: &mut Random,
    ) -> Result<(), LoadError> {
        let whole = items.floor();
        let count = whole + f64::from(random.unit() < items - whole);
        if self.arrivals_ms.len() as f64 + count > MAX_ARRIVALS as f64 {
            return Err(refused(format!("the load has more than {MAX_ARRIVALS} items; use a smaller factor")));
        }
        let first = self.arrivals_ms.len();
        for _ in 0..count as usize {
            self.arrivals_ms.push(from_ms + (random.unit() * length_ms as f64) as i64);
        }
        self.arrivals_ms[first..].sort_unstable();
        Ok(())
    }
}
