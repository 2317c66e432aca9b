//! Which attributes get columns in the output, and how each input's batches become batches of the output.
//!
//! The profile's keys come first, then the most frequent, at most [`PROMOTED_LIMIT`]. A value whose key has a column of another type, or
//! none, goes to the overflow column; one that lies there and now has a column moves back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
    new_null_array,
};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimestampNanosecondType};
use tidemill_types::{Signal, TimestampNs};

use super::input::{OpenInput, is_attribute_column, memory_type};
use super::rest::{RestObject, RestValue, rest_type, rest_value};
use super::{MergeInput, MergeOptions};
use crate::error::{Error, Result};
use crate::footer::{AttributeEntry, LISTED_ATTRIBUTES, ValueType};
use crate::identities::{InputKind, ListedIdentity, encode_identities};
use crate::json::{write_display, write_double, write_string};
use crate::schema::{
    AttributeScope, AttributeType, ColumnNames, PROMOTED_KEY_BYTES, PROMOTED_LIMIT, PromotedColumn,
    SERVICE_NAME_COLUMN, SERVICE_NAME_KEY,
};

/// The opened inputs and what they become.
#[derive(Debug)]
pub(crate) struct MergePlan {
    pub(crate) signal: Signal,
    pub(crate) options: MergeOptions,
    pub(crate) inputs: Vec<OpenInput>,
    /// How batches are held in memory; text may be dictionaries.
    pub(crate) schema: SchemaRef,
    /// The footer's list, for all outputs together.
    pub(crate) attributes: Vec<AttributeEntry>,
    pub(crate) attributes_truncated: bool,
    /// The part that lists the identities of the inputs' inputs; empty when none are known.
    pub(crate) identities: Vec<u8>,
    remaps: Vec<Remap>,
    /// Only rows with times in this range, both ends included.
    times: Option<(i64, i64)>,
}

type Key = (AttributeScope, String);

#[derive(Debug, Default)]
struct KeyFacts {
    rows: u64,
    types: BTreeSet<ValueType>,
    /// Rows by type of the column that an input gave it.
    kinds: BTreeMap<AttributeType, u64>,
    overflows: bool,
}

impl MergePlan {
    /// Opens the inputs; the output has these core columns.
    pub(crate) fn open(inputs: Vec<MergeInput>, options: MergeOptions, core: Vec<Field>) -> Result<Self> {
        let signal = inputs[0].meta.signal;
        let inputs = inputs.into_iter().map(OpenInput::open).collect::<Result<Vec<_>>>()?;
        let facts = gather_facts(&inputs);
        let promoted = choose_promoted(&facts, &options.promote);
        let schema = output_schema(core, &promoted, &inputs);
        let remaps = inputs.iter().map(|input| Remap::new(input, &schema, &promoted)).collect();
        let truncated = inputs.iter().any(|input| input.footer.attributes_truncated) || facts.len() > LISTED_ATTRIBUTES;
        let attributes = attribute_entries(&facts, &promoted);
        Ok(Self {
            signal,
            options,
            inputs,
            schema,
            attributes,
            attributes_truncated: truncated,
            identities: Vec::new(),
            remaps,
            times: None,
        })
    }

    /// Reads the identities that the inputs list, of requests only those that arrived at `requests_from` or later.
    pub(crate) fn gather_identities(&mut self, requests_from: TimestampNs) -> Result<()> {
        let mut listed = Vec::new();
        for input in &self.inputs {
            let is_kept = |one: &ListedIdentity| one.kind == InputKind::Object || one.arrival >= requests_from;
            listed.extend(input.identities()?.into_iter().filter(is_kept));
        }
        self.identities = if listed.is_empty() { Vec::new() } else { encode_identities(listed) };
        Ok(())
    }

    pub(crate) fn rows(&self) -> u64 {
        self.inputs.iter().map(|input| input.footer.rows).sum()
    }

    /// How many rows of average size take `bytes`, but no more than `most`.
    pub(crate) fn rows_in(&self, bytes: u64, most: usize) -> usize {
        let decoded: u64 = self.inputs.iter().map(OpenInput::decoded_bytes).sum();
        let row_bytes = (decoded / self.rows().max(1)).max(1);
        usize::try_from(bytes / row_bytes).unwrap_or(most).clamp(1.min(most), most)
    }

