//! Attributes as columns: `attr('k')`, `resource('k')`, `scope('k')`, their types, and what is known of them.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use serde::Serialize;
use tidemill_segment::read::{AttributeScope, AttributeType, SegmentFooter, ValueType};

/// An attribute, by whose it is and its key as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct AttributeKey {
    /// Whose attribute.
    pub scope: AttributeScope,
    /// Its key.
    pub key: String,
}

impl AttributeKey {
    /// The column's name: the call that names it.
    pub fn column_name(&self) -> String {
        format!("{}('{}')", scope_function(self.scope), self.key.replace('\'', "''"))
    }
}

/// The SQL function that names attributes of a scope.
pub(crate) fn scope_function(scope: AttributeScope) -> &'static str {
    match scope {
        AttributeScope::Record => "attr",
        AttributeScope::Resource => "resource",
        AttributeScope::Scope => "scope",
    }
}

/// The scope that an SQL function names.
pub(crate) fn function_scope(name: &str) -> Option<AttributeScope> {
    AttributeScope::ALL.into_iter().find(|scope| scope_function(*scope).eq_ignore_ascii_case(name))
}

pub(crate) fn type_name(kind: AttributeType) -> &'static str {
    match kind {
        AttributeType::String => "text",
        AttributeType::Int => "int64",
        AttributeType::Double => "float64",
        AttributeType::Bool => "boolean",
    }
}

/// The column type of an attribute type.
pub(crate) fn logical_type(kind: AttributeType) -> DataType {
    match kind {
        AttributeType::String => DataType::Utf8View,
        AttributeType::Int => DataType::Int64,
        AttributeType::Double => DataType::Float64,
        AttributeType::Bool => DataType::Boolean,
    }
}

/// The narrowest type that shows values of both: the same, double for int and double, else text.
pub(crate) fn join_types(one: AttributeType, other: AttributeType) -> AttributeType {
    use AttributeType::{Double, Int, String};
    match (one, other) {
        (same, again) if same == again => same,
        (Int, Double) | (Double, Int) => Double,
        _ => String,
    }
}

/// The column type for values of one type.
fn shown_as(kind: ValueType) -> AttributeType {
    match kind {
        ValueType::Int => AttributeType::Int,
        ValueType::Double => AttributeType::Double,
        ValueType::Bool => AttributeType::Bool,
        ValueType::String | ValueType::Other => AttributeType::String,
    }
}

/// What is known of a segment set's attributes.
#[derive(Debug, Default)]
pub(crate) struct KnownAttributes {
    keys: BTreeMap<AttributeKey, KnownAttribute>,
    /// Some segment had too many keys to list them all.
    pub(crate) is_partial: bool,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct KnownAttribute {
    /// The type that shows all its values.
    pub(crate) kind: Option<AttributeType>,
    pub(crate) rows: u64,
    pub(crate) promoted_in: u64,
    pub(crate) overflow_in: u64,
}

impl KnownAttributes {
    pub(crate) fn add(&mut self, footer: &SegmentFooter) {
        self.is_partial |= footer.attributes_truncated;
        for entry in &footer.attributes {
            let known = self.keys.entry(AttributeKey { scope: entry.scope, key: entry.key.clone() }).or_default();
            let kinds = known.kind.into_iter().chain(entry.types.iter().map(|kind| shown_as(*kind)));
            known.kind = kinds.reduce(join_types);
            known.rows += entry.rows;
            known.promoted_in += u64::from(entry.column.is_some());
            known.overflow_in += u64::from(entry.overflows);
        }
    }

    pub(crate) fn get(&self, key: &AttributeKey) -> Option<&KnownAttribute> {
        self.keys.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&AttributeKey, &KnownAttribute)> {
        self.keys.iter()
    }

    /// At most three keys that `wanted` may have meant: another scope first, then other cases and spellings.
    pub(crate) fn nearest(&self, wanted: &AttributeKey) -> Vec<&AttributeKey> {
        let mut scored: Vec<(usize, &AttributeKey)> = self
            .keys
            .keys()
            .filter_map(|key| {
                let distance = if key.key == wanted.key { 0 } else { 1 + edit_distance(&key.key, &wanted.key) };
                (distance <= 1 + wanted.key.len() / 3).then_some((distance, key))
            })
            .collect();
        scored.sort();
        scored.into_iter().take(3).map(|(_, key)| key).collect()
    }
}

/// Levenshtein's distance over bytes, without regard to case and to `.`, `_`, `-`.
fn edit_distance(one: &str, other: &str) -> usize {
    let fold = |text: &str| -> Vec<u8> {
        let separator = |byte: &u8| if matches!(byte, b'_' | b'-') { b'.' } else { byte.to_ascii_lowercase() };
        text.as_bytes().iter().take(128).map(separator).collect()
    };
    let (one, other) = (fold(one), fold(other));
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, left) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in other.iter().enumerate() {
            let substituted = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

/// How many distinct values an attribute has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cardinality {
    /// About so many (HyperLogLog, within 2 %).
    About(u64),
    /// About so many in the newest segments; the older ones were not read.
    AtLeast(u64),
    /// Not counted.
    Unknown,
}

/// What is known of one attribute of a signal in a time range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttributeInfo {
    /// Whose attribute.
    pub scope: AttributeScope,
    /// Its key.
    pub key: String,
    /// The SQL expression that names it.
    pub expression: String,
    /// `text`, `int64`, `float64` or `boolean`, as a query over this range sees it.
    pub kind: String,
    /// Rows that have it.
    pub rows: u64,
    /// Segments in which it has a column of its own.
    pub promoted_in: u64,
    /// Segments in which (also) the overflow column holds it.
    pub overflow_in: u64,
    /// Distinct values.
    pub cardinality: Cardinality,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: &str) -> AttributeKey {
        AttributeKey { scope: AttributeScope::Record, key: key.to_owned() }
    }

    #[test]
    fn types_join_to_what_shows_both() {
        use AttributeType::{Bool, Double, Int, String};
        assert_eq!(join_types(Int, Int), Int);
        assert_eq!(join_types(Double, Int), Double);
        assert_eq!(join_types(Bool, Int), String);
    }

    #[test]
    fn a_misspelt_key_finds_its_neighbours() {
        let mut known = KnownAttributes::default();
        for name in ["http.status_code", "http.method", "db.system"] {
            known.keys.insert(key(name), KnownAttribute::default());
        }
        let resource = AttributeKey { scope: AttributeScope::Resource, key: "region".to_owned() };
        known.keys.insert(resource.clone(), KnownAttribute::default());
        assert_eq!(known.nearest(&key("http.statuscode")), [&key("http.status_code")]);
        assert_eq!(known.nearest(&key("region")), [&resource]);
        assert!(known.nearest(&key("zzz")).is_empty());
    }

    #[test]
    fn quotes_in_a_key_are_doubled() {
        assert_eq!(key("it's").column_name(), "attr('it''s')");
    }
}
