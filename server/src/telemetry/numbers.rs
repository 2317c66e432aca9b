//! This process's own counters, where `/metrics` and the export both read them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use parking_lot::Mutex;
use tidemill_lake::clock::{Clock as _, SystemClock};
use tidemill_lake::receive::Receiver;
use tidemill_lake::sweep::SweeperHandle;
use tidemill_lake::worker::{LagHistogram, RecentLag, WorkerHandle};

/// One number that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// As OpenTelemetry names it: `tidemill.receive.records`.
    pub name: &'static str,
    /// Its unit in UCUM's notation.
    pub unit: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Since the start.
    pub value: u64,
}

impl Number {
    /// As Prometheus names it: `tidemill_receive_records_total`.
    pub fn prometheus_name(&self) -> String {
        let unit = if self.unit == "By" && !self.name.ends_with("bytes") { "_bytes" } else { "" };
        format!("{}{unit}_total", self.name.replace('.', "_"))
    }
}

/// The roles of this process whose counters are read.
#[derive(Debug, Clone, Default)]
pub struct Numbers(Arc<Mutex<Sources>>);

#[derive(Debug, Clone, Default)]
struct Sources {
    receiver: Option<Receiver>,
    worker: Option<WorkerHandle>,
    sweeper: Option<SweeperHandle>,
}

impl Numbers {
    /// Reads these from now on.
    pub fn set(&self, receiver: Option<Receiver>, worker: Option<WorkerHandle>, sweeper: Option<SweeperHandle>) {
        *self.0.lock() = Sources { receiver, worker, sweeper };
    }

    /// Lets the receiver go, so that it can end.
    pub fn clear(&self) {
        *self.0.lock() = Sources::default();
    }

    /// From arrival to queryable, since the start; `None` where this process has no worker.
    pub fn lag(&self) -> Option<LagHistogram> {
        Some(self.0.lock().worker.as_ref()?.counters().lag.histogram())
    }

    /// From arrival to queryable, over the last minutes; `None` where nothing became queryable by this process.
    pub fn recent_lag(&self) -> Option<RecentLag> {
        self.0.lock().worker.as_ref()?.counters().lag.recent(SystemClock.now())
    }

    /// Every counter as it stands.
    pub fn read(&self) -> Vec<Number> {
        let sources = self.0.lock().clone();
        let mut numbers = Vec::new();
        let mut add = |name: &str, value: &AtomicU64| {
            let described = DESCRIBED.iter().find(|(described, ..)| *described == name);
            let (name, unit, help) = *described.expect("every counter is described, as a test checks");
            numbers.push(Number { name, unit, help, value: value.load(Ordering::Relaxed) });
        };
        if let Some(receiver) = &sources.receiver {
            let it = receiver.counters();
            add("tidemill.receive.requests", &it.requests);
            add("tidemill.receive.repeats", &it.repeats);
            add("tidemill.receive.turned_away", &it.turned_away);
            add("tidemill.receive.malformed", &it.malformed);
            add("tidemill.receive.records", &it.records);
            add("tidemill.receive.records_rejected", &it.records_rejected);
            add("tidemill.receive.io", &it.bytes);
            add("tidemill.receive.raw_objects", &it.raw_objects);
        }
        if let Some(worker) = &sources.worker {
            let it = worker.counters();
            add("tidemill.worker.bundles_published", &it.published);
            add("tidemill.worker.bundles_failed", &it.failed);
            add("tidemill.worker.leases_lost", &it.lost);
            add("tidemill.worker.segments", &it.segments);
            add("tidemill.worker.rows", &it.rows);
            add("tidemill.worker.input", &it.input_bytes);
            add("tidemill.worker.times_replaced", &it.times_replaced);
            add("tidemill.worker.records_refused", &it.records_refused);
        }
        if let Some(sweeper) = &sources.sweeper {
            let it = sweeper.counters();
            add("tidemill.sweeper.doomed_deleted", &it.doomed_deleted);
            add("tidemill.sweeper.orphans_deleted", &it.orphans_deleted);
            add("tidemill.sweeper.segments_retired", &it.retired);
        }
        numbers
    }
}

