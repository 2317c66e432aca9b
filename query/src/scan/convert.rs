//! From a segment's physical columns to the logical ones of a query.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, RecordBatchOptions,
    StringViewArray, StringViewBuilder, TimestampNanosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef};
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use tidemill_segment::read::{AttributeScope, AttributeType};

use super::open::{AttributePlace, OpenSegment};
use super::overflow::{Overflow, OverflowValue, read_key, read_object};
use crate::attributes::{AttributeKey, join_types};
use crate::tables::LogicalColumn;
use crate::{Error, Result};

/// How one segment's rows become a query's columns.
#[derive(Debug)]
pub(crate) struct Conversion {
    pub(crate) mask: ProjectionMask,
    reads_nothing: bool,
    recipes: Vec<Recipe>,
    schema: SchemaRef,
    open: Arc<OpenSegment>,
}

#[derive(Debug)]
enum Recipe {
    Null(DataType),
    EmptyObject,
    Time(i64),
    Plain(String),
    Hex(String),
    Object { scope: AttributeScope, columns: Vec<(String, String, AttributeType)> },
    Attribute { key: AttributeKey, place: AttributePlace, kind: AttributeType },
}

/// A column as it is read of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutputColumn {
    /// From the segment's columns.
    Read(LogicalColumn),
    /// Of every row the same, since its reader makes no difference: an object without members.
    EmptyObject,
    /// Of every row the same, since its reader makes no difference: nanoseconds since 1970.
    Time(i64),
    /// Whoever reads has it: nulls in its place.
    Given,
}

impl Conversion {
    /// Plans the columns of `schema`, whose meanings are `columns`, from one segment.
    pub(crate) fn new(open: &Arc<OpenSegment>, columns: &[LogicalColumn], schema: SchemaRef) -> Self {
        let columns: Vec<OutputColumn> = columns.iter().cloned().map(OutputColumn::Read).collect();
        Self::of_outputs(open, &columns, schema)
    }

    /// As [`Self::new`], of columns that need not all be read.
    pub(crate) fn of_outputs(open: &Arc<OpenSegment>, columns: &[OutputColumn], schema: SchemaRef) -> Self {
        let recipes: Vec<Recipe> = columns
            .iter()
            .zip(schema.fields())
            .map(|(column, field)| match column {
                OutputColumn::Read(column) => Recipe::new(open, column, field.data_type()),
                OutputColumn::EmptyObject => Recipe::EmptyObject,
                OutputColumn::Time(at) => Recipe::Time(*at),
                OutputColumn::Given => Recipe::Null(field.data_type().clone()),
            })
            .collect();
        let mut roots: Vec<usize> = Vec::new();
        for name in recipes.iter().flat_map(|recipe| recipe.physical_columns()) {
            roots.extend(open.reader.schema().index_of(name));
        }
        let reads_nothing = roots.is_empty();
        let mask = ProjectionMask::roots(open.reader.parquet_schema(), roots);
        Self { mask, reads_nothing, recipes, schema, open: Arc::clone(open) }
    }

    /// Whether no column of the segment is needed.
    pub(super) fn reads_nothing(&self) -> bool {
        self.reads_nothing
    }

    /// The object that the rows are of.
    pub(super) fn object_key(&self) -> &str {
        &self.open.meta.object_key
    }

    /// Converts rows that were read with [`Self::mask`].
    ///
    /// # Errors
    /// `AttributeTypes` when a value does not fit the type that the plan assumed.
    pub(crate) fn convert(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns: Result<Vec<ArrayRef>> = self.recipes.iter().map(|recipe| self.column(recipe, batch)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns?, &options)
            .map_err(|error| Error::corrupt(&self.open.meta.object_key, error))
    }

    fn column(&self, recipe: &Recipe, batch: &RecordBatch) -> Result<ArrayRef> {
        match recipe {
            Recipe::Null(kind) => Ok(new_null_array(kind, batch.num_rows())),
            Recipe::EmptyObject => Ok(Arc::new(same_texts("{}", batch.num_rows()))),
            Recipe::Time(at) => {
                let times = TimestampNanosecondArray::from_value(*at, batch.num_rows());
                Ok(Arc::new(times.with_timezone("UTC")))
            }
            Recipe::Plain(name) => self.physical(batch, name).cloned(),
            Recipe::Hex(name) => self.physical(batch, name).and_then(|array| self.hex(array)),
            Recipe::Object { scope, columns } => self.object(*scope, columns, batch),
            Recipe::Attribute { key, place, kind } => self.attribute(key, place, *kind, batch),
        }
    }

