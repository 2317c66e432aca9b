//! Lease, retry and dead-letter rules: pure decisions about attempts at work.
//!
//! Owns: how large a bundle is, what a crash or a failure does to its items, and when an item is given up.
//! Never: clocks, randomness, I/O. Jitter is an argument, counts are observations; the metastore backends are the callers.
//! Start with [`lease`] (bundles and crashes), then [`retry`] (reported failures).

pub mod lease;
pub mod retry;
