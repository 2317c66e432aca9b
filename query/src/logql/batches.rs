//! Rows of log segments as batches of lines with their streams and structured metadata.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray, StringBuilder, StringViewArray, UInt32Array};
use arrow::datatypes::{Int32Type, Int64Type, TimestampNanosecondType, UInt32Type};
use serde_json::{Map, Value};
use tidemill_eval::logql::{LogBatch, StreamLabels};
use tidemill_segment::loki::PUSH_SCOPE;

use super::labels::{
    DETECTED_LEVEL, SERVICE_NAME, UNKNOWN_SERVICE, WantedLabels, detected_level, flatten, is_index_label, label_name,
};
use super::{Error, Result};
use crate::AttributeScope;
use crate::scan::{OpenSegment, same_texts};

/// Streams remembered; beyond it they are forgotten all together.
const MOST_STREAMS: usize = 64 << 10;

/// The fields of records that become structured metadata: label and column.
const FIELDS: [(&str, &str); 10] = [
    ("trace_id", "trace_id"),
    ("span_id", "span_id"),
    ("event_name", "event_name"),
    ("severity_text", "severity_text"),
    ("scope_name", "scope_name"),
    ("scope_version", "scope_version"),
    ("severity_number", "severity_number"),
    ("observed_timestamp", "observed_time"),
    ("flags", "flags"),
    ("dropped_attributes_count", "dropped_attributes"),
];

/// Which labels lines get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Detail {
    /// The labels of the stream, and nothing else.
    Streams,
    /// Those of the labels of the stream and of the structured metadata that are wanted.
    Wanted(WantedLabels),
    /// Everything.
    Everything,
}

impl Detail {
    /// What a query needs that reads these labels; any where there are none.
    pub(super) fn of(labels: Option<Vec<String>>) -> Self {
        labels.map_or(Self::Everything, |labels| Self::Wanted(WantedLabels::new(labels)))
    }

    fn wants(&self, label: &str) -> bool {
        match self {
            Self::Streams => false,
            Self::Wanted(labels) => labels.hold(label),
            Self::Everything => true,
        }
    }

    /// The labels whose attributes are to be read; `None` for all attributes.
    pub(super) fn wanted(&self) -> Option<&WantedLabels> {
        match self {
            Self::Wanted(labels) => Some(labels),
            Self::Streams | Self::Everything => None,
        }
    }

    /// Whether rows of a segment have nothing that is wanted beside what their stream has.
    pub(super) fn is_of_streams(&self, open: &OpenSegment) -> bool {
        use AttributeScope::{Record, Scope};
        let wanted = match self {
            Self::Streams => return true,
            Self::Wanted(wanted) => wanted,
            Self::Everything => return false,
        };
        let has_own = |scope| open.may_have(scope, |key| wanted.may_come_from(key));
        !FIELDS.iter().any(|(label, _)| wanted.hold(label)) && !has_own(Record) && !has_own(Scope)
    }

    /// Whether a resource of the segment may have something that is wanted.
    pub(super) fn wants_resources(&self, open: &OpenSegment) -> bool {
        match self {
            Self::Wanted(wanted) => open.may_have(AttributeScope::Resource, |key| wanted.may_come_from(key)),
            Self::Streams | Self::Everything => true,
        }
    }

    /// The columns to be read.
    pub(super) fn columns(&self) -> Vec<&'static str> {
        let mut columns = vec!["time", "body", "service_name", "scope_name", "resource"];
        if *self != Self::Streams {
            columns.extend(["scope", "attributes"]);
        }
        columns.extend(FIELDS.iter().filter(|(label, _)| self.wants(label)).map(|(_, column)| *column));
        if self.wants(DETECTED_LEVEL) {
            columns.extend(["severity_number", "severity_text"]);
        }
        let mut once = Vec::with_capacity(columns.len());
        for column in columns {
            if !once.contains(&column) {
                once.push(column);
            }
        }
        once
    }
}

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

/// The text columns of a batch, where it has them.
struct Texts<'a>(&'a RecordBatch);

impl<'a> Texts<'a> {
    fn column(&self, name: &str) -> Option<&'a StringViewArray> {
        self.0.column_by_name(name).and_then(|column| column.as_string_view_opt())
    }
}

fn text_at(column: Option<&StringViewArray>, row: usize) -> Option<&str> {
    column.filter(|column| column.is_valid(row)).map(|column| column.value(row))
}

fn view_at(column: Option<&StringViewArray>, row: usize) -> Option<u128> {
    column.filter(|column| column.is_valid(row)).map(|column| column.views()[row])
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

/// The name under which metadata stands beside the labels of a stream, as in Loki.
fn free_name<'n>(labels: &StreamLabels, name: &'n str) -> Cow<'n, str> {
    match labels.get(name).is_empty() {
        true => Cow::Borrowed(name),
        false => Cow::Owned(format!("{name}_extracted")),
    }
}

/// What the levels of OTLP records are detected from; nothing where no level is wanted.
struct Severity<'a> {
    is_wanted: bool,
    number: Option<&'a arrow::array::PrimitiveArray<Int32Type>>,
    text: Option<&'a StringViewArray>,
}

impl<'a> Severity<'a> {
    fn of(rows: &'a RecordBatch, detail: &Detail) -> Self {
        let is_wanted = detail.wants(DETECTED_LEVEL);
        let number = rows.column_by_name("severity_number").and_then(|own| own.as_primitive_opt());
        let text = Texts(rows).column("severity_text");
        Self { is_wanted, number: number.filter(|_| is_wanted), text: text.filter(|_| is_wanted) }
    }

