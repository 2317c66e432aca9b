//! Writes records in both spellings: `<signal>.otlp` (requests, each behind its length as four little-endian bytes) and
//! `<signal>.ndjson`. The same seed gives the same bytes.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
    number_data_point::Value as Number,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tidemill_types::Signal;

use crate::records::{self, PODS};
use crate::templates::SERVICES;

/// What to write.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// logs, metrics or traces.
    #[arg(long)]
    signal: Signal,
    /// How many records.
    #[arg(long)]
    records: u64,
    /// Records in one request.
    #[arg(long, default_value_t = 4_000)]
    batch: u64,
    /// Time of the first record, Unix seconds.
    #[arg(long)]
    start: i64,
    /// Over how many hours the records are spread.
    #[arg(long, default_value_t = 20)]
    hours: i64,
    /// The folder for both files.
    #[arg(long)]
    out: PathBuf,
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// Where the records go.
struct Sink {
    otlp: BufWriter<File>,
    lines: BufWriter<File>,
    requests: u64,
}

impl Sink {
    fn send(&mut self, request: &impl Message) -> anyhow::Result<()> {
        let body = request.encode_to_vec();
        self.otlp.write_all(&u32::try_from(body.len()).context("a request beyond 4 GiB")?.to_le_bytes())?;
        self.otlp.write_all(&body)?;
        self.requests += 1;
        Ok(())
    }
}

/// Writes the files and describes them.
pub fn run(options: &Options) -> anyhow::Result<String> {
    std::fs::create_dir_all(&options.out)?;
    let create = |name: String| -> anyhow::Result<_> {
        let path = options.out.join(name);
        Ok(BufWriter::with_capacity(1 << 20, File::create(&path).with_context(|| path.display().to_string())?))
    };
    let mut sink = Sink {
        otlp: create(format!("{}.otlp", options.signal))?,
        lines: create(format!("{}.ndjson", options.signal))?,
        requests: 0,
    };
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut clock = Clock::new(options);
    let mut left = options.records;
    while left > 0 {
        let count = left.min(options.batch);
        match options.signal {
            Signal::Logs => logs(&mut sink, &mut random, &mut clock, count)?,
            Signal::Metrics => metrics(&mut sink, &mut random, &mut clock, count)?,
            Signal::Traces => traces(&mut sink, &mut random, &mut clock, count)?,
        }
        left -= count;
    }
    sink.otlp.flush()?;
    sink.lines.flush()?;
    let report = json!({"signal": options.signal.to_string(), "records": options.records, "requests": sink.requests,
        "otlp_bytes": sink.otlp.get_ref().metadata()?.len(), "ndjson_bytes": sink.lines.get_ref().metadata()?.len()});
    Ok(report.to_string())
}

/// Times that go up evenly, with jitter below the step.
struct Clock {
    next_ns: i64,
    step_ns: i64,
}

impl Clock {
    fn new(options: &Options) -> Self {
        let records = i64::try_from(options.records).unwrap_or(i64::MAX).max(1);
        Self { next_ns: options.start * 1_000_000_000, step_ns: (options.hours * 3_600_000_000_000 / records).max(1) }
    }

    fn tick(&mut self, random: &mut StdRng) -> u64 {
        self.next_ns += self.step_ns;
        (self.next_ns + random.random_range(0..self.step_ns)).unsigned_abs()
    }
}

/// A batch holds the records of some pods, as a collector sends it.
fn pods(random: &mut StdRng, count: u64) -> Vec<(usize, usize, u64)> {
    let parts = 8.min(count);
    (0..parts)
        .map(|part| {
            let share = count / parts + u64::from(part < count % parts);
            (random.random_range(0..SERVICES.len()), random.random_range(0..PODS), share)
        })
        .collect()
}

