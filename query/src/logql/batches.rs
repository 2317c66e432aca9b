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
    DETECTED_LEVEL, SERVICE_NAME, UNKNOWN_SERVICE, detected_level, flatten, is_index_label, label_name,
};
use super::{Error, Result};

/// Streams remembered; beyond it they are forgotten all together.
const MOST_STREAMS: usize = 64 << 10;

/// Which labels lines get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// `service_name` alone.
    Service,
    /// `service_name`, and the level of what OTLP brought. Of a pushed line any attribute may be it: [`Error::MoreDetail`].
    Level,
    /// The labels of the stream.
    Streams,
    /// Everything.
    Everything,
}

impl Detail {
    /// What a query needs that reads these labels; any where there are none.
    pub(super) fn of(labels: Option<&[String]>) -> Self {
        match labels {
            Some(labels) if labels.iter().all(|label| label == SERVICE_NAME) => Self::Service,
            Some(labels) if labels.iter().all(|label| label == SERVICE_NAME || label == DETECTED_LEVEL) => Self::Level,
            _ => Self::Everything,
        }
    }

    /// The columns to be read.
    pub(super) fn columns(self) -> Vec<&'static str> {
        let mut columns = vec!["time", "body", "service_name", "scope_name"];
        match self {
            Self::Service => {}
            Self::Level => columns.extend(["severity_number", "severity_text"]),
            Self::Streams | Self::Everything => columns.push("resource"),
        }
        if self == Self::Everything {
            columns.extend([
                "scope_version",
                "scope",
                "attributes",
                "trace_id",
                "span_id",
                "severity_number",
                "severity_text",
                "event_name",
                "observed_time",
                "flags",
                "dropped_attributes",
            ]);
        }
        columns
    }
}

/// Makes batches of rows, and remembers their streams.
#[derive(Debug)]
pub(super) struct Lines {
    detail: Detail,
    /// By whether Loki's push brought it, service and resource.
    by_key: HashMap<(bool, String, String), u32>,
    streams: Vec<Stream>,
    labels: Vec<StreamLabels>,
    table: Arc<[StreamLabels]>,
}

/// What the rows of a stream share.
#[derive(Debug)]
struct Stream {
    /// Attributes of the resource that are no labels of the stream.
    metadata: Vec<(String, String)>,
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

impl Lines {
    pub(super) fn new(detail: Detail) -> Self {
        Self { detail, by_key: HashMap::new(), streams: Vec::new(), labels: Vec::new(), table: Vec::new().into() }
    }

    /// The lines of `rows`, which have the columns of [`Detail::columns`].
    ///
    /// # Errors
    /// An attribute column is not the JSON that segments hold.
    pub(super) fn batch(&mut self, rows: &RecordBatch) -> Result<LogBatch> {
        if self.streams.len() > MOST_STREAMS {
            *self = Self::new(self.detail);
        }
        let time = times_of(rows)?;
        let texts = Texts(rows);
        let body = texts.column("body");
        let line: StringArray = match body {
            Some(body) => body.iter().map(|line| Some(line.unwrap_or_default())).collect(),
            None => std::iter::repeat_n(Some(""), rows.num_rows()).collect(),
        };
        let mut metadata = Metadata::default();
        let stream = self.learn(rows, &mut metadata)?;
        let before = self.table.len();
        if before != self.labels.len() {
            self.table = self.labels.clone().into();
        }
        let metadata = metadata.finish(rows.num_rows());
        Ok(LogBatch::of_columns(Arc::clone(&self.table), time, line, stream, metadata)?)
    }

    /// The stream of each row, as a place in [`Self::labels`].
    pub(super) fn stream_of_rows(&mut self, rows: &RecordBatch) -> Result<UInt32Array> {
        self.learn(rows, &mut Metadata::default())
    }

    /// The labels of the streams that were met so far.
    pub(super) fn labels(&self) -> &[StreamLabels] {
        &self.labels
    }

