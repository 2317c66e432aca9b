//! `POST /api/v1/load?name=…&signal=…&format=…`: a file as the body.

use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use futures::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

use super::ApiState;
use super::arguments::Query;
use super::caller::Member;
use crate::error::{Error, Result};
use crate::intake::{FileDescription, Intake, Loaded, MAX_FILE_BYTES, from_lake};

/// A sender that stands still this long is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// What loading stands on.
#[derive(Debug, Clone)]
pub struct LoadState {
    /// Admits files.
    pub intake: Intake,
    /// Where a body lies until it is stored.
    pub spool: PathBuf,
}

/// The route. Its body is counted as it is read, not by the general limit.
pub fn router() -> Router<ApiState> {
    Router::new().route("/api/v1/load", post(load)).layer(DefaultBodyLimit::disable())
}

async fn load(
    State(state): State<ApiState>,
    Member(organization): Member,
    Query(file): Query<FileDescription>,
    body: Body,
) -> Result<Json<Loaded>> {
    // Before the body is read: it may be large.
    state.load.intake.gate.check_for(organization).map_err(from_lake)?;
    let spooled = SpooledFile(state.load.spool.join(format!("load-{}", uuid::Uuid::new_v4())));
    spooled.write(body).await?;
    Ok(Json(state.load.intake.admit_file(organization, &file, &spooled.0).await?))
}

/// A file that is deleted when it is no longer needed, however that came.
struct SpooledFile(PathBuf);

impl SpooledFile {
    async fn write(&self, body: Body) -> Result<()> {
        let fail = |error| Error::io("writing to the spool folder", error);
        let mut file = tokio::fs::File::create(&self.0).await.map_err(fail)?;
        let mut chunks = body.into_data_stream();
        let mut written = 0;
        let silent = |_| Error::invalid(format!("nothing of the body came for {} s", SILENCE.as_secs()));
        while let Some(chunk) = tokio::time::timeout(SILENCE, chunks.next()).await.map_err(silent)? {
            let chunk = chunk.map_err(|error| Error::invalid(format!("the body ended early: {error}")))?;
            written += chunk.len() as u64;
            if written > MAX_FILE_BYTES {
                return Err(Error::invalid(format!("the file has more than {MAX_FILE_BYTES} bytes")));
            }
            file.write_all(&chunk).await.map_err(fail)?;
        }
        file.flush().await.map_err(fail)
    }
}

impl Drop for SpooledFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(%error, "a spooled file");
        }
    }
}
