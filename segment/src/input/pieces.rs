//! Records of other formats gathered into OTLP messages of one resource each, walked piece by piece.

use tidemill_types::Signal;

use crate::error::Result;
use crate::otlp::Sink;
use crate::otlp::walk::{Extent, walk_resource};
use crate::otlp::writer::put_bytes_field;

/// A piece is walked when it has this many bytes.
const PIECE_BYTES: usize = 1 << 20;

/// Records that are not walked yet.
pub(crate) struct Pieces {
    signal: Signal,
    /// The `Resource` message of the records, then the `InstrumentationScope` message.
    frame: (Vec<u8>, Vec<u8>),
    /// The records as fields of a `ScopeLogs`, `ScopeMetrics` or `ScopeSpans`.
    records: Vec<u8>,
    walked: u64,
}

impl Pieces {
    pub(crate) fn new(signal: Signal) -> Self {
        Self { signal, frame: (Vec::new(), Vec::new()), records: Vec::new(), walked: 0 }
    }

    /// Adds the message of one record (for metrics, one `Metric`) of a resource and scope.
    pub(crate) fn add<S: Sink>(&mut self, frame: (Vec<u8>, Vec<u8>), record: &[u8], sink: &mut S) -> Result<()> {
        if self.records.len() > PIECE_BYTES || (self.frame != frame && !self.records.is_empty()) {
            self.walk(sink)?;
        }
        self.frame = frame;
        put_bytes_field(&mut self.records, 2, record);
        Ok(())
    }

    /// Walks what is left.
    pub(crate) fn walk<S: Sink>(&mut self, sink: &mut S) -> Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        let mut scope = Vec::with_capacity(self.records.len() + 64);
        put_bytes_field(&mut scope, 1, &self.frame.1);
        scope.extend_from_slice(&self.records);
        let mut resource = Vec::with_capacity(scope.len() + 256);
        put_bytes_field(&mut resource, 1, &self.frame.0);
        put_bytes_field(&mut resource, 2, &scope);
        self.records.clear();
        walk_resource(self.signal, self.walked, &resource, Extent::Whole, sink)?;
        self.walked += 1;
        Ok(())
    }
}
