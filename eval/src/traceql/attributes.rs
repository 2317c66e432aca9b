//! The attributes that a query reads, decoded once for a batch.

use std::borrow::Cow;
use std::fmt;

use ahash::AHashMap;
use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampNanosecondType};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use tidemill_lang::traceql::ast::{Attribute, Field, FieldKind, Pipeline, Scalar, Scope, Spansets, Stage};

use super::batch::SpanBatch;
use super::structure::SERVICE_NAME;
use super::value::Value;
use crate::error::{Error, Result};

/// Whose attribute a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttributeScope {
    /// The span's own.
    Span,
    /// The resource's.
    Resource,
    /// The instrumentation scope's.
    Instrumentation,
}

impl AttributeScope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::Span, Self::Resource, Self::Instrumentation];

    pub(super) fn rest_column(self) -> &'static str {
        match self {
            Self::Span => "a_rest",
            Self::Resource => "r_rest",
            Self::Instrumentation => "s_rest",
        }
    }

    pub(super) fn query_scope(self) -> Scope {
        match self {
            Self::Span => Scope::Span,
            Self::Resource => Scope::Resource,
            Self::Instrumentation => Scope::Instrumentation,
        }
    }
}

/// Which attributes a query reads.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// Attributes of spans, resources and scopes.
    pub keys: Vec<(AttributeScope, String)>,
    /// Whether every attribute is read.
    pub all: bool,
    /// Attributes of events.
    pub event_keys: Vec<String>,
    /// Attributes of links.
    pub link_keys: Vec<String>,
    /// Whether events are read at all.
    pub events: bool,
    /// Whether links are read at all.
    pub links: bool,
}

impl Wanted {
    pub fn add(&mut self, attribute: &Attribute) {
        let Attribute::Named(scope, key) = attribute else {
            use tidemill_lang::traceql::ast::Intrinsic as I;
            if let Attribute::Intrinsic(intrinsic) = attribute {
                self.events |= matches!(intrinsic, I::EventName | I::EventTimeSinceStart);
                self.links |= matches!(intrinsic, I::LinkSpanId | I::LinkTraceId);
            }
            return;
        };
        let scopes: &[AttributeScope] = match scope {
            Scope::Any => &[AttributeScope::Span, AttributeScope::Resource],
            Scope::Span => &[AttributeScope::Span],
            Scope::Resource => &[AttributeScope::Resource],
            Scope::Instrumentation => &[AttributeScope::Instrumentation],
            Scope::Event => {
                self.events = true;
                self.event_keys.push(key.clone());
                &[]
            }
            Scope::Link => {
                self.links = true;
                self.link_keys.push(key.clone());
                &[]
            }
        };
        for scope in scopes {
            if !self.keys.iter().any(|(own, name)| own == scope && name == key) {
                self.keys.push((*scope, key.clone()));
            }
        }
    }
}

impl Wanted {
    /// What the answers tell of every trace.
    pub fn add_root(&mut self) {
        self.add(&Attribute::Named(Scope::Resource, SERVICE_NAME.to_owned()));
    }

    /// What a pipeline reads.
    pub fn add_pipeline(&mut self, pipeline: &Pipeline) {
        for stage in &pipeline.stages {
            match stage {
                Stage::Spansets(spansets) => self.add_spansets(spansets),
                Stage::Scalar(filter) => {
                    self.add_scalar(&filter.left);
                    self.add_scalar(&filter.right);
                }
                Stage::By(field) => self.add_field(field),
                Stage::Coalesce | Stage::Select(_) => {}
            }
        }
    }

    fn add_spansets(&mut self, spansets: &Spansets) {
        match spansets {
            Spansets::Filter(None) => {}
            Spansets::Filter(Some(field)) => self.add_field(field),
            Spansets::Operation { left, right, .. } => {
                self.add_spansets(left);
                self.add_spansets(right);
            }
            Spansets::Pipeline(pipeline) => self.add_pipeline(pipeline),
        }
    }

    fn add_scalar(&mut self, scalar: &Scalar) {
        match scalar {
            Scalar::Static(_) | Scalar::Aggregate { of: None, .. } => {}
            Scalar::Aggregate { of: Some(field), .. } => self.add_field(field),
            Scalar::Operation { left, right, .. } => {
                self.add_scalar(left);
                self.add_scalar(right);
            }
        }
    }

