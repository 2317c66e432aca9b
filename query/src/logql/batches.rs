//! Rows of log segments as batches of lines with their streams and structured metadata.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{Int64Type, TimestampNanosecondType};
use tidemill_eval::logql::{LogBatch, StreamLabels};
use tidemill_segment::loki::PUSH_SCOPE;

use super::detail::Detail;
use super::labels::{DETECTED_LEVEL, SERVICE_NAME, UNKNOWN_SERVICE, flatten, is_index_label, label_name};
use super::records::{Metadata, Records, Severity, Texts, free_name, read_object, text_at, view_at};
use super::{Error, Result};
use crate::scan::same_texts;

/// Streams remembered; beyond it they are forgotten all together.
const MOST_STREAMS: usize = 64 << 10;

/// Makes batches of rows, and remembers their streams.
#[derive(Debug)]
pub(super) struct Lines {
    detail: Detail,
    /// By what names a resource: see [`write_key`].
    by_key: HashMap<Vec<u8>, usize>,
    resources: Vec<Resource>,
    labels: Vec<StreamLabels>,
    table: Arc<[StreamLabels]>,
}

/// What the rows of a service and resource share.
#[derive(Debug)]
struct Resource {
    is_pushed: bool,
    labels: BTreeMap<String, String>,
    /// Attributes of the resource that are no labels of the stream.
    metadata: Vec<(String, String)>,
    /// Places in [`Lines::labels`], by level.
    streams: Vec<(&'static str, u32)>,
}

/// What a row has of its stream; most rows have what the row before has.
#[derive(Clone, Copy, PartialEq)]
struct Identity {
    /// Of service, scope and resource. Views with the same bits are the same text.
    views: [Option<u128>; 3],
    number: Option<i32>,
    level: Option<u128>,
}

impl Lines {
    pub(super) fn new(detail: Detail) -> Self {
        Self { detail, by_key: HashMap::new(), resources: Vec::new(), labels: Vec::new(), table: Vec::new().into() }
    }

    /// The lines of `rows`, which have the columns of [`Detail::columns`].
    ///
    /// # Errors
    /// An attribute column is not the JSON that segments hold.
    pub(super) fn batch(&mut self, rows: &RecordBatch) -> Result<LogBatch> {
        let time = times_of(rows)?;
        let line = match Texts(rows).column("body") {
            Some(body) if body.null_count() == 0 => body.clone(),
            Some(body) => body.iter().map(|line| Some(line.unwrap_or_default())).collect(),
            None => same_texts("", rows.num_rows()),
        };
        let mut metadata = Metadata::default();
        let stream = self.learn(rows, &mut metadata)?;
        let metadata = metadata.finish(rows.num_rows());
        Ok(LogBatch::of_columns(Arc::clone(self.table()), time, line, stream, metadata)?)
    }

    /// The stream of each row, as a place in [`Self::labels`] and [`Self::table`].
    pub(super) fn stream_of_rows(&mut self, rows: &RecordBatch) -> Result<UInt32Array> {
        self.learn(rows, &mut Metadata::default())
    }

    /// The labels of the streams that were met so far.
    pub(super) fn labels(&self) -> &[StreamLabels] {
        &self.labels
    }

    /// The labels of the streams that were met so far, to be shared.
    pub(super) fn table(&mut self) -> &Arc<[StreamLabels]> {
        if self.table.len() != self.labels.len() {
            self.table = self.labels.clone().into();
        }
        &self.table
    }

