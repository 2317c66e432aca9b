//! Which columns of spans a query needs, and rows as the batches that the evaluator takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, RecordBatch, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use tidemill_eval::traceql::{AttributeColumn, AttributeScope as EvalScope, SpanBatch};
use tidemill_lang::traceql::ast::{Attribute, Intrinsic, Scope};
use tidemill_segment::read::{SegmentFooter, ValueType};
use tidemill_segment::schema::{SERVICE_NAME_COLUMN, SERVICE_NAME_KEY};

use super::mentioned::Mentioned;
use crate::attributes::AttributeKey;
use crate::tables::object_column;
use crate::{AttributeScope, Error, Result};

/// What every batch has.
const CORE: [&str; 9] = [
    "trace_id",
    "span_id",
    "parent_span_id",
    "name",
    "kind",
    "time",
    "duration_ns",
    "status_code",
    SERVICE_NAME_COLUMN,
];

/// The columns that a query reads of spans.
#[derive(Debug, Clone, Default)]
pub(super) struct SpanColumns {
    /// Fixed columns, by their names in SQL.
    pub(super) fixed: Vec<String>,
    /// Attributes with columns of their own.
    pub(super) attributes: Vec<AttributeKey>,
}

impl SpanColumns {
    /// For a query that mentions these, all attributes of a scope as one object.
    pub(super) fn of(mentioned: &Mentioned) -> Self {
        let mut scopes = BTreeSet::new();
        let mut fixed: BTreeSet<&str> = CORE.into_iter().collect();
        for attribute in &mentioned.attributes {
            scopes.extend(scopes_of(attribute));
            fixed.extend(fixed_column(attribute));
        }
        if mentioned.all {
            scopes.extend(AttributeScope::ALL);
            fixed.extend(["events", "links", "status_message", "scope_name", "scope_version"]);
        }
        fixed.extend(scopes.into_iter().map(object_column));
        Self { fixed: fixed.into_iter().map(str::to_owned).collect(), attributes: Vec::new() }
    }

    /// The same, with a column for each attribute whose values are of one plain type in all of these segments.
    pub(super) fn typed(mentioned: &Mentioned, types: &UniformTypes) -> Self {
        if mentioned.all {
            return Self::of(mentioned);
        }
        let mut left = Mentioned::default();
        let mut attributes = BTreeSet::new();
        for attribute in &mentioned.attributes {
            let keys = keys_of(attribute);
            if keys.iter().all(|key| types.is_uniform(key)) {
                attributes.extend(keys.into_iter().filter(|key| types.occurs(key)));
                if keys_of(attribute).is_empty() {
                    left.add(attribute);
                }
            } else {
                left.add(attribute);
            }
        }
        let service = |key: &AttributeKey| key.scope == AttributeScope::Resource && key.key == SERVICE_NAME_KEY;
        Self { attributes: attributes.into_iter().filter(|key| !service(key)).collect(), ..Self::of(&left) }
    }

    /// Rows with these columns as a batch of spans.
    pub(super) fn batch(&self, rows: &RecordBatch) -> Result<SpanBatch> {
        let mut fields = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::new();
        let mut promoted = vec![AttributeColumn {
            column: SERVICE_NAME_COLUMN.to_owned(),
            scope: EvalScope::Resource,
            key: SERVICE_NAME_KEY.to_owned(),
        }];
        for (place, (field, column)) in rows.schema().fields().iter().zip(rows.columns()).enumerate() {
            let attribute = place.checked_sub(self.fixed.len()).and_then(|place| self.attributes.get(place));
            let (name, column) = match (attribute, field.name().as_str()) {
                (Some(key), _) => {
                    let name = format!("attribute {place}");
                    let scope = eval_scope(key.scope);
                    promoted.push(AttributeColumn { column: name.clone(), scope, key: key.key.clone() });
                    (name, plain(column)?)
                }
                (None, name @ "trace_id") => (name.to_owned(), ids(column, 16)?),
                (None, name @ ("span_id" | "parent_span_id")) => (name.to_owned(), ids(column, 8)?),
                (None, "attributes") => ("a_rest".to_owned(), plain(column)?),
                (None, "resource") => ("r_rest".to_owned(), plain(column)?),
                (None, "scope") => ("s_rest".to_owned(), plain(column)?),
                (None, name) => (name.to_owned(), plain(column)?),
            };
            fields.push(Field::new(name, column.data_type().clone(), true));
            columns.push(column);
        }
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(arrow_error)?;
        SpanBatch::new(&rows, &promoted).map_err(super::evaluation_error)
    }
}

