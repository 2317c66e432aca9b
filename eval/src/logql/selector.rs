//! Which streams and times a query selects.

use std::sync::Arc;

use tidemill_lang::logql::ast::Matcher;

use super::batch::StreamLabels;
use super::filter::TextTest;
use crate::error::Result;

/// The streams of a batch.
pub(super) type StreamTable = Arc<[StreamLabels]>;

/// Lines that a query can use.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// What their stream must meet.
    pub matchers: Vec<Matcher>,
    /// Their first nanosecond.
    pub start_ns: i64,
    /// The nanosecond behind their last.
    pub end_ns: i64,
}

/// So many lines of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLines {
    /// Its place in a table of streams.
    pub stream: u32,
    /// How many lines.
    pub lines: u64,
    /// The bytes of their texts.
    pub bytes: u64,
}

/// The conditions of a selector, for one stream at a time.
#[derive(Debug)]
pub struct StreamSelector(StreamTests);

impl StreamSelector {
    /// The selector of `matchers`.
    ///
    /// # Errors
    /// A pattern is too large.
    pub fn new(matchers: &[Matcher]) -> Result<Self> {
        StreamTests::new(matchers).map(Self)
    }

    /// Whether a stream meets all conditions.
    pub fn meets(&self, stream: &StreamLabels) -> bool {
        self.0.tests.iter().all(|(name, test)| test.meets(stream.get(name)))
    }
}

/// The conditions of a selector, and which streams of the last table meet them.
#[derive(Debug)]
pub(super) struct StreamTests {
    tests: Vec<(String, TextTest)>,
    table: Option<StreamTable>,
    met: Vec<bool>,
}

impl StreamTests {
    pub fn new(matchers: &[Matcher]) -> Result<Self> {
        let tests = matchers.iter().map(|matcher| Ok((matcher.name.clone(), TextTest::new(matcher)?)));
        Ok(Self { tests: tests.collect::<Result<_>>()?, table: None, met: Vec::new() })
    }

    /// Looks at a batch's streams; whether they are others than before.
    pub fn learn(&mut self, table: &StreamTable) -> bool {
        if self.table.as_ref().is_some_and(|own| Arc::ptr_eq(own, table)) {
            return false;
        }
        self.met =
            table.iter().map(|stream| self.tests.iter().all(|(name, test)| test.meets(stream.get(name)))).collect();
        self.table = Some(Arc::clone(table));
        true
    }

    pub fn meets(&self, stream: u32) -> bool {
        self.met.get(stream as usize).copied().unwrap_or(false)
    }
}