/// Exports every counter, and this process's memory.
pub fn observe(provider: &SdkMeterProvider, numbers: &Numbers) {
    let meter = provider.meter("tidemill");
    // The instruments are those of a whole server; a role that is not played gives no point.
    for (name, unit, help) in DESCRIBED {
        let numbers = numbers.clone();
        let found = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
            if let Some(number) = numbers.read().iter().find(|number| number.name == *name) {
                observer.observe(number.value, &[]);
            }
        };
        let _instrument =
            meter.u64_observable_counter(*name).with_unit(*unit).with_description(*help).with_callback(found).build();
    }
    let numbers = numbers.clone();
    let lag = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<f64>| {
        if let Some(lag) = numbers.recent_lag() {
            for (quantile, ms) in [(0.5, lag.p50_ms), (0.99, lag.p99_ms)] {
                observer.observe(ms / 1e3, &[KeyValue::new("quantile", quantile)]);
            }
        }
    };
    let _lag = meter
        .f64_observable_gauge("tidemill.ingest.arrival_to_queryable")
        .with_description("From arrival to queryable over the last minutes, by quantile.")
        .with_unit("s")
        .with_callback(lag)
        .build();
    let memory = |observer: &dyn opentelemetry::metrics::AsyncInstrument<i64>| {
        if let Some(bytes) = resident_bytes() {
            observer.observe(bytes, &[]);
        }
    };
    let _memory =
        meter.i64_observable_up_down_counter("process.memory.usage").with_unit("By").with_callback(memory).build();
}

/// Every counter: its name, unit and meaning.
const DESCRIBED: &[(&str, &str, &str)] = &[
    ("tidemill.receive.requests", "{request}", "Pushed requests acknowledged."),
    ("tidemill.receive.repeats", "{request}", "Pushed requests acknowledged as repeats of a known one."),
    ("tidemill.receive.turned_away", "{request}", "Pushed requests turned away because of a bound."),
    ("tidemill.receive.malformed", "{request}", "Pushed requests that were malformed as a whole."),
    ("tidemill.receive.records", "{record}", "Pushed records acknowledged."),
    ("tidemill.receive.records_rejected", "{record}", "Records refused in acknowledged requests."),
    ("tidemill.receive.io", "By", "Uncompressed bytes acknowledged."),
    ("tidemill.receive.raw_objects", "{object}", "Raw objects written."),
    ("tidemill.worker.bundles_published", "{bundle}", "Bundles published."),
    ("tidemill.worker.bundles_failed", "{bundle}", "Bundles that failed."),
    ("tidemill.worker.leases_lost", "{lease}", "Bundles whose lease was lost."),
    ("tidemill.worker.segments", "{segment}", "Segments published."),
    ("tidemill.worker.rows", "{row}", "Rows in segments published by ingest."),
    ("tidemill.worker.input", "By", "Bytes of inputs ingested, as stored."),
    ("tidemill.worker.times_replaced", "{record}", "Records whose time was outside the valid range."),
    ("tidemill.worker.records_refused", "{record}", "Records refused while reading."),
    ("tidemill.sweeper.doomed_deleted", "{object}", "Doomed objects deleted."),
    ("tidemill.sweeper.orphans_deleted", "{object}", "Orphans deleted."),
    ("tidemill.sweeper.segments_retired", "{segment}", "Segments retired by retention."),
];

/// This process's resident memory.
pub fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_names_tell_unit_and_kind() {
        let number = |name, unit| Number { name, unit, help: "", value: 0 }.prometheus_name();
        assert_eq!(number("tidemill.receive.records", "{record}"), "tidemill_receive_records_total");
        assert_eq!(number("tidemill.worker.input", "By"), "tidemill_worker_input_bytes_total");
    }
}
