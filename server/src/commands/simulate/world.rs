//! Options of the world that policies meet.

use clap::{Args, ValueEnum};
use tidemill_sim::{Counts, Setup, Usage};

use crate::error::{Error, Result};

/// The largest amount of memory that an option may name, in MiB: 16 TiB.
const MAX_MIB: u32 = 1 << 24;

/// What every policy of a run meets.
#[derive(Debug, Args)]
pub struct WorldOptions {
    /// How long one item takes on average, in seconds
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    service: f64,
    /// How long a replica takes to start on average, in seconds
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    startup: f64,
    /// The chance that an item takes its replica down, 0 to 1
    #[arg(long, default_value_t = 0.0, value_name = "CHANCE")]
    failure: f64,
    /// How long the claim of a replica that went down is kept, in seconds
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    lease: f64,
    /// The wait that should not be passed, in seconds
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    objective: f64,
    /// What the queue's number counts
    #[arg(long, value_enum, default_value_t = Counted::Unfinished)]
    counts: Counted,
    /// CPU of a replica that works, in millicores
    #[arg(long, default_value_t = 1000, value_name = "MILLICORES", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    cpu: u32,
    /// Memory of a replica at rest, in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB", value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_MIB)))]
    memory: u32,
    /// What an item takes more on average, in MiB
    #[arg(long, default_value_t = 0, value_name = "MIB", value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_MIB)))]
    item_memory: u32,
    /// The seed of chance
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What a queue's number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Counted {
    /// Items that wait
    Unclaimed,
    /// Items that wait or are worked on
    Unfinished,
}

impl WorldOptions {
    /// The world that they describe.
    ///
    /// # Errors
    /// `Invalid` for a number out of its range.
    pub fn setup(&self) -> Result<Setup> {
        let ms = |name: &str, seconds: f64| {
            if seconds.is_finite() && (0.0..=86_400.0).contains(&seconds) {
                return Ok((seconds * 1000.0) as i64);
            }
            Err(Error::invalid(format!("--{name} {seconds}: expected seconds from 0 to 86400")))
        };
        if !(0.0..=0.9).contains(&self.failure) {
            return Err(Error::invalid(format!("--failure {}: expected a chance from 0 to 0.9", self.failure)));
        }
        Ok(Setup {
            seed: self.seed,
            service_ms: ms("service", self.service)?,
            startup_ms: ms("startup", self.startup)?,
            failure: self.failure,
            objective_ms: ms("objective", self.objective)?,
            counts: match self.counts {
                Counted::Unclaimed => Counts::Unclaimed,
                Counted::Unfinished => Counts::Unfinished,
            },
            usage: Usage {
                cpu_milli: i64::from(self.cpu),
                memory_bytes: i64::from(self.memory) << 20,
                item_bytes: i64::from(self.item_memory) << 20,
            },
            lease_ms: ms("lease", self.lease)?,
        })
    }
}