    /// How many segments to make.
    pub(crate) fn outputs(&self) -> u64 {
        let bytes: u64 = self.inputs.iter().map(|input| input.input.meta.bytes).sum();
        // A little over the target is better than two halves of it.
        (bytes * 4 / 5).div_ceil(self.options.target_bytes.max(1)).clamp(1, self.rows().max(1))
    }

    /// The same for only the rows whose times are from `first` up to and with `last`.
    pub(crate) fn within(mut self, first: TimestampNs, last: TimestampNs) -> Self {
        self.times = Some((first.0, last.0));
        self
    }

    /// The row groups of an input that may have wanted rows.
    pub(crate) fn wanted_groups(&self, input: usize) -> Vec<usize> {
        let input = &self.inputs[input];
        let is_wanted = |group: &usize| match (self.times, input.row_group_times(*group)) {
            (Some((first, last)), Some((least, greatest))) => least <= last && first <= greatest,
            _ => true,
        };
        (0..input.row_groups()).filter(is_wanted).collect()
    }

    /// A batch of input number `input` in the output's schema.
    pub(crate) fn convert(&self, input: usize, batch: &RecordBatch) -> Result<RecordBatch> {
        let Some((first, last)) = self.times else { return self.remaps[input].convert(batch, &self.schema) };
        let times = batch.column(0).as_primitive::<TimestampNanosecondType>().values();
        let wanted: BooleanArray = times.iter().map(|time| Some((first..=last).contains(time))).collect();
        let batch = filter_record_batch(batch, &wanted).map_err(Error::arrow("choose rows"))?;
        self.remaps[input].convert(&batch, &self.schema)
    }
}

fn gather_facts(inputs: &[OpenInput]) -> HashMap<Key, KeyFacts> {
    let mut facts: HashMap<Key, KeyFacts> = HashMap::new();
    for entry in inputs.iter().flat_map(|input| &input.footer.attributes) {
        let fact = facts.entry((entry.scope, entry.key.clone())).or_default();
        fact.rows += entry.rows;
        fact.types.extend(&entry.types);
        fact.overflows |= entry.overflows && entry.column.is_some();
        if let Some(kind) = entry.kind {
            *fact.kinds.entry(kind).or_default() += entry.rows;
        }
    }
    facts
}

fn is_service_name(scope: AttributeScope, key: &str) -> bool {
    scope == AttributeScope::Resource && key == SERVICE_NAME_KEY
}

/// The output's promoted columns, in the order of the schema; `service.name`, which has its own column, is not among them.
fn choose_promoted(facts: &HashMap<Key, KeyFacts>, promote: &[String]) -> Vec<PromotedColumn> {
    let mut candidates: Vec<_> = facts
        .iter()
        .filter(|((scope, key), _)| !is_service_name(*scope, key) && !key.is_empty() && key.len() <= PROMOTED_KEY_BYTES)
        .filter_map(|((scope, key), fact)| {
            let kind = column_type(fact)?;
            let listed = promote.iter().position(|listed| listed == key).unwrap_or(promote.len());
            Some((listed, Reverse(fact.rows), *scope, key.clone(), kind))
        })
        .collect();
    candidates.sort();
    candidates.truncate(PROMOTED_LIMIT);
    candidates.sort_by(|left, right| (left.2, &left.3).cmp(&(right.2, &right.3)));
    let mut names = ColumnNames::default();
    candidates
        .into_iter()
        .map(|(_, _, scope, key, kind)| PromotedColumn { column: names.name(scope, &key), scope, key, kind })
        .collect()
}

/// The type of most rows as far as it is known, else the first that a column can have.
fn column_type(fact: &KeyFacts) -> Option<AttributeType> {
    let most = fact.kinds.iter().max_by_key(|(_, rows)| **rows).map(|(kind, _)| *kind);
    most.or_else(|| {
        fact.types.iter().find_map(|kind| match kind {
            ValueType::String => Some(AttributeType::String),
            ValueType::Int => Some(AttributeType::Int),
            ValueType::Double => Some(AttributeType::Double),
            ValueType::Bool => Some(AttributeType::Bool),
            ValueType::Other => None,
        })
    })
}

