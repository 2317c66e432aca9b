//! A seeded world of discrete events that drives the pure deciders as they are.
//!
//! Owns: arrivals, service times, start-up delays, failures, the clocks that poll, and what came of it. Never: deciding a size; that is
//! `tidemill_scaling`'s `step`, the same that production calls. The same seed gives the same bytes: there is one source of chance, and time is
//! whole milliseconds. Start with [`simulate`]; loads are in [`load`], policies in [`contender`], and recorded
//! incidents in [`replay`].

pub mod contender;
pub mod html;
pub mod load;
pub mod outcome;
pub mod replay;

mod clock;
mod observe;
mod random;
mod replica;
mod vertical;
mod world;

use serde::{Deserialize, Serialize};

pub use contender::Contender;
pub use load::{Load, LoadError};
pub use outcome::Outcome;
pub use replica::{Size, Usage};

/// What every policy of a comparison meets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// The seed of chance.
    pub seed: u64,
    /// How long one item takes, on average; times are exponential around it, at most ten times it.
    pub service_ms: i64,
    /// How long a replica takes until it works, on average; half of it to one and a half.
    pub startup_ms: i64,
    /// The chance that an item takes its replica down; the item waits again.
    pub failure: f64,
    /// The wait that should not be passed.
    pub objective_ms: i64,
    /// What the queue's number counts, for policies that follow it.
    pub counts: Counts,
    /// What a replica uses.
    pub usage: Usage,
    /// How long the claim of a replica that went down is kept; 0 gives it up at once.
    pub lease_ms: i64,
}

/// What a queue's number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counts {
    /// Items that wait.
    Unclaimed,
    /// Items that wait or are worked on.
    Unfinished,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 1,
            service_ms: 10_000,
            startup_ms: 10_000,
            failure: 0.0,
            objective_ms: 60_000,
            counts: Counts::Unfinished,
            usage: Usage::default(),
            lease_ms: 0,
        }
    }
}

/// Runs one policy over one load.
pub fn simulate(setup: &Setup, load: &Load, contender: &Contender) -> Outcome {
    world::World::new(setup, load, contender).run()
}