fn logs(sink: &mut Sink, random: &mut StdRng, clock: &mut Clock, count: u64) -> anyhow::Result<()> {
    let mut request = ExportLogsServiceRequest::default();
    for (service, pod, share) in pods(random, count) {
        let resource = records::resource(service, pod);
        let resource_json = records::resource_json(&resource);
        let mut log_records = Vec::new();
        for _ in 0..share {
            let template = records::pick(random);
            let time = clock.tick(random);
            let body = records::fill(template, random);
            let (attributes, attributes_json) = records::log_attributes(random);
            let is_traced = random.random_ratio(3, 5);
            let trace_id: Vec<u8> = if is_traced { random.random::<[u8; 16]>().to_vec() } else { Vec::new() };
            let span_id: Vec<u8> = if is_traced { random.random::<[u8; 8]>().to_vec() } else { Vec::new() };
            let severity = severity_text(template.severity);
            writeln!(
                sink.lines,
                "{{\"time\":{time},\"observed_time\":{time},\"severity_number\":{},\"severity_text\":\"{severity}\",\"body\":{},\
                 \"trace_id\":\"{}\",\"span_id\":\"{}\",\"service_name\":\"{}\",\"attributes\":{attributes_json},\
                 \"resource\":{resource_json}}}",
                template.severity,
                serde_json::Value::from(body.as_str()),
                hex::encode(&trace_id),
                hex::encode(&span_id),
                SERVICES[service],
            )?;
            log_records.push(LogRecord {
                time_unix_nano: time,
                observed_time_unix_nano: time,
                severity_number: template.severity,
                severity_text: severity.to_owned(),
                body: Some(AnyValue { value: Some(Value::StringValue(body)) }),
                attributes,
                trace_id,
                span_id,
                ..LogRecord::default()
            });
        }
        let scope_logs = vec![ScopeLogs { scope: Some(records::scope()), log_records, ..ScopeLogs::default() }];
        request.resource_logs.push(ResourceLogs { resource: Some(resource), scope_logs, ..ResourceLogs::default() });
    }
    sink.send(&request)
}

fn severity_text(number: i32) -> &'static str {
    match number {
        ..=4 => "TRACE",
        5..=8 => "DEBUG",
        9..=12 => "INFO",
        13..=16 => "WARN",
        17..=20 => "ERROR",
        _ => "FATAL",
    }
}

fn metrics(sink: &mut Sink, random: &mut StdRng, clock: &mut Clock, count: u64) -> anyhow::Result<()> {
    const METRICS: u64 = 25;
    let mut request = ExportMetricsServiceRequest::default();
    for (service, pod, share) in pods(random, count) {
        let resource = records::resource(service, pod);
        let resource_json = records::resource_json(&resource);
        let time = clock.tick(random);
        let mut metrics = Vec::new();
        for number in 0..METRICS.min(share) {
            let points = share / METRICS.min(share) + u64::from(number < share % METRICS.min(share));
            let is_sum = number % 3 == 0;
            let name = format!("shop.{}.{number}", if is_sum { "requests" } else { "pool.usage" });
            let data_points: Vec<NumberDataPoint> = (0..points)
                .map(|place| {
                    // Points of one series are a step apart, as scrapes are.
                    let at = time + place / 20 * 10_000_000_000;
                    let value = if is_sum {
                        (at / 1_000_000_000) as f64
                    } else {
                        f64::from(random.random_range(0..10_000)) / 100.0
                    };
                    let route = format!("/api/v1/{}", place % 20);
                    let attributes =
                        vec![records::text("http.route", &route), records::text("tenant", &format!("t{}", place % 5))];
                    NumberDataPoint {
                        attributes,
                        start_time_unix_nano: if is_sum { 1_600_000_000_000_000_000 } else { 0 },
                        time_unix_nano: at,
                        value: Some(Number::AsDouble(value)),
                        ..NumberDataPoint::default()
                    }
                })
                .collect();
            for (place, point) in data_points.iter().enumerate() {
                let Some(Number::AsDouble(value)) = point.value else { continue };
                writeln!(
                    sink.lines,
                    "{{\"time\":{},\"start_time\":{},\"name\":\"{name}\",\"unit\":\"1\",\"kind\":\"{}\",\"value\":{value},\
                     \"service_name\":\"{}\",\"attributes\":{{\"http.route\":\"/api/v1/{}\",\"tenant\":\"t{}\"}},\"resource\":{resource_json}}}",
                    point.time_unix_nano,
                    point.start_time_unix_nano,
                    if is_sum { "sum" } else { "gauge" },
                    SERVICES[service],
                    place % 20,
                    place % 5,
                )?;
            }
            let data = if is_sum {
                Data::Sum(Sum {
                    data_points,
                    aggregation_temporality: AggregationTemporality::Cumulative.into(),
                    is_monotonic: true,
                })
            } else {
                Data::Gauge(Gauge { data_points })
            };
            metrics.push(Metric { name, unit: "1".to_owned(), data: Some(data), ..Metric::default() });
        }
        let scope_metrics = vec![ScopeMetrics { scope: Some(records::scope()), metrics, ..ScopeMetrics::default() }];
        request.resource_metrics.push(ResourceMetrics {
            resource: Some(resource),
            scope_metrics,
            ..ResourceMetrics::default()
        });
    }
    sink.send(&request)
}