fn output_schema(mut plain: Vec<Field>, promoted: &[PromotedColumn], inputs: &[OpenInput]) -> SchemaRef {
    plain.extend(promoted.iter().map(|column| Field::new(&column.column, column.kind.data_type(), true)));
    plain.extend(AttributeScope::ALL.map(|scope| Field::new(scope.overflow_column(), DataType::Utf8, true)));
    let fields: Vec<Field> = plain
        .into_iter()
        .map(|field| {
            let column = promoted.iter().find(|column| column.column == *field.name());
            let is_dictionary = inputs.iter().all(|input| {
                let name = match column {
                    Some(column) => input_column(input, column.scope, &column.key).map(|entry| entry.0),
                    None => Some(field.name().clone()),
                };
                let found = name.and_then(|name| input.schema().field_with_name(&name).ok());
                found.is_none_or(|found| matches!(found.data_type(), DataType::Dictionary(..)))
            });
            let kind = memory_type(field.name(), field.data_type(), is_dictionary);
            field.with_data_type(kind)
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// The column that an input gives an attribute, and its type.
fn input_column(input: &OpenInput, scope: AttributeScope, key: &str) -> Option<(String, AttributeType)> {
    let entry = input.footer.attributes.iter().find(|entry| entry.scope == scope && entry.key == key)?;
    Some((entry.column.clone()?, entry.kind?))
}

fn attribute_entries(facts: &HashMap<Key, KeyFacts>, promoted: &[PromotedColumn]) -> Vec<AttributeEntry> {
    let mut entries: Vec<AttributeEntry> = facts
        .iter()
        .map(|((scope, key), fact)| {
            let (column, kind) = if is_service_name(*scope, key) {
                (Some(SERVICE_NAME_COLUMN.to_owned()), Some(AttributeType::String))
            } else {
                let column = promoted.iter().find(|column| column.scope == *scope && column.key == *key);
                (column.map(|column| column.column.clone()), column.map(|column| column.kind))
            };
            let fits = |kind: AttributeType| fact.types.iter().all(|found| *found == value_type(kind));
            // Repeated keys that no input gave a column could stay in the overflow column, so only columns speak against it.
            let was_column = fact.kinds.len() == 1 && fact.kinds.values().sum::<u64>() == fact.rows;
            let overflows = fact.overflows || !was_column || kind.is_none_or(|kind| !fits(kind));
            let types = fact.types.iter().copied().collect();
            AttributeEntry { scope: *scope, key: key.clone(), column, kind, types, rows: fact.rows, overflows }
        })
        .collect();
    let place =
        |entry: &AttributeEntry| promoted.iter().position(|column| Some(&column.column) == entry.column.as_ref());
    entries.sort_by_cached_key(|entry| {
        let place = place(entry).map_or(0, |place| place + 1);
        (entry.column.is_none(), place, Reverse(entry.rows), entry.scope, entry.key.clone())
    });
    entries.truncate(LISTED_ATTRIBUTES);
    entries
}

fn value_type(kind: AttributeType) -> ValueType {
    match kind {
        AttributeType::String => ValueType::String,
        AttributeType::Int => ValueType::Int,
        AttributeType::Double => ValueType::Double,
        AttributeType::Bool => ValueType::Bool,
    }
}

/// How one input's batches become the output's.
#[derive(Debug)]
struct Remap {
    /// For each field of the output, the column of the input that it is; `None` for one of nulls or of moved values.
    sources: Vec<Option<usize>>,
    scopes: Vec<ScopeMoves>,
}

/// What moves between columns and the overflow column of one scope.
#[derive(Debug)]
struct ScopeMoves {
    /// The overflow column of input and output.
    source: Option<usize>,
    target: usize,
    /// Columns of the input that the output lacks: their values move to the overflow column.
    injected: Vec<(usize, String)>,
    /// Keys whose values may lie in the overflow column and have a column in the output.
    extracted: HashMap<String, (usize, AttributeType)>,
}

impl Remap {
    fn new(input: &OpenInput, schema: &SchemaRef, promoted: &[PromotedColumn]) -> Self {
        let from = input.schema();
        let mut used = BTreeSet::new();
        let mut sources = Vec::new();
        let mut extracted: HashMap<AttributeScope, HashMap<String, (usize, AttributeType)>> = HashMap::new();
        for (target, field) in schema.fields().iter().enumerate() {
            let Some(column) = promoted.iter().find(|column| column.column == *field.name()) else {
                sources.push(from.index_of(field.name()).ok());
                continue;
            };
            let entry =
                input.footer.attributes.iter().find(|entry| entry.scope == column.scope && entry.key == column.key);
            let source = entry
                .filter(|entry| entry.kind == Some(column.kind))
                .and_then(|entry| from.index_of(entry.column.as_deref()?).ok());
            used.extend(source);
            sources.push(source);
            let has_values = match entry {
                Some(entry) => source.is_none() && entry.types.contains(&value_type(column.kind)),
                None => input.footer.attributes_truncated,
            };
            if has_values {
                extracted.entry(column.scope).or_default().insert(column.key.clone(), (target, column.kind));
            }
        }
        let scopes = AttributeScope::ALL
            .into_iter()
            .map(|scope| {
                let is_injected = |(place, field): (usize, &Arc<Field>)| {
                    let is_mine = field.name().starts_with(scope.prefix()) && is_attribute_column(field.name());
                    (is_mine && !used.contains(&place)).then(|| (place, key_of_column(input, scope, field.name())))
                };
                ScopeMoves {
                    source: from.index_of(scope.overflow_column()).ok(),
                    target: schema.index_of(scope.overflow_column()).expect("every schema has the overflow columns"),
                    injected: from.fields().iter().enumerate().filter_map(is_injected).collect(),
                    extracted: extracted.remove(&scope).unwrap_or_default(),
                }
            })
            .collect();
        Self { sources, scopes }
    }

    fn convert(&self, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
        let mut columns: Vec<Option<ArrayRef>> =
            self.sources.iter().map(|source| source.map(|source| Arc::clone(batch.column(source)))).collect();
        for moves in self.scopes.iter().filter(|moves| !moves.injected.is_empty() || !moves.extracted.is_empty()) {
            moves.apply(batch, &mut columns)?;
        }
        let columns = columns
            .into_iter()
            .zip(schema.fields())
            .map(|(column, field)| match column {
                None => Ok(new_null_array(field.data_type(), batch.num_rows())),
                Some(column) if column.data_type() == field.data_type() => Ok(column),
                Some(column) => cast(&column, field.data_type()).map_err(Error::arrow("convert a column")),
            })
            .collect::<Result<_>>()?;
        RecordBatch::try_new(Arc::clone(schema), columns).map_err(Error::arrow("convert a batch"))
    }
}

/// The key of a column that the output lacks. The one column that no entry may name is `service.name` of a type other than text.
fn key_of_column(input: &OpenInput, scope: AttributeScope, column: &str) -> String {
    let entry =
        input.footer.attributes.iter().find(|entry| entry.scope == scope && entry.column.as_deref() == Some(column));
    entry.map_or_else(|| SERVICE_NAME_KEY.to_owned(), |entry| entry.key.clone())
}

impl ScopeMoves {
    /// Rewrites the overflow column and builds the columns whose values lay in it.
    fn apply(&self, batch: &RecordBatch, columns: &mut [Option<ArrayRef>]) -> Result<()> {
        let rest = self.source.map(|source| cast(batch.column(source), &DataType::Utf8)).transpose();
        let rest = rest.map_err(Error::arrow("read an overflow column"))?;
        let mut out = StringBuilder::new();
        let mut object = Vec::new();
        let mut taken: HashMap<usize, ColumnBuilder> =
            self.extracted.values().map(|(target, kind)| (*target, ColumnBuilder::new(*kind))).collect();
        let injected = self
            .injected
            .iter()
            .map(|(source, key)| {
                let column = batch.column(*source);
                let plain = match column.data_type() {
                    DataType::Dictionary(..) => cast(column, &DataType::Utf8).map_err(Error::arrow("read a column"))?,
                    _ => Arc::clone(column),
                };
                Ok((plain, key.as_str()))
            })
            .collect::<Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            object.clear();
            for (column, key) in injected.iter().filter(|(column, _)| column.is_valid(row)) {
                start_member(&mut object, key);
                write_cell(&mut object, column, row)?;
            }
            if let Some(rest) = rest.as_ref().map(|rest| rest.as_string::<i32>()).filter(|rest| rest.is_valid(row)) {
                self.move_members(rest.value(row), row, &mut object, &mut taken)?;
            }
            if object.is_empty() {
                out.append_null();
            } else {
                object.push(b'}');
                out.append_value(std::str::from_utf8(&object).expect("JSON is UTF-8"));
            }
            taken.values_mut().for_each(|builder| builder.fill_to(row + 1));
        }
        columns[self.target] = Some(Arc::new(out.finish()));
        for (target, mut builder) in taken {
            columns[target] = Some(builder.finish());
        }
        Ok(())
    }

    fn move_members(
        &self,
        json: &str,
        row: usize,
        object: &mut Vec<u8>,
        taken: &mut HashMap<usize, ColumnBuilder>,
    ) -> Result<()> {
        let members: RestObject = serde_json::from_str(json).map_err(|error| Error::Corrupt {
            subject: "overflow column".to_owned(),
            problem: format!("row {row}: {error}"),
        })?;
        for (key, value) in members.members {
            let value = value.get();
            if let Some((target, kind)) = self.extracted.get(&key)
                && rest_type(value) == value_type(*kind)
                && let Some(builder) = taken.get_mut(target).filter(|builder| builder.len() == row)
                && let Some(value) = rest_value(value)
            {
                builder.push(value);
                continue;
            }
            start_member(object, &key);
            object.extend_from_slice(value.as_bytes());
        }
        Ok(())
    }
}

fn start_member(object: &mut Vec<u8>, key: &str) {
    object.push(if object.is_empty() { b'{' } else { b',' });
    write_string(object, key);
    object.push(b':');
}

/// Writes one value of a promoted column as the overflow column has it.
fn write_cell(out: &mut Vec<u8>, column: &ArrayRef, row: usize) -> Result<()> {
    match column.data_type() {
        DataType::Utf8 => write_string(out, column.as_string::<i32>().value(row)),
        DataType::Int64 => write_display(out, column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => write_double(out, column.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => write_display(out, column.as_boolean().value(row)),
        other => {
            let problem = format!("an attribute's column has type {other}");
            return Err(Error::Corrupt { subject: "schema".to_owned(), problem });
        }
    }
    Ok(())
}

enum ColumnBuilder {
    String(StringBuilder),
    Int(Int64Builder),
    Double(Float64Builder),
    Bool(BooleanBuilder),
}

impl ColumnBuilder {
    fn new(kind: AttributeType) -> Self {
        match kind {
            AttributeType::String => Self::String(StringBuilder::new()),
            AttributeType::Int => Self::Int(Int64Builder::new()),
            AttributeType::Double => Self::Double(Float64Builder::new()),
            AttributeType::Bool => Self::Bool(BooleanBuilder::new()),
        }
    }

    fn len(&self) -> usize {
        use arrow::array::ArrayBuilder;
        match self {
            Self::String(builder) => builder.len(),
            Self::Int(builder) => builder.len(),
            Self::Double(builder) => builder.len(),
            Self::Bool(builder) => builder.len(),
        }
    }

    fn push(&mut self, value: RestValue) {
        match (self, value) {
            (Self::String(builder), RestValue::String(value)) => builder.append_value(value),
            (Self::Int(builder), RestValue::Int(value)) => builder.append_value(value),
            (Self::Double(builder), RestValue::Double(value)) => builder.append_value(value),
            (Self::Bool(builder), RestValue::Bool(value)) => builder.append_value(value),
            _ => unreachable!("the value's type was compared with the column's"),
        }
    }

    fn fill_to(&mut self, rows: usize) {
        if self.len() < rows {
            match self {
                Self::String(builder) => builder.append_null(),
                Self::Int(builder) => builder.append_null(),
                Self::Double(builder) => builder.append_null(),
                Self::Bool(builder) => builder.append_null(),
            }
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::String(builder) => Arc::new(builder.finish()),
            Self::Int(builder) => Arc::new(builder.finish()),
            Self::Double(builder) => Arc::new(builder.finish()),
            Self::Bool(builder) => Arc::new(builder.finish()),
        }
    }
}
