//! Comma-separated values; lists and structs as JSON.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringBuilder};
use arrow::csv::WriterBuilder;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;

use super::json::encode_lines;

/// Rows of a batch, after a header when asked.
pub(super) fn encode(batch: &RecordBatch, with_header: bool) -> Result<Vec<u8>, ArrowError> {
    let flat = flatten(batch)?;
    let mut writer = WriterBuilder::new().with_header(with_header).build(Vec::new());
    writer.write(&flat)?;
    Ok(writer.into_inner())
}

fn flatten(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    if !batch.columns().iter().any(|column| is_nested(column.data_type())) {
        return Ok(batch.clone());
    }
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if is_nested(column.data_type()) {
            fields.push(Field::new(field.name(), DataType::Utf8, true));
            columns.push(as_json(column)?);
        } else {
            fields.push(field.as_ref().clone());
            columns.push(Arc::clone(column));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn is_nested(kind: &DataType) -> bool {
    kind.is_nested() || matches!(kind, DataType::Binary | DataType::FixedSizeBinary(_))
}

/// Each value as JSON: the value of the one key of a line's object.
fn as_json(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let lines = encode_lines(&RecordBatch::try_from_iter_with_nullable([("v", Arc::clone(column), true)])?)?;
    let text = std::str::from_utf8(&lines).map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
    let mut builder = StringBuilder::new();
    for (row, line) in text.lines().enumerate() {
        let value = line.strip_prefix("{\"v\":").and_then(|rest| rest.strip_suffix('}'));
        builder.append_option(value.filter(|_| column.is_valid(row)));
    }
    Ok(Arc::new(builder.finish()))
}