fn traces(sink: &mut Sink, random: &mut StdRng, clock: &mut Clock, count: u64) -> anyhow::Result<()> {
    const SPANS_OF_A_TRACE: u64 = 6;
    const NAMES: &[&str] =
        &["GET /api/v1/products", "POST /api/v1/checkout", "SELECT shop.orders", "publish order", "authorize card"];
    let mut request = ExportTraceServiceRequest::default();
    for (service, pod, share) in pods(random, count) {
        let resource = records::resource(service, pod);
        let resource_json = records::resource_json(&resource);
        let (mut trace_id, mut root) = ([0; 16], [0; 8]);
        let mut spans = Vec::new();
        for place in 0..share {
            let is_root = place % SPANS_OF_A_TRACE == 0;
            let span_id: [u8; 8] = random.random();
            if is_root {
                (trace_id, root) = (random.random(), span_id);
            }
            let parent = if is_root { Vec::new() } else { root.to_vec() };
            let start = clock.tick(random);
            let end = start + random.random_range(100_000..900_000_000);
            let name = NAMES[random.random_range(0..NAMES.len())];
            let kind = if is_root { 2 } else { 3 };
            let is_error = random.random_ratio(1, 50);
            let user = format!("u{:05}", random.random_range(0..20_000));
            let status: i64 = if is_error { 500 } else { 200 };
            writeln!(
                sink.lines,
                "{{\"time\":{start},\"end_time\":{end},\"trace_id\":\"{}\",\"span_id\":\"{}\",\"parent_span_id\":\"{}\",\"name\":\"{name}\",\
                 \"kind\":{kind},\"status\":{},\"service_name\":\"{}\",\"attributes\":{{\"http.response.status_code\":{status},\
                 \"user\":\"{user}\"}},\"resource\":{resource_json}}}",
                hex::encode(trace_id),
                hex::encode(span_id),
                hex::encode(&parent),
                if is_error { 2 } else { 0 },
                SERVICES[service],
            )?;
            spans.push(Span {
                trace_id: trace_id.to_vec(),
                span_id: span_id.to_vec(),
                parent_span_id: parent,
                name: name.to_owned(),
                kind,
                start_time_unix_nano: start,
                end_time_unix_nano: end,
                attributes: vec![
                    records::attribute("http.response.status_code", Value::IntValue(status)),
                    records::text("user", &user),
                ],
                status: is_error.then(|| Status { code: 2, message: "upstream failed".to_owned() }),
                ..Span::default()
            });
        }
        let scope_spans = vec![ScopeSpans { scope: Some(records::scope()), spans, ..ScopeSpans::default() }];
        request.resource_spans.push(ResourceSpans {
            resource: Some(resource),
            scope_spans,
            ..ResourceSpans::default()
        });
    }
    sink.send(&request)
}