    fn number(&self, row: usize) -> Option<i32> {
        self.number.filter(|own| own.is_valid(row)).map(|own| own.value(row))
    }

    fn level(&self, row: usize) -> &'static str {
        if self.is_wanted { detected_level(self.number(row), text_at(self.text, row)) } else { "" }
    }
}

/// The columns of records that become structured metadata, of each row its own.
struct Records<'a> {
    attributes: Option<&'a StringViewArray>,
    scope: Option<&'a StringViewArray>,
    scope_name: Option<&'a StringViewArray>,
    texts: Vec<(&'static str, &'a StringViewArray)>,
    severity_number: Option<&'a arrow::array::PrimitiveArray<Int32Type>>,
    observed_time: Option<&'a arrow::array::PrimitiveArray<TimestampNanosecondType>>,
    counts: Vec<(&'static str, &'a UInt32Array)>,
}

impl<'a> Records<'a> {
    /// `None` where no row has anything of its own that is wanted.
    fn of(rows: &'a RecordBatch, detail: &Detail) -> Option<Self> {
        if *detail == Detail::Streams {
            return None;
        }
        let texts = Texts(rows);
        let object = |name: &str| texts.column(name).filter(|own| own.iter().any(|text| text != Some("{}")));
        let mut records = Self {
            attributes: object("attributes"),
            scope: object("scope"),
            scope_name: texts.column("scope_name"),
            texts: Vec::new(),
            severity_number: None,
            observed_time: None,
            counts: Vec::new(),
        };
        for (label, name) in FIELDS.into_iter().filter(|(label, _)| detail.wants(label)) {
            let Some(column) = rows.column_by_name(name) else { continue };
            match label {
                "severity_number" => records.severity_number = column.as_primitive_opt(),
                "observed_timestamp" => records.observed_time = column.as_primitive_opt(),
                "flags" | "dropped_attributes_count" => {
                    records.counts.extend(column.as_primitive_opt::<UInt32Type>().map(|own| (label, own)));
                }
                _ => records.texts.extend(column.as_string_view_opt().map(|own| (label, own))),
            }
        }
        let has_fields = !records.texts.is_empty()
            || !records.counts.is_empty()
            || records.severity_number.is_some()
            || records.observed_time.is_some();
        (has_fields || records.attributes.is_some() || records.scope.is_some()).then_some(records)
    }

    /// Adds what a record has beside its stream's labels and metadata. Of equal names the record's own fields stand before its
    /// attributes, those before the scope's.
    fn add(&self, row: usize, labels: &StreamLabels, detail: &Detail, metadata: &mut Metadata) -> Result<()> {
        let is_pushed = text_at(self.scope_name, row) == Some(PUSH_SCOPE);
        let mut put = |name: &str, text: &str| {
            // The level of an OTLP record is a field of its own, which the stream has.
            let is_level = !is_pushed && name == DETECTED_LEVEL;
            if !text.is_empty() && !is_level && detail.wants(name) {
                metadata.put(row, free_name(labels, name), text);
            }
        };
        if !is_pushed {
            self.add_fields(row, &mut put);
        }
        for object in [Some(self.attributes), Some(self.scope).filter(|_| !is_pushed)].into_iter().flatten() {
            let Some(text) = text_at(object, row).filter(|text| *text != "{}") else { continue };
            for (key, value) in &read_object(text)? {
                flatten(&label_name(key), value, &mut put);
            }
        }
        Ok(())
    }

    fn add_fields(&self, row: usize, put: &mut dyn FnMut(&str, &str)) {
        for (name, column) in &self.texts {
            put(name, text_at(Some(column), row).unwrap_or_default());
        }
        if let Some(number) = self.severity_number.filter(|own| own.is_valid(row)) {
            put("severity_number", &number.value(row).to_string());
        }
        if let Some(observed) = self.observed_time.filter(|own| own.is_valid(row)) {
            put("observed_timestamp", &observed.value(row).to_string());
        }
        for (name, column) in self.counts.iter().filter(|(_, column)| column.is_valid(row)) {
            put(name, &column.value(row).to_string());
        }
    }
}

/// Columns of structured metadata while they grow.
#[derive(Default)]
struct Metadata {
    columns: BTreeMap<String, StringBuilder>,
}

impl Metadata {
    /// Sets a value of the last row, unless the row has one.
    fn put(&mut self, row: usize, name: Cow<'_, str>, text: &str) {
        let column = match self.columns.get_mut(&*name) {
            Some(column) => column,
            None => self.columns.entry(name.into_owned()).or_default(),
        };
        use arrow::array::ArrayBuilder as _;
        if column.len() > row {
            return;
        }
        for _ in column.len()..row {
            column.append_null();
        }
        column.append_value(text);
    }

    fn finish(self, rows: usize) -> Vec<(String, StringArray)> {
        use arrow::array::ArrayBuilder as _;
        let columns = self.columns.into_iter().map(|(name, mut column)| {
            for _ in column.len()..rows {
                column.append_null();
            }
            (name, column.finish())
        });
        columns.collect()
    }
}

/// Nanoseconds of each row.
pub(super) fn times_of(rows: &RecordBatch) -> Result<Int64Array> {
    let time = rows.column_by_name("time").and_then(|time| time.as_primitive_opt::<TimestampNanosecondType>());
    Ok(time.ok_or(Error::Rows("rows without a time"))?.reinterpret_cast::<Int64Type>())
}

fn read_object(text: &str) -> Result<Map<String, Value>> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text).map_err(|_| Error::Rows("attributes that are no JSON object"))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, TimestampNanosecondArray};
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