/// The scopes whose objects hold an attribute.
fn scopes_of(attribute: &Attribute) -> Vec<AttributeScope> {
    keys_of(attribute).into_iter().map(|key| key.scope).collect()
}

/// The attributes of spans, resources and scopes that a name may mean.
fn keys_of(attribute: &Attribute) -> Vec<AttributeKey> {
    let Attribute::Named(scope, key) = attribute else { return Vec::new() };
    let scopes: &[AttributeScope] = match scope {
        Scope::Any => &[AttributeScope::Record, AttributeScope::Resource],
        Scope::Span => &[AttributeScope::Record],
        Scope::Resource => &[AttributeScope::Resource],
        Scope::Instrumentation => &[AttributeScope::Scope],
        Scope::Event | Scope::Link => &[],
    };
    scopes.iter().map(|scope| AttributeKey { scope: *scope, key: key.clone() }).collect()
}

/// The fixed column that an intrinsic, event or link reads beyond those of every batch.
fn fixed_column(attribute: &Attribute) -> Option<&'static str> {
    use Intrinsic as I;
    match attribute {
        Attribute::Named(Scope::Event, _) | Attribute::Intrinsic(I::EventName | I::EventTimeSinceStart) => {
            Some("events")
        }
        Attribute::Named(Scope::Link, _) | Attribute::Intrinsic(I::LinkSpanId | I::LinkTraceId) => Some("links"),
        Attribute::Intrinsic(I::StatusMessage) => Some("status_message"),
        Attribute::Intrinsic(I::InstrumentationName) => Some("scope_name"),
        Attribute::Intrinsic(I::InstrumentationVersion) => Some("scope_version"),
        _ => None,
    }
}

fn eval_scope(scope: AttributeScope) -> EvalScope {
    match scope {
        AttributeScope::Record => EvalScope::Span,
        AttributeScope::Resource => EvalScope::Resource,
        AttributeScope::Scope => EvalScope::Instrumentation,
    }
}

fn plain(column: &ArrayRef) -> Result<ArrayRef> {
    match column.data_type() {
        DataType::Utf8View => cast(column, &DataType::Utf8).map_err(arrow_error),
        _ => Ok(Arc::clone(column)),
    }
}

/// Ids as bytes.
fn ids(column: &ArrayRef, bytes: usize) -> Result<ArrayRef> {
    let texts: &StringViewArray = column.as_string_view_opt().ok_or_else(|| wrong("an id is no text"))?;
    let mut builder = FixedSizeBinaryBuilder::with_capacity(texts.len(), bytes as i32);
    let mut id = [0; 16];
    for row in 0..texts.len() {
        if texts.is_null(row) {
            builder.append_null();
            continue;
        }
        hex::decode_to_slice(texts.value(row), &mut id[..bytes]).map_err(|_| wrong("an id is no hexadecimal text"))?;
        builder.append_value(&id[..bytes]).map_err(arrow_error)?;
    }
    Ok(Arc::new(builder.finish()))
}

fn wrong(problem: &str) -> Error {
    arrow_error(arrow::error::ArrowError::SchemaError(problem.to_owned()))
}

fn arrow_error(error: arrow::error::ArrowError) -> Error {
    Error::from(datafusion::error::DataFusionError::from(error))
}

/// Which attributes have values of one plain type only.
#[derive(Debug, Default)]
pub(super) struct UniformTypes {
    types: BTreeMap<AttributeKey, BTreeSet<ValueType>>,
    is_partial: bool,
}

impl UniformTypes {
    pub(super) fn add(&mut self, footer: &SegmentFooter) {
        self.is_partial |= footer.attributes_truncated;
        for entry in &footer.attributes {
            let key = AttributeKey { scope: entry.scope, key: entry.key.clone() };
            self.types.entry(key).or_default().extend(&entry.types);
        }
    }

    /// Nothing is known.
    pub(super) fn unknown() -> Self {
        Self { types: BTreeMap::new(), is_partial: true }
    }

    fn occurs(&self, key: &AttributeKey) -> bool {
        self.types.contains_key(key)
    }

    fn is_uniform(&self, key: &AttributeKey) -> bool {
        if self.is_partial {
            return false;
        }
        let types = self.types.get(key);
        types.is_none_or(|types| types.len() == 1 && !types.contains(&ValueType::Other))
    }
}
