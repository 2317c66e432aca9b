//! What this process tells of itself: log lines on stderr, and, where wished, traces, logs and metrics as OTLP: to another
//! system (`telemetry.otlp_export`) or to itself (`tidemill demo`).
//!
//! Its own export is never traced: it enters through a door in this process, below the listeners, with tracing switched off.
//! Start with [`Telemetry::start`].

mod door;
mod export;
mod host;
mod numbers;
mod replicas;

use std::io::IsTerminal as _;
use std::sync::Arc;

use tidemill_types::ErrorKind;
use tracing::Metadata;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::{DefaultFields, Format};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

pub use door::OwnDoor;
pub use export::parse_headers;
pub use numbers::{Numbers, resident_bytes};
pub use replicas::tell as tell_of_replicas;

use crate::config::Config;
use crate::error::{Error, Result};

/// Where this process's own telemetry goes.
#[derive(Debug, Clone)]
pub enum Destination {
    /// Nowhere; log lines only.
    Nowhere,
    /// To the OTLP/HTTP base URL of the configuration.
    Elsewhere,
    /// Into this very process: what it tells of itself, and what it tells of the machine.
    Here {
        /// Its own telemetry's door.
        own: OwnDoor,
        /// The machine's metrics' door.
        host: OwnDoor,
    },
}

/// Where the configuration sends it.
pub fn destination(config: &Config) -> Destination {
    if config.optional("telemetry.otlp_export").is_some() { Destination::Elsewhere } else { Destination::Nowhere }
}

/// The running exports.
#[derive(Debug, Default)]
pub struct Telemetry {
    exports: Vec<export::Export>,
    /// Read by the metrics that are exported.
    pub numbers: Numbers,
}

impl Telemetry {
    /// Starts log lines on stderr, and exports to `destination`.
    ///
    /// # Errors
    /// `Invalid` for a filter or URL that is none.
    pub fn start(config: &Config, destination: &Destination, runtime: &tokio::runtime::Handle) -> Result<Self> {
        let numbers = Numbers::default();
        let exports = match destination {
            Destination::Nowhere => Vec::new(),
            Destination::Elsewhere => vec![export::Export::elsewhere(config, runtime, &numbers)?],
            Destination::Here { own, host } => {
                let own: Arc<dyn opentelemetry_http::HttpClient> = Arc::new(own.clone());
                let host: Arc<dyn opentelemetry_http::HttpClient> = Arc::new(host.clone());
                vec![export::Export::own(config, own, &numbers)?, export::Export::of_host(host)?]
            }
        };
        start_log(config, exports.first())?;
        Ok(Self { exports, numbers })
    }

    /// Whether spans are exported.
    pub fn is_exporting(&self) -> bool {
        !self.exports.is_empty()
    }

    /// Sends what is left and ends. Blocks the thread.
    pub fn shut_down(self) {
        for export in self.exports {
            export.shut_down();
        }
        self.numbers.clear();
    }
}

/// Nobody may read stderr any more: a line that cannot be written is no reason to fail.
fn lines_to_stderr<S>() -> fmt::Layer<S, DefaultFields, Format, fn() -> std::io::Stderr> {
    fmt::layer().with_writer(std::io::stderr as fn() -> std::io::Stderr).log_internal_errors(false)
}

fn start_log(config: &Config, export: Option<&export::Export>) -> Result<()> {
    let level = || {
        EnvFilter::try_new(config.settings.text("log.level"))
            .map_err(|error| Error::caused(ErrorKind::Invalid, "log.level", error))
    };
    // Spans are for the export alone: without one they cost nothing, and lines stay short.
    let lines = level()?.and(filter_fn(|it: &Metadata<'_>| it.is_event()));
    let is_json = config.settings.text("log.format") == "json";
    let is_colored = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    let plain = (!is_json).then(|| lines_to_stderr().with_ansi(is_colored).with_target(false).boxed());
    let json = is_json.then(|| lines_to_stderr().json().boxed());
    let spans = export
        .and_then(export::Export::trace_layer)
        .map(|layer| layer.with_filter(LevelFilter::INFO.and(filter_fn(|it: &Metadata<'_>| it.is_span()))));
    let records = export.and_then(export::Export::log_layer).map(|layer| Ok::<_, Error>(layer.with_filter(level()?)));
    let registry =
        tracing_subscriber::registry().with(plain.or(json).with_filter(lines)).with(spans).with(records.transpose()?);
    registry.try_init().map_err(|error| Error::caused(ErrorKind::Internal, "starting the log", error))
}
