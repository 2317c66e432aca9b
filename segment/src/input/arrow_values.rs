//! Cells of any Arrow type as JSON values, a row at a time within a budget.
//!
//! A file repeats a value for a few bits, so that what a row says is counted while it is read, not when it is all there.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Number, Value};

use crate::otlp::RECORD_LIMIT_BYTES;
use crate::otlp::value::DEPTH_LIMIT;

/// What a cell costs besides its text.
const CELL_BYTES: usize = 8;

/// The row's cells that are not null, by the name of their column.
///
/// # Errors
/// A reason when the row says more than a record may, is nested too deep, or holds what cannot be told.
pub(crate) fn row_members(batch: &RecordBatch, row: usize) -> Result<Map<String, Value>, String> {
    let mut left = RECORD_LIMIT_BYTES;
    let mut members = Map::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let value = value_at(column, row, 0, &mut left).map_err(|reason| format!("{}: {reason}", field.name()))?;
        if let Some(value) = value {
            members.insert(field.name().clone(), value);
        }
    }
    Ok(members)
}

fn value_at(array: &ArrayRef, row: usize, depth: usize, left: &mut usize) -> Result<Option<Value>, String> {
    if array.is_null(row) || array.data_type() == &DataType::Null {
        return Ok(None);
    }
    if depth > DEPTH_LIMIT {
        return Err(format!("nested deeper than {DEPTH_LIMIT} levels"));
    }
    spend(left, CELL_BYTES)?;
    let integer = |number: i64| Value::Number(number.into());
    let unsigned = |number: u64| Value::Number(number.into());
    Ok(Some(match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Int8 => integer(array.as_primitive::<Int8Type>().value(row).into()),
        DataType::Int16 => integer(array.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => integer(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => integer(array.as_primitive::<Int64Type>().value(row)),
        DataType::UInt8 => unsigned(array.as_primitive::<UInt8Type>().value(row).into()),
        DataType::UInt16 => unsigned(array.as_primitive::<UInt16Type>().value(row).into()),
        DataType::UInt32 => unsigned(array.as_primitive::<UInt32Type>().value(row).into()),
        DataType::UInt64 => unsigned(array.as_primitive::<UInt64Type>().value(row)),
        DataType::Float16 => double(array.as_primitive::<Float16Type>().value(row).to_f64()),
        DataType::Float32 => double(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => double(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => text(array.as_string::<i32>().value(row), left)?,
        DataType::LargeUtf8 => text(array.as_string::<i64>().value(row), left)?,
        DataType::Utf8View => text(array.as_string_view().value(row), left)?,
        DataType::Binary => digits(array.as_binary::<i32>().value(row), left)?,
        DataType::LargeBinary => digits(array.as_binary::<i64>().value(row), left)?,
        DataType::BinaryView => digits(array.as_binary_view().value(row), left)?,
        DataType::FixedSizeBinary(_) => digits(array.as_fixed_size_binary().value(row), left)?,
        DataType::List(_) => list(&array.as_list::<i32>().value(row), depth, left)?,
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(row), depth, left)?,
        DataType::FixedSizeList(_, _) => list(&array.as_fixed_size_list().value(row), depth, left)?,
        DataType::Struct(fields) => {
            let mut members = Map::new();
            for (field, column) in fields.iter().zip(array.as_struct().columns()) {
                spend(left, field.name().len())?;
                if let Some(value) = value_at(column, row, depth + 1, left)? {
                    members.insert(field.name().clone(), value);
                }
            }
            Value::Object(members)
        }
        DataType::Map(_, _) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let mut members = Map::new();
            for place in 0..entries.len() {
                let key = match value_at(keys, place, depth + 1, left)? {
                    Some(Value::String(key)) => key,
                    Some(other) => other.to_string(),
                    None => String::new(),
                };
                members.insert(key, value_at(values, place, depth + 1, left)?.unwrap_or(Value::Null));
            }
            Value::Object(members)
        }
        // Times, dates, decimals and the like, as people write them.
        _ => {
            let options = FormatOptions::default();
            let told = ArrayFormatter::try_new(array.as_ref(), &options).and_then(|all| all.value(row).try_to_string());
            text(&told.map_err(|error| error.to_string())?, left)?
        }
    }))
}

fn list(values: &ArrayRef, depth: usize, left: &mut usize) -> Result<Value, String> {
    let mut out = Vec::new();
    for place in 0..values.len() {
        out.push(value_at(values, place, depth + 1, left)?.unwrap_or(Value::Null));
    }
    Ok(Value::Array(out))
}

fn text(text: &str, left: &mut usize) -> Result<Value, String> {
    spend(left, text.len())?;
    Ok(Value::String(text.to_owned()))
}

fn digits(bytes: &[u8], left: &mut usize) -> Result<Value, String> {
    spend(left, bytes.len() * 2)?;
    Ok(Value::String(hex::encode(bytes)))
}

/// What JSON has no number for is text, as in the JSON of protobuf.
fn double(number: f64) -> Value {
    match Number::from_f64(number) {
        Some(number) => Value::Number(number),
        None if number.is_nan() => "NaN".into(),
        None if number > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

/// The number in a cell, those included that are text.
pub(crate) fn number_in(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn spend(left: &mut usize, bytes: usize) -> Result<(), String> {
    *left = left.checked_sub(bytes).ok_or_else(|| format!("a record may have {RECORD_LIMIT_BYTES} bytes"))?;
    Ok(())
}
