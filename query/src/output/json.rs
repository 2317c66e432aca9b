//! JSON lines.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;

/// One object a row; null columns are there as null.
pub(super) fn encode_lines(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    if batch.num_columns() == 0 {
        return Ok("{}\n".repeat(batch.num_rows()).into_bytes());
    }
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}