    /// The stream of each row; adds what the rows have as structured metadata.
    fn learn(&mut self, rows: &RecordBatch, metadata: &mut Metadata) -> Result<UInt32Array> {
        let texts = Texts(rows);
        let (services, scopes) = (texts.column("service_name"), texts.column("scope_name"));
        let resources = texts.column("resource");
        let records = Records::of(rows);
        let mut streams = Vec::with_capacity(rows.num_rows());
        let columns = [services, scopes, resources];
        let mut last: Option<([Option<u128>; 3], u32)> = None;
        let mut last_texts: Option<(bool, &str, &str, u32)> = None;
        let mut is_pushed = false;
        for row in 0..rows.num_rows() {
            // Views with the same bits are the same text; most rows have what the row before has.
            let views =
                columns.map(|column| column.filter(|column| column.is_valid(row)).map(|column| column.views()[row]));
            let stream = match last {
                Some((same, stream)) if same == views => stream,
                _ => {
                    is_pushed = text_at(scopes, row) == Some(PUSH_SCOPE);
                    let service = text_at(services, row).unwrap_or_default();
                    let resource = text_at(resources, row).unwrap_or_default();
                    let stream = match last_texts {
                        Some((pushed, own, same, stream)) if (pushed, own, same) == (is_pushed, service, resource) => {
                            stream
                        }
                        _ => self.stream(is_pushed, service, resource)?,
                    };
                    last_texts = Some((is_pushed, service, resource, stream));
                    stream
                }
            };
            last = Some((views, stream));
            streams.push(stream);
            if self.detail == Detail::Level {
                if is_pushed {
                    return Err(Error::MoreDetail);
                }
                metadata.put(row, Cow::Borrowed(DETECTED_LEVEL), records.level(row));
            }
            if self.detail == Detail::Everything {
                let place = stream as usize;
                records.add(row, is_pushed, &self.streams[place], &self.labels[place], metadata)?;
            }
        }
        Ok(streams.into())
    }

    fn stream(&mut self, is_pushed: bool, service: &str, resource: &str) -> Result<u32> {
        let key = (is_pushed, service.to_owned(), resource.to_owned());
        if let Some(stream) = self.by_key.get(&key) {
            return Ok(*stream);
        }
        let attributes = read_object(resource)?;
        let mut labels: BTreeMap<String, String> = BTreeMap::new();
        let mut metadata = Vec::new();
        for (name, value) in &attributes {
            if name == "service.name" {
                continue;
            }
            let is_label = is_pushed || is_index_label(name);
            flatten(&label_name(name), value, &mut |name, text| {
                if is_label {
                    labels.insert(name.to_owned(), text.to_owned());
                } else if !text.is_empty() {
                    metadata.push((name.to_owned(), text.to_owned()));
                }
            });
        }
        let service = if service.is_empty() && !is_pushed { UNKNOWN_SERVICE } else { service };
        if !service.is_empty() {
            labels.insert(SERVICE_NAME.to_owned(), service.to_owned());
        }
        let stream = u32::try_from(self.streams.len()).map_err(|_| Error::Rows("too many streams"))?;
        self.streams.push(Stream { metadata });
        self.labels.push(StreamLabels::of(labels));
        self.by_key.insert(key, stream);
        Ok(stream)
    }
}

/// The columns of records that become structured metadata.
struct Records<'a> {
    attributes: Option<&'a StringViewArray>,
    scope: Option<&'a StringViewArray>,
    scope_name: Option<&'a StringViewArray>,
    scope_version: Option<&'a StringViewArray>,
    trace_id: Option<&'a StringViewArray>,
    span_id: Option<&'a StringViewArray>,
    event_name: Option<&'a StringViewArray>,
    severity_text: Option<&'a StringViewArray>,
    severity_number: Option<&'a arrow::array::PrimitiveArray<Int32Type>>,
    observed_time: Option<&'a arrow::array::PrimitiveArray<TimestampNanosecondType>>,
    flags: Option<&'a UInt32Array>,
    dropped: Option<&'a UInt32Array>,
}

