//! From merged points to the series table: frames and labels of each series, read from its first row.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type};

use super::attributes::MergePlan;
use super::output::text_at;
use super::rest::RestObject;
use super::runs::SortKey;
use crate::error::{Error, Result};
use crate::index::{SeriesFrame, SeriesTableBuilder};
use crate::json::{write_display, write_double, write_string};
use crate::schema::AttributeScope;

/// Notes the series of a merged batch.
pub(crate) fn note_series(
    table: &mut SeriesTableBuilder,
    plan: &MergePlan,
    batch: &RecordBatch,
    keys: &[SortKey],
) -> Result<()> {
    for (row, key) in keys.iter().enumerate() {
        if table.last() != Some(&key.id) {
            table.start_series(key.id, frame_at(batch, row), labels_at(plan, batch, row)?);
        }
        table.add_row();
    }
    Ok(())
}

fn frame_at(batch: &RecordBatch, row: usize) -> SeriesFrame {
    let text = |name: &str| {
        let column = batch.column_by_name(name);
        column.and_then(|column| text_at(column, row)).unwrap_or_default().to_owned()
    };
    let is_monotonic = batch.column_by_name("is_monotonic").map(|column| column.as_boolean());
    let is_monotonic = is_monotonic.is_some_and(|flags| flags.is_valid(row) && flags.value(row));
    let kind = match text("kind") {
        sum if sum == "sum" && is_monotonic => "monotonic_sum".to_owned(),
        other => other,
    };
    SeriesFrame {
        name: text("name"),
        unit: text("unit"),
        kind,
        temporality: text("temporality"),
        scope_name: text("scope_name"),
        scope_version: text("scope_version"),
    }
}

fn labels_at(plan: &MergePlan, batch: &RecordBatch, row: usize) -> Result<Vec<(AttributeScope, String, String)>> {
    let mut labels = Vec::new();
    for entry in &plan.attributes {
        let Some(column) = entry.column.as_deref().and_then(|column| batch.column_by_name(column)) else { continue };
        if let Some(value) = json_at(column, row) {
            labels.push((entry.scope, entry.key.clone(), value));
        }
    }
    for scope in AttributeScope::ALL {
        let Some(rest) = batch.column_by_name(scope.overflow_column()).and_then(|column| text_at(column, row)) else {
            continue;
        };
        let members: RestObject = serde_json::from_str(rest).map_err(|error| Error::Corrupt {
            subject: scope.overflow_column().to_owned(),
            problem: error.to_string(),
        })?;
        labels.extend(members.members.into_iter().map(|(key, value)| (scope, key, value.get().to_owned())));
    }
    Ok(labels)
}

fn json_at(column: &Arc<dyn Array>, row: usize) -> Option<String> {
    let mut out = Vec::new();
    match column.data_type() {
        DataType::Dictionary(..) | DataType::Utf8 => write_string(&mut out, text_at(column, row)?),
        _ if column.is_null(row) => return None,
        DataType::Int64 => write_display(&mut out, column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => write_double(&mut out, column.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => write_display(&mut out, column.as_boolean().value(row)),
        _ => return None,
    }
    String::from_utf8(out).ok()
}
