//! The rows of a query as bytes, batch by batch; what is more than a little is encoded off the threads that serve the
//! network.

use bytes::Bytes;
use futures::StreamExt as _;
use tidemill_query::output::Encoder;
use tidemill_types::ErrorKind;

use crate::error::{Error, Result};
use crate::query::{RunningQuery, from_query};

pub use tidemill_query::output::OutputFormat;

/// An answer being written. Dropping it cancels its query.
pub struct Answer {
    query: RunningQuery,
    /// `None` once the last bytes are written.
    encoder: Option<Encoder>,
}

impl Answer {
    /// An answer in `format`.
    ///
    /// # Errors
    /// `Invalid` when the format cannot express a column.
    pub fn new(format: OutputFormat, query: RunningQuery) -> Result<Self> {
        let encoder = Encoder::new(format, &query.rows.schema())
            .map_err(|error| Error::caused(ErrorKind::Invalid, "the answer's columns", error))?;
        Ok(Self { query, encoder: Some(encoder) })
    }

    /// The next bytes, or `None` after the last.
    ///
    /// # Errors
    /// Those of the query.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(mut encoder) = self.encoder.take() else { return Ok(None) };
            let batch = match self.query.rows.next().await {
                Some(batch) => Some(batch.map_err(from_query)?),
                None => None,
            };
            let takes_little = encoder.takes_little(batch.as_ref());
            let encode = move || match batch {
                Some(batch) => encoder.encode(&batch).map(|bytes| (bytes, Some(encoder))),
                None => encoder.finish().map(|bytes| (bytes, None)),
            };
            let encoded = if takes_little {
                // The way to another thread would take longer.
                encode()
            } else {
                let encoding = tokio::task::spawn_blocking(encode).await;
                encoding.map_err(|error| Error::caused(ErrorKind::Internal, "encoding rows", error))?
            };
            let (bytes, encoder) =
                encoded.map_err(|error| Error::caused(ErrorKind::Internal, "encoding rows", error))?;
            let is_last = encoder.is_none();
            self.encoder = encoder;
            if !bytes.is_empty() {
                return Ok(Some(Bytes::from(bytes)));
            }
            if is_last {
                return Ok(None);
            }
        }
    }
}