impl<'a> Records<'a> {
    fn of(rows: &'a RecordBatch) -> Self {
        let texts = Texts(rows);
        let number = |name: &str| rows.column_by_name(name).and_then(|own| own.as_primitive_opt::<UInt32Type>());
        Self {
            attributes: texts.column("attributes"),
            scope: texts.column("scope"),
            scope_name: texts.column("scope_name"),
            scope_version: texts.column("scope_version"),
            trace_id: texts.column("trace_id"),
            span_id: texts.column("span_id"),
            event_name: texts.column("event_name"),
            severity_text: texts.column("severity_text"),
            severity_number: rows.column_by_name("severity_number").and_then(|own| own.as_primitive_opt()),
            observed_time: rows.column_by_name("observed_time").and_then(|own| own.as_primitive_opt()),
            flags: number("flags"),
            dropped: number("dropped_attributes"),
        }
    }

    /// Adds what a record has beside its stream's labels. Of equal names the record's own fields stand before its attributes, those
    /// before the scope's and the resource's.
    fn add(
        &self,
        row: usize,
        is_pushed: bool,
        stream: &Stream,
        labels: &StreamLabels,
        metadata: &mut Metadata,
    ) -> Result<()> {
        let mut put = |name: &str, text: &str| {
            if text.is_empty() {
                return;
            }
            // As Loki does where a stream has the label already.
            match labels.get(name).is_empty() {
                true => metadata.put(row, Cow::Borrowed(name), text),
                false => metadata.put(row, Cow::Owned(format!("{name}_extracted")), text),
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
        if !is_pushed {
            stream.metadata.iter().for_each(|(name, text)| put(name, text));
        }
        Ok(())
    }

    fn number(&self, row: usize) -> Option<i32> {
        self.severity_number.filter(|own| own.is_valid(row)).map(|own| own.value(row))
    }

    /// The level of an OTLP record.
    fn level(&self, row: usize) -> &'static str {
        detected_level(self.number(row), text_at(self.severity_text, row))
    }

    fn add_fields(&self, row: usize, put: &mut dyn FnMut(&str, &str)) {
        for (name, column) in [
            ("trace_id", self.trace_id),
            ("span_id", self.span_id),
            ("event_name", self.event_name),
            ("severity_text", self.severity_text),
            ("scope_name", self.scope_name),
            ("scope_version", self.scope_version),
        ] {
            put(name, text_at(column, row).unwrap_or_default());
        }
        if let Some(number) = self.number(row) {
            put("severity_number", &number.to_string());
        }
        if let Some(observed) = self.observed_time.filter(|own| own.is_valid(row)) {
            put("observed_timestamp", &observed.value(row).to_string());
        }
        for (name, column) in [("flags", self.flags), ("dropped_attributes_count", self.dropped)] {
            if let Some(column) = column.filter(|own| own.is_valid(row)) {
                put(name, &column.value(row).to_string());
            }
        }
        put(DETECTED_LEVEL, self.level(row));
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
    use tidemill_eval::logql::{Direction, LogParams, LogRun};
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
        assert_eq!(Detail::of(Some(&["service_name".to_owned()])), Detail::Service);
        assert_eq!(Detail::of(Some(&[])), Detail::Service);
        let both = ["detected_level".to_owned(), "service_name".to_owned()];
        assert_eq!(Detail::of(Some(&both)), Detail::Level);
        assert_eq!(Detail::of(Some(&["env".to_owned()])), Detail::Everything);
        assert!(matches!(Lines::new(Detail::Level).batch(&rows()), Err(Error::MoreDetail)));
        assert!(Lines::new(Detail::Level).batch(&rows().slice(1, 2)).is_ok());
        assert_eq!(Detail::of(None), Detail::Everything);
    }
}
