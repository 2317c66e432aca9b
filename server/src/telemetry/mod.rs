//! What this process tells of itself: log lines on stderr.

use tidemill_types::ErrorKind;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::Config;
use crate::error::{Error, Result};

/// Starts log lines on stderr.
///
/// # Errors
/// `Invalid` for a filter that is none.
pub fn start(config: &Config) -> Result<()> {
    let filter = EnvFilter::try_new(config.settings.text("log.level")).map_err(|error| {
        Error::caused(ErrorKind::Invalid, "log.level", error).with_hint("as info, or info,tidemill_lake=debug")
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let started = match config.settings.text("log.format") {
        "json" => registry.with(layer.json()).try_init(),
        _ => registry.with(layer).try_init(),
    };
    started.map_err(|error| Error::caused(ErrorKind::Internal, "starting the log", error))
}