    fn physical<'a>(&self, batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
        batch
            .column_by_name(name)
            .ok_or_else(|| Error::corrupt(&self.open.meta.object_key, format!("column {name} was not read")))
    }

    fn hex(&self, array: &ArrayRef) -> Result<ArrayRef> {
        hex_text(array)
            .ok_or_else(|| Error::corrupt(&self.open.meta.object_key, format!("an id is {}", array.data_type())))
    }

    fn rest<'a>(&self, scope: AttributeScope, batch: &'a RecordBatch) -> Option<&'a StringViewArray> {
        batch.column_by_name(scope.overflow_column()).and_then(|array| array.as_string_view_opt())
    }

    fn object(
        &self,
        scope: AttributeScope,
        columns: &[(String, String, AttributeType)],
        batch: &RecordBatch,
    ) -> Result<ArrayRef> {
        let columns: Vec<(&str, ArrayRef)> = columns
            .iter()
            .map(|(key, column, _)| Ok((key.as_str(), Arc::clone(self.physical(batch, column)?))))
            .collect::<Result<_>>()?;
        let rest = self.rest(scope, batch);
        let mut builder = StringViewBuilder::with_capacity(batch.num_rows());
        let mut text = String::new();
        for row in 0..batch.num_rows() {
            let overflow = match rest.filter(|rest| rest.is_valid(row)) {
                None => Overflow::new(),
                Some(rest) => self.checked(read_object(rest.value(row)))?,
            };
            text.clear();
            write_object(&mut text, &columns, &overflow, row);
            builder.append_value(&text);
        }
        Ok(Arc::new(builder.finish()))
    }

    fn attribute(
        &self,
        key: &AttributeKey,
        place: &AttributePlace,
        kind: AttributeType,
        batch: &RecordBatch,
    ) -> Result<ArrayRef> {
        let own = match &place.column {
            None => None,
            Some((column, from)) => {
                let array = self.physical(batch, column)?;
                Some(cast_attribute(array, *from, kind).ok_or_else(|| self.retyped(key, kind, Some(*from)))?)
            }
        };
        let rest = if place.in_overflow { self.rest(key.scope, batch) } else { None };
        match (own, rest) {
            (Some(own), None) => Ok(own),
            (None, None) => Ok(new_null_array(&crate::attributes::logical_type(kind), batch.num_rows())),
            (Some(own), Some(rest)) if rest.null_count() == rest.len() => Ok(own),
            (own, Some(rest)) => self.attribute_with_rest(key, kind, own.as_ref(), rest),
        }
    }

    fn attribute_with_rest(
        &self,
        key: &AttributeKey,
        kind: AttributeType,
        own: Option<&ArrayRef>,
        rest: &StringViewArray,
    ) -> Result<ArrayRef> {
        let mut column = AttributeBuilder::new(kind, rest.len());
        // A key that JSON writes as it is must occur so in the row's text; others are looked for by parsing.
        let is_plain = key.key.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\');
        let quoted = if is_plain { format!("\"{}\"", key.key) } else { String::new() };
        for row in 0..rest.len() {
            if let Some(own) = own.filter(|own| own.is_valid(row)) {
                column.append_own(own, row);
                continue;
            }
            let text = if rest.is_valid(row) { rest.value(row) } else { "" };
            let value =
                if !text.is_empty() && text.contains(&quoted) { self.checked(read_key(text, &key.key))? } else { None };
            if let Err(found) = column.append_overflow(value) {
                return Err(self.retyped(key, kind, Some(found)));
            }
        }
        Ok(column.finish())
    }

    fn checked<T>(&self, parsed: serde_json::Result<T>) -> Result<T> {
        parsed.map_err(|error| Error::corrupt(&self.open.meta.object_key, format!("an overflow column: {error}")))
    }

    fn retyped(&self, key: &AttributeKey, planned: AttributeType, found: Option<AttributeType>) -> Error {
        let wider = found.map_or(AttributeType::String, |found| join_types(planned, found));
        Error::AttributeTypes { signal: self.open.meta.signal, types: vec![(key.clone(), wider)] }
    }
}

