//! What records have beside their lines and streams: levels, and structured metadata.

use std::borrow::Cow;
use std::collections::BTreeMap;

use arrow::array::{
    Array, AsArray, PrimitiveArray, RecordBatch, StringArray, StringBuilder, StringViewArray, UInt32Array,
};
use arrow::datatypes::{Int32Type, TimestampNanosecondType, UInt32Type};
use serde_json::{Map, Value};
use tidemill_eval::logql::StreamLabels;
use tidemill_segment::loki::PUSH_SCOPE;

use super::detail::{Detail, FIELDS};
use super::labels::{DETECTED_LEVEL, detected_level, flatten, label_name};
use super::{Error, Result};

/// The text columns of a batch, where it has them.
pub(super) struct Texts<'a>(pub(super) &'a RecordBatch);

impl<'a> Texts<'a> {
    pub(super) fn column(&self, name: &str) -> Option<&'a StringViewArray> {
        self.0.column_by_name(name).and_then(|column| column.as_string_view_opt())
    }
}

pub(super) fn text_at(column: Option<&StringViewArray>, row: usize) -> Option<&str> {
    column.filter(|column| column.is_valid(row)).map(|column| column.value(row))
}

pub(super) fn view_at(column: Option<&StringViewArray>, row: usize) -> Option<u128> {
    column.filter(|column| column.is_valid(row)).map(|column| column.views()[row])
}

/// The name under which metadata stands beside the labels of a stream, as in Loki.
pub(super) fn free_name<'n>(labels: &StreamLabels, name: &'n str) -> Cow<'n, str> {
    match labels.get(name).is_empty() {
        true => Cow::Borrowed(name),
        false => Cow::Owned(format!("{name}_extracted")),
    }
}

/// What the levels of OTLP records are detected from; nothing where no level is wanted.
pub(super) struct Severity<'a> {
    is_wanted: bool,
    number: Option<&'a PrimitiveArray<Int32Type>>,
    pub(super) text: Option<&'a StringViewArray>,
}

impl<'a> Severity<'a> {
    pub(super) fn of(rows: &'a RecordBatch, detail: &Detail) -> Self {
        let is_wanted = detail.wants(DETECTED_LEVEL);
        let number = rows.column_by_name("severity_number").and_then(|own| own.as_primitive_opt());
        let text = Texts(rows).column("severity_text");
        Self { is_wanted, number: number.filter(|_| is_wanted), text: text.filter(|_| is_wanted) }
    }

    pub(super) fn number(&self, row: usize) -> Option<i32> {
        self.number.filter(|own| own.is_valid(row)).map(|own| own.value(row))
    }

    pub(super) fn level(&self, row: usize) -> &'static str {
        if self.is_wanted { detected_level(self.number(row), text_at(self.text, row)) } else { "" }
    }
}

/// The columns of records that become structured metadata, of each row its own.
pub(super) struct Records<'a> {
    attributes: Option<&'a StringViewArray>,
    scope: Option<&'a StringViewArray>,
    scope_name: Option<&'a StringViewArray>,
    texts: Vec<(&'static str, &'a StringViewArray)>,
    severity_number: Option<&'a PrimitiveArray<Int32Type>>,
    observed_time: Option<&'a PrimitiveArray<TimestampNanosecondType>>,
    counts: Vec<(&'static str, &'a UInt32Array)>,
}

impl<'a> Records<'a> {
    /// `None` where no row has anything of its own that is wanted.
    pub(super) fn of(rows: &'a RecordBatch, detail: &Detail) -> Option<Self> {
        if *detail == Detail::Streams {
            return None;
        }
        let texts = Texts(rows);
        let object = |name: &str| texts.column(name).filter(|own| own.iter().any(|text| text != Some("{}")));
        let mut records = Self {
            attributes: object("attributes"),
            scope: object("scope"),
            scope_name: texts.column("scope_name"),
            texts: Vec::new(),
            severity_number: None,
            observed_time: None,
            counts: Vec::new(),
        };
        for (label, name) in FIELDS.into_iter().filter(|(label, _)| detail.wants(label)) {
            let Some(column) = rows.column_by_name(name) else { continue };
            match label {
                "severity_number" => records.severity_number = column.as_primitive_opt(),
                "observed_timestamp" => records.observed_time = column.as_primitive_opt(),
                "flags" | "dropped_attributes_count" => {
                    records.counts.extend(column.as_primitive_opt::<UInt32Type>().map(|own| (label, own)));
                }
                _ => records.texts.extend(column.as_string_view_opt().map(|own| (label, own))),
            }
        }
        let has_fields = !records.texts.is_empty()
            || !records.counts.is_empty()
            || records.severity_number.is_some()
            || records.observed_time.is_some();
        (has_fields || records.attributes.is_some() || records.scope.is_some()).then_some(records)
    }

    /// Adds what a record has beside its stream's labels and metadata. Of equal names the record's own fields stand before its
    /// attributes, those before the scope's.
    pub(super) fn add(
        &self,
        row: usize,
        labels: &StreamLabels,
        detail: &Detail,
        metadata: &mut Metadata,
    ) -> Result<()> {
        let is_pushed = text_at(self.scope_name, row) == Some(PUSH_SCOPE);
        let mut put = |name: &str, text: &str| {
            // The level of an OTLP record is a field of its own, which the stream has.
            let is_level = !is_pushed && name == DETECTED_LEVEL;
            if !text.is_empty() && !is_level && detail.wants(name) {
                metadata.put(row, free_name(labels, name), text);
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
        Ok(())
    }

    fn add_fields(&self, row: usize, put: &mut dyn FnMut(&str, &str)) {
        for (name, column) in &self.texts {
            put(name, text_at(Some(column), row).unwrap_or_default());
        }
        if let Some(number) = self.severity_number.filter(|own| own.is_valid(row)) {
            put("severity_number", &number.value(row).to_string());
        }
        if let Some(observed) = self.observed_time.filter(|own| own.is_valid(row)) {
            put("observed_timestamp", &observed.value(row).to_string());
        }
        for (name, column) in self.counts.iter().filter(|(_, column)| column.is_valid(row)) {
            put(name, &column.value(row).to_string());
        }
    }
}

/// Columns of structured metadata while they grow.
#[derive(Default)]
pub(super) struct Metadata {
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

    pub(super) fn finish(self, rows: usize) -> Vec<(String, StringArray)> {
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

pub(super) fn read_object(text: &str) -> Result<Map<String, Value>> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text).map_err(|_| Error::Rows("attributes that are no JSON object"))
}
