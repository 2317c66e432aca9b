//! Lease, retry and dead-letter rules: pure decisions about attempts at work.