impl Recipe {
    fn new(open: &OpenSegment, column: &LogicalColumn, kind: &DataType) -> Self {
        match column {
            LogicalColumn::Plain(name) if open.has_column(name) => Self::Plain(name.clone()),
            LogicalColumn::Hex(name) if open.has_column(name) => Self::Hex(name.clone()),
            LogicalColumn::Plain(_) | LogicalColumn::Hex(_) => Self::Null(kind.clone()),
            LogicalColumn::Object(scope) => Self::Object {
                scope: *scope,
                columns: open
                    .promoted_of(*scope)
                    .into_iter()
                    .map(|(key, column, kind)| (key.to_owned(), column.to_owned(), kind))
                    .collect(),
            },
            LogicalColumn::Attribute(key, kind) => {
                Self::Attribute { key: key.clone(), place: open.place(key), kind: *kind }
            }
        }
    }

    fn physical_columns(&self) -> Vec<&str> {
        match self {
            Self::Null(_) | Self::EmptyObject | Self::Time(_) => Vec::new(),
            Self::Plain(name) | Self::Hex(name) => vec![name],
            Self::Object { scope, columns } => {
                let own = columns.iter().map(|(_, column, _)| column.as_str());
                own.chain([scope.overflow_column()]).collect()
            }
            Self::Attribute { key, place, .. } => {
                let own = place.column.iter().map(|(column, _)| column.as_str());
                own.chain(place.in_overflow.then(|| key.scope.overflow_column())).collect()
            }
        }
    }
}

/// The same short text for every row: a slice of one that is made once, as many rows have it.
pub(crate) fn same_texts(text: &'static str, rows: usize) -> StringViewArray {
    static MADE: Mutex<BTreeMap<&str, StringViewArray>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock();
    let long = made.get(text).filter(|made| made.len() >= rows).cloned().unwrap_or_else(|| {
        let length = rows.next_power_of_two().max(1 << 16);
        std::iter::repeat_n(Some(text), length).collect()
    });
    made.insert(text, long.clone());
    long.slice(0, rows)
}

/// Fixed-size binary as lower-case hexadecimal text.
pub(crate) fn hex_text(array: &ArrayRef) -> Option<ArrayRef> {
    let bytes = array.as_fixed_size_binary_opt()?;
    let mut builder = StringViewBuilder::with_capacity(bytes.len());
    let mut text = [0_u8; 64];
    for row in 0..bytes.len() {
        if bytes.is_null(row) {
            builder.append_null();
            continue;
        }
        let value = bytes.value(row);
        let target = text.get_mut(..value.len() * 2)?;
        hex::encode_to_slice(value, target).ok()?;
        builder.append_value(std::str::from_utf8(target).ok()?);
    }
    Some(Arc::new(builder.finish()))
}

/// Shows values of one attribute type as another; `None` when that type cannot show them all.
pub(crate) fn cast_attribute(array: &ArrayRef, from: AttributeType, to: AttributeType) -> Option<ArrayRef> {
    use AttributeType::{Double, Int, String};
    match (from, to) {
        (same, again) if same == again => Some(Arc::clone(array)),
        (Int, Double) => arrow::compute::cast(array, &DataType::Float64).ok(),
        (_, String) => {
            let mut builder = StringViewBuilder::with_capacity(array.len());
            let mut text = std::string::String::new();
            for row in 0..array.len() {
                if array.is_null(row) {
                    builder.append_null();
                } else {
                    text.clear();
                    write_plain(&mut text, array, row);
                    builder.append_value(&text);
                }
            }
            Some(Arc::new(builder.finish()))
        }
        _ => None,
    }
}

