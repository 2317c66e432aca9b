//! Bytes as stored.