    fn add_field(&mut self, field: &Field) {
        match &field.kind {
            FieldKind::Static(_) => {}
            FieldKind::Attribute(attribute) => self.add(attribute),
            FieldKind::Not(inner) | FieldKind::Negative(inner) => self.add_field(inner),
            FieldKind::Binary { left, right, .. } => {
                self.add_field(left);
                self.add_field(right);
            }
        }
    }
}

/// An event of a span.
#[derive(Debug, Clone, Default)]
pub(super) struct Event {
    pub name: String,
    pub since_start_ns: i64,
    pub attributes: Vec<(String, Value)>,
}

/// A link of a span.
#[derive(Debug, Clone, Default)]
pub(super) struct Link {
    pub trace_id: String,
    pub span_id: String,
    pub attributes: Vec<(String, Value)>,
}

/// What a query reads of a batch.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    columns: AHashMap<AttributeScope, AHashMap<String, Vec<Value>>>,
    events: Vec<Vec<Event>>,
    links: Vec<Vec<Link>>,
}

impl Attributes {
    pub fn decode(batch: &SpanBatch, wanted: &Wanted) -> Result<Self> {
        let mut own = Self::default();
        let rows = batch.rows();
        for (scope, key) in &wanted.keys {
            own.columns.entry(*scope).or_default().insert(key.clone(), vec![Value::Nil; rows]);
        }
        for (scope, key, column) in &batch.promoted {
            if wanted.all || wanted.keys.iter().any(|(own, name)| own == scope && name == key) {
                let values = own.columns.entry(*scope).or_default().entry(key.clone());
                read_column(column, values.or_insert_with(|| vec![Value::Nil; rows]));
            }
        }
        for (scope, column) in &batch.rest {
            let columns = own.columns.entry(*scope).or_default();
            if !wanted.all && columns.is_empty() {
                continue;
            }
            for row in (0..rows).filter(|row| column.is_valid(*row)) {
                read_json(column.value(row), RestReader { columns, row, rows, all: wanted.all })?;
            }
        }
        if let Some(events) = batch.events.as_ref().filter(|_| wanted.events) {
            own.events = read_events(batch, events, &wanted.event_keys, wanted.all)?;
        }
        if let Some(links) = batch.links.as_ref().filter(|_| wanted.links) {
            own.links = read_links(links, &wanted.link_keys, wanted.all)?;
        }
        Ok(own)
    }

    /// The attribute's value.
    pub fn get(&self, scope: AttributeScope, key: &str, row: usize) -> &Value {
        self.columns.get(&scope).and_then(|columns| columns.get(key)).map_or(&Value::Nil, |values| &values[row])
    }

    /// Every attribute that was decoded and has a value in the row.
    pub fn all(&self, row: usize) -> impl Iterator<Item = (AttributeScope, &str, &Value)> {
        self.columns.iter().flat_map(move |(scope, columns)| {
            columns
                .iter()
                .filter(move |(_, values)| values[row] != Value::Nil)
                .map(move |(key, values)| (*scope, key.as_str(), &values[row]))
        })
    }

    pub fn events(&self, row: usize) -> &[Event] {
        self.events.get(row).map_or(&[], Vec::as_slice)
    }

    pub fn links(&self, row: usize) -> &[Link] {
        self.links.get(row).map_or(&[], Vec::as_slice)
    }
}

fn read_column(column: &ArrayRef, values: &mut [Value]) {
    for (row, value) in values.iter_mut().enumerate().filter(|(row, _)| column.is_valid(*row)) {
        *value = match column.data_type() {
            DataType::Int64 => Value::Int(column.as_primitive::<Int64Type>().value(row)),
            DataType::Float64 => Value::Float(column.as_primitive::<Float64Type>().value(row)),
            DataType::Boolean => Value::Bool(column.as_boolean().value(row)),
            _ => Value::text(column.as_string::<i32>().value(row)),
        };
    }
}

fn read_json<'d>(text: &'d str, reader: impl DeserializeSeed<'d, Value = ()>) -> Result<()> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    reader.deserialize(&mut deserializer).map_err(|error| Error::Data(format!("attributes are no JSON: {error}")))
}

/// Reads the wanted members of an object of attributes into their columns.
struct RestReader<'r> {
    columns: &'r mut AHashMap<String, Vec<Value>>,
    row: usize,
    rows: usize,
    all: bool,
}