/// A promoted value as text: doubles always with a point or exponent.
fn write_plain(text: &mut String, array: &ArrayRef, row: usize) {
    let written = match array.data_type() {
        DataType::Int64 => write!(text, "{}", array.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => write!(text, "{:?}", array.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => write!(text, "{}", array.as_boolean().value(row)),
        _ => write!(text, "{}", array.as_string_view().value(row)),
    };
    written.expect("writing to a String succeeds");
}

/// A promoted value as JSON, as the overflow column would write it.
fn write_json(text: &mut String, array: &ArrayRef, row: usize) {
    match array.data_type() {
        DataType::Utf8View => write_quoted(text, array.as_string_view().value(row)),
        DataType::Float64 if !array.as_primitive::<Float64Type>().value(row).is_finite() => {
            let value = array.as_primitive::<Float64Type>().value(row);
            let name = if value.is_nan() {
                "NaN"
            } else if value > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            };
            write!(text, "{{\"doubleValue\":\"{name}\"}}").expect("writing to a String succeeds");
        }
        _ => write_plain(text, array, row),
    }
}

fn write_quoted(text: &mut String, value: &str) {
    text.push_str(&serde_json::to_string(value).expect("text always becomes JSON"));
}

/// Merges columns (sorted by key) and overflow (sorted by key) into one object.
fn write_object(text: &mut String, columns: &[(&str, ArrayRef)], overflow: &Overflow<'_>, row: usize) {
    text.push('{');
    let mut is_first = true;
    let mut separate = |text: &mut String| {
        if !std::mem::take(&mut is_first) {
            text.push(',');
        }
    };
    let mut rest = overflow.iter().peekable();
    for (key, array) in columns.iter().filter(|(_, array)| array.is_valid(row)) {
        while let Some((name, raw)) = rest.next_if(|(name, _)| name.as_str() < *key) {
            separate(text);
            write_quoted(text, name);
            text.push(':');
            text.push_str(raw.get());
        }
        separate(text);
        write_quoted(text, key);
        text.push(':');
        write_json(text, array, row);
    }
    for (name, raw) in rest {
        separate(text);
        write_quoted(text, name);
        text.push(':');
        text.push_str(raw.get());
    }
    text.push('}');
}

/// A column of one attribute, filled from its own column and the overflow.
enum AttributeBuilder {
    String(StringViewBuilder),
    Int(Int64Builder),
    Double(Float64Builder),
    Bool(BooleanBuilder),
}

impl AttributeBuilder {
    fn new(kind: AttributeType, rows: usize) -> Self {
        match kind {
            AttributeType::String => Self::String(StringViewBuilder::with_capacity(rows)),
            AttributeType::Int => Self::Int(Int64Builder::with_capacity(rows)),
            AttributeType::Double => Self::Double(Float64Builder::with_capacity(rows)),
            AttributeType::Bool => Self::Bool(BooleanBuilder::with_capacity(rows)),
        }
    }

    /// A value of `own`, which already has this column's type.
    fn append_own(&mut self, own: &ArrayRef, row: usize) {
        match self {
            Self::String(builder) => builder.append_value(own.as_string_view().value(row)),
            Self::Int(builder) => builder.append_value(own.as_primitive::<Int64Type>().value(row)),
            Self::Double(builder) => builder.append_value(own.as_primitive::<Float64Type>().value(row)),
            Self::Bool(builder) => builder.append_value(own.as_boolean().value(row)),
        }
    }

    /// An overflow value; `Err` with its own type when this column cannot show it.
    fn append_overflow(&mut self, value: Option<OverflowValue>) -> std::result::Result<(), AttributeType> {
        use OverflowValue::{Bool, Double, Int, Text};
        match (self, value) {
            (Self::String(builder), None) => builder.append_null(),
            (Self::Int(builder), None) => builder.append_null(),
            (Self::Double(builder), None) => builder.append_null(),
            (Self::Bool(builder), None) => builder.append_null(),
            (Self::String(builder), Some(value)) => builder.append_value(value.into_text()),
            (Self::Int(builder), Some(Int(value))) => builder.append_value(value),
            (Self::Double(builder), Some(Double(value))) => builder.append_value(value),
            (Self::Double(builder), Some(Int(value))) => builder.append_value(value as f64),
            (Self::Bool(builder), Some(Bool(value))) => builder.append_value(value),
            (_, Some(Int(_))) => return Err(AttributeType::Int),
            (_, Some(Double(_))) => return Err(AttributeType::Double),
            (_, Some(Bool(_))) => return Err(AttributeType::Bool),
            (_, Some(Text(_))) => return Err(AttributeType::String),
        }
        Ok(())
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::String(mut builder) => Arc::new(builder.finish()),
            Self::Int(mut builder) => Arc::new(builder.finish()),
            Self::Double(mut builder) => Arc::new(builder.finish()),
            Self::Bool(mut builder) => Arc::new(builder.finish()),
        }
    }
}
