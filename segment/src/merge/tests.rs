//! Tests of merges.