impl<'d> DeserializeSeed<'d> for RestReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'d>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'d> Visitor<'d> for RestReader<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of attributes")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'d, str>>()? {
            if let Some(values) = self.columns.get_mut(&*key) {
                values[self.row] = match Value::of_json(&map.next_value()?) {
                    Value::Nil if self.all => Value::Other,
                    value => value,
                };
            } else if self.all {
                let mut values = vec![Value::Nil; self.rows];
                values[self.row] = match Value::of_json(&map.next_value()?) {
                    // Where every attribute is read, one without a value is there too.
                    Value::Nil => Value::Other,
                    value => value,
                };
                self.columns.insert(key.into_owned(), values);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

fn wanted_attributes(
    column: Option<&StringArray>,
    index: usize,
    keys: &[String],
    all: bool,
) -> Result<Vec<(String, Value)>> {
    let is_read = |column: &&StringArray| column.is_valid(index) && (all || !keys.is_empty());
    let Some(text) = column.filter(is_read).map(|own| own.value(index)) else {
        return Ok(Vec::new());
    };
    let mut columns: AHashMap<String, Vec<Value>> = keys.iter().map(|key| (key.clone(), vec![Value::Nil])).collect();
    read_json(text, RestReader { columns: &mut columns, row: 0, rows: 1, all })?;
    let found = columns.into_iter().filter_map(|(key, mut values)| Some((key, values.pop()?)));
    Ok(found.filter(|(_, value)| *value != Value::Nil).collect())
}

fn read_events(batch: &SpanBatch, events: &ListArray, keys: &[String], all: bool) -> Result<Vec<Vec<Event>>> {
    let wrong = || Error::Data("events of spans are no list of structs with time and name".to_owned());
    let structs = events.values().as_struct_opt().ok_or_else(wrong)?;
    let times = structs.column_by_name("time").map(|column| match column.data_type() {
        DataType::Int64 => Ok(column.as_primitive::<Int64Type>().clone()),
        DataType::Timestamp(..) => column
            .as_primitive_opt::<TimestampNanosecondType>()
            .map(|times| times.reinterpret_cast::<Int64Type>())
            .ok_or_else(wrong),
        _ => Err(wrong()),
    });
    let times = times.transpose()?;
    let names = structs.column_by_name("name").and_then(|column| column.as_string_opt::<i32>()).ok_or_else(wrong)?;
    let attributes = structs.column_by_name("attributes").and_then(|column| column.as_string_opt::<i32>());
    let mut rows = Vec::with_capacity(events.len());
    for row in 0..events.len() {
        let mut own = Vec::new();
        if events.is_valid(row) {
            let start = events.value_offsets()[row] as usize;
            for index in start..start + events.value_length(row) as usize {
                let time = times.as_ref().filter(|times| times.is_valid(index)).map(|times| times.value(index));
                own.push(Event {
                    name: names.value(index).to_owned(),
                    since_start_ns: time.map_or(0, |time| time - batch.start_ns(row)),
                    attributes: wanted_attributes(attributes, index, keys, all)?,
                });
            }
        }
        rows.push(own);
    }
    Ok(rows)
}

fn read_links(links: &ListArray, keys: &[String], all: bool) -> Result<Vec<Vec<Link>>> {
    let wrong = || Error::Data("links of spans are no list of structs".to_owned());
    let structs = links.values().as_struct_opt().ok_or_else(wrong)?;
    let ids = |name: &str| structs.column_by_name(name).and_then(|column| column.as_fixed_size_binary_opt());
    let (trace_ids, span_ids) = (ids("trace_id"), ids("span_id"));
    let attributes = structs.column_by_name("attributes").and_then(|column| column.as_string_opt::<i32>());
    let mut rows = Vec::with_capacity(links.len());
    for row in 0..links.len() {
        let mut own = Vec::new();
        if links.is_valid(row) {
            let start = links.value_offsets()[row] as usize;
            for index in start..start + links.value_length(row) as usize {
                let text = |ids: Option<&arrow::array::FixedSizeBinaryArray>| {
                    ids.filter(|ids| ids.is_valid(index)).map(|ids| hex_text(ids.value(index))).unwrap_or_default()
                };
                own.push(Link {
                    trace_id: text(trace_ids),
                    span_id: text(span_ids),
                    attributes: wanted_attributes(attributes, index, keys, all)?,
                });
            }
        }
        rows.push(own);
    }
    Ok(rows)
}

/// Bytes as hexadecimal digits.
pub(super) fn hex_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
