//! The answers of `SHOW TABLES` and `DESCRIBE`.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use tidemill_types::Signal;

use crate::tables::{TableColumns, column_meaning};

/// `table`, `rows_are`.
pub(crate) fn show_tables() -> RecordBatch {
    let rows_are = ["one log record", "one data point of a metric", "one span"];
    columns([
        ("table", text(Signal::ALL.map(|signal| signal.table().to_owned()))),
        ("a_row_is", text(rows_are.map(str::to_owned))),
    ])
}

/// `column`, `type`, `nullable`, `meaning`.
pub(crate) fn describe_table(signal: Signal) -> RecordBatch {
    let table = TableColumns::new(signal, &[]);
    let fields = table.schema.fields();
    columns([
        ("column", text(fields.iter().map(|field| field.name().clone()))),
        ("type", text(fields.iter().map(|field| type_text(field.data_type())))),
        ("nullable", Arc::new(fields.iter().map(|field| Some(field.is_nullable())).collect::<BooleanArray>())),
        ("meaning", text(fields.iter().map(|field| column_meaning(signal, field.name()).to_owned()))),
    ])
}

fn text(values: impl IntoIterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn columns<const N: usize>(columns: [(&str, ArrayRef); N]) -> RecordBatch {
    RecordBatch::try_from_iter(columns).expect("the columns have one length")
}

fn type_text(kind: &DataType) -> String {
    match kind {
        DataType::Utf8View | DataType::Utf8 => "text".to_owned(),
        DataType::Timestamp(..) => "timestamp(ns, UTC)".to_owned(),
        DataType::FixedSizeBinary(_) => "binary".to_owned(),
        DataType::List(field) => format!("list<{}>", type_text(field.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|field| format!("{}: {}", field.name(), type_text(field.data_type()))).collect();
            format!("struct<{}>", fields.join(", "))
        }
        other => other.to_string().to_lowercase(),
    }
}