    /// The stream of each row; adds what the rows have as structured metadata.
    fn learn(&mut self, rows: &RecordBatch, metadata: &mut Metadata) -> Result<UInt32Array> {
        if self.labels.len() > MOST_STREAMS {
            *self = Self::new(self.detail.clone());
        }
        let texts = Texts(rows);
        let columns = ["service_name", "scope_name", "resource"].map(|name| texts.column(name));
        let severity = Severity::of(rows, &self.detail);
        let records = Records::of(rows, &self.detail);
        let mut streams = Vec::with_capacity(rows.num_rows());
        let mut last: Option<(Identity, usize, u32)> = None;
        let mut key = Vec::new();
        for row in 0..rows.num_rows() {
            let identity = Identity {
                views: columns.map(|column| view_at(column, row)),
                number: severity.number(row),
                level: view_at(severity.text, row),
            };
            let (resource, stream) = match last {
                Some((same, resource, stream)) if same == identity => (resource, stream),
                Some((before, resource, _)) if before.views == identity.views => {
                    (resource, self.stream(resource, severity.level(row))?)
                }
                _ => {
                    let [service, scope, resource] = columns.map(|column| text_at(column, row));
                    write_key(
                        &mut key,
                        scope == Some(PUSH_SCOPE),
                        service.unwrap_or_default(),
                        resource.unwrap_or_default(),
                    );
                    let resource = self.resource(&key, resource.unwrap_or_default(), service.unwrap_or_default())?;
                    (resource, self.stream(resource, severity.level(row))?)
                }
            };
            last = Some((identity, resource, stream));
            streams.push(stream);
            if let Some(records) = &records {
                records.add(row, &self.labels[stream as usize], &self.detail, metadata)?;
            }
        }
        Ok(streams.into())
    }

    /// The resource that `key` names.
    fn resource(&mut self, key: &[u8], resource: &str, service: &str) -> Result<usize> {
        if let Some(resource) = self.by_key.get(key) {
            return Ok(*resource);
        }
        let is_pushed = key.first() == Some(&1);
        let mut labels: BTreeMap<String, String> = BTreeMap::new();
        let mut metadata = Vec::new();
        for (name, value) in &read_object(resource)? {
            if name == "service.name" {
                continue;
            }
            let is_label = is_pushed || is_index_label(name);
            flatten(&label_name(name), value, &mut |name, text| {
                if is_label {
                    labels.insert(name.to_owned(), text.to_owned());
                } else {
                    metadata.push((name.to_owned(), text.to_owned()));
                }
            });
        }
        let service = if service.is_empty() && !is_pushed { UNKNOWN_SERVICE } else { service };
        if !service.is_empty() {
            labels.insert(SERVICE_NAME.to_owned(), service.to_owned());
        }
        let resource = self.resources.len();
        self.resources.push(Resource { is_pushed, labels, metadata, streams: Vec::new() });
        self.by_key.insert(key.to_owned(), resource);
        Ok(resource)
    }

    /// The stream of a resource and level.
    fn stream(&mut self, resource: usize, level: &'static str) -> Result<u32> {
        let resource = &mut self.resources[resource];
        // Of pushed lines the level is an attribute, if anything.
        let level = if resource.is_pushed { "" } else { level };
        if let Some((_, stream)) = resource.streams.iter().find(|(own, _)| *own == level) {
            return Ok(*stream);
        }
        let stream = u32::try_from(self.labels.len()).map_err(|_| Error::Rows("too many streams"))?;
        let labels = StreamLabels::of(&resource.labels);
        let mut metadata: BTreeMap<Cow<'_, str>, &str> = BTreeMap::new();
        for (name, text) in resource.metadata.iter().filter(|(_, text)| !text.is_empty()) {
            if self.detail.wants(name) {
                metadata.entry(free_name(&labels, name)).or_insert(text);
            }
        }
        if !level.is_empty() {
            metadata.insert(free_name(&labels, DETECTED_LEVEL), level);
        }
        self.labels.push(labels.clone().with_metadata(metadata));
        resource.streams.push((level, stream));
        Ok(stream)
    }
}

/// Whether Loki's push brought it, service and resource, as bytes.
fn write_key(key: &mut Vec<u8>, is_pushed: bool, service: &str, resource: &str) {
    key.clear();
    key.push(u8::from(is_pushed));
    key.extend_from_slice(&service.len().to_le_bytes());
    key.extend_from_slice(service.as_bytes());
    key.extend_from_slice(resource.as_bytes());
}

/// Nanoseconds of each row.
pub(super) fn times_of(rows: &RecordBatch) -> Result<Int64Array> {
    let time = rows.column_by_name("time").and_then(|time| time.as_primitive_opt::<TimestampNanosecondType>());
    Ok(time.ok_or(Error::Rows("rows without a time"))?.reinterpret_cast::<Int64Type>())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringViewArray, TimestampNanosecondArray};
    use tidemill_eval::logql::{Direction, LogParams, LogRun, MetricParams, MetricRun};
    use tidemill_lang::logql::ast::Query;

