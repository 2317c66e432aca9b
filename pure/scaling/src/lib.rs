//! Decisions about work and size, as pure functions.
//!
//! Owns: what a horizontal, an event-driven and a vertical autoscaler decide ([`hpa`], [`keda`], [`vpa`]), exact job accounting ([`exact`]),
//! forecasts ([`forecast`]), the reading and checking of their manifests, and the rules of attempts at work ([`lease`], [`retry`]).
//! Never: clocks, randomness, I/O. Time, dice and counts are arguments. Every kind of policy has one
//! `step(policy, state, observation, now) -> Outcome { state, actions, reasons }`; all four are data with a stable JSON form, and `step` on a
//! printed observation gives the printed decision ([`Record`]). The production loops and the simulator are the only callers.

pub mod cases;
pub mod decision;
pub mod exact;
pub mod forecast;
pub mod formula;
pub mod hpa;
pub mod keda;
pub mod lease;
pub mod lint;
pub mod manifest;
pub mod quantity;
pub mod record;
pub mod retry;
mod victims;
pub mod vpa;

pub use decision::{Action, Outcome, Reason, TimeMs};
pub use record::Record;
pub use victims::choose_victims;