    use super::*;

    fn rows() -> RecordBatch {
        let text = |values: [Option<&str>; 3]| Arc::new(StringViewArray::from_iter(values)) as ArrayRef;
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("time", Arc::new(TimestampNanosecondArray::from(vec![1, 2, 3]).with_timezone("UTC"))),
            ("body", text([Some("a"), None, Some("c")])),
            ("service_name", text([Some("api"), None, Some("web")])),
            ("scope_name", text([Some(PUSH_SCOPE), Some("lib"), None])),
            (
                "resource",
                text([
                    Some(r#"{"env":"prod","service.name":"api"}"#),
                    Some(r#"{"host.arch":"arm","k8s.pod.name":"p"}"#),
                    Some(r#"{"service.name":"web"}"#),
                ]),
            ),
            (
                "attributes",
                text([Some(r#"{"user":"ada"}"#), Some(r#"{"k8s.pod.name":"q","n":7,"m":{"x":true}}"#), Some("{}")]),
            ),
            ("severity_text", text([Some("ERROR"), Some("WARN"), None])),
        ];
        let columns = columns.into_iter().map(|(name, column)| (name, column, true));
        RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length")
    }

    #[test]
    fn pushed_lines_keep_their_labels_and_others_get_those_of_otlp() {
        let batch = Lines::new(Detail::Everything).batch(&rows()).expect("a batch");
        let query = match tidemill_lang::logql::parse(r#"{service_name=~".+"}"#).expect("a query") {
            Query::Log(query) => query,
            Query::Metric(_) => panic!("asks for numbers"),
        };
        let params =
            LogParams { start_ns: 0, end_ns: 9, limit: 9, direction: Direction::Forward, interval_ns: 0, now_ns: 0 };
        let mut run = LogRun::new(&query, params).expect("a run");
        run.push(&batch).expect("ordered");
        let labels = |set: &tidemill_eval::logql::LabelSet| {
            set.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        let found: Vec<(String, String)> =
            run.finish().iter().map(|stream| (labels(&stream.labels), stream.entries[0].line.clone())).collect();
        let expected = [
            ("detected_level=unknown service_name=web", "c"),
            (
                "detected_level=warn host_arch=arm k8s_pod_name=p k8s_pod_name_extracted=q m_x=true n=7 scope_name=lib \
                 service_name=unknown_service severity_text=WARN",
                "",
            ),
            ("env=prod service_name=api user=ada", "a"),
        ];
        assert_eq!(found, expected.map(|(labels, line)| (labels.to_owned(), line.to_owned())));
    }

    #[test]
    fn less_is_read_where_less_is_needed() {
        let columns = |labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Detail::of(Some(labels)).columns().join(" ")
        };
        let least = "time body service_name scope_name resource scope attributes";
        assert_eq!(columns(&["service_name"]), least);
        assert_eq!(columns(&["detected_level"]), format!("{least} severity_number severity_text"));
        assert_eq!(columns(&["observed_timestamp"]), format!("{least} observed_time"));
        assert_eq!(Detail::of(None), Detail::Everything);
    }

    /// Of what is wanted, lines have the same as where everything is read.
    #[test]
    fn wanted_labels_are_the_same() {
        for labels in
            [&["detected_level", "m_x"][..], &["k8s_pod_name_extracted", "k8s_pod_name"], &["scope_name", "user"]]
        {
            let told = |detail: Detail| {
                let batch = Lines::new(detail).batch(&rows()).expect("a batch");
                let by = labels.join(", ");
                let text = format!("sum by ({by}) (count_over_time({{service_name=~\".+\"}} [9ns]))");
                let Query::Metric(metric) = tidemill_lang::logql::parse(&text).expect("a query") else {
                    panic!("lines")
                };
                let at = MetricParams { start_ns: 8, end_ns: 8, step_ns: None, now_ns: 0 };
                let mut run = MetricRun::new(&metric, at).expect("a run");
                run.push(&batch).expect("lines");
                format!("{:?}", run.finish().expect("an answer"))
            };
            let wanted = labels.iter().map(|label| (*label).to_owned()).collect();
            assert_eq!(told(Detail::of(Some(wanted))), told(Detail::Everything), "{labels:?}");
        }
    }
}
