//! Resources and scopes of one partition: stored once, pointed at by the rows.

use ahash::RandomState;
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, UInt32Type};
use hashbrown::HashMap;

use super::attributes::AttributeColumns;
use super::columns::{NumberColumn, Placement, TextColumn};
use super::keys::Keys;
use crate::otlp::value::{AnyRef, Attribute};
use crate::otlp::{ResourceRow, ScopeRow};
use crate::schema::SERVICE_NAME_KEY;

/// Finds the entry of equal bytes.
#[derive(Debug, Default)]
struct Entries {
    by_bytes: HashMap<Box<[u8]>, u32, RandomState>,
    bytes: usize,
}

impl Entries {
    /// The entry of `key`, and whether it is new.
    fn entry(&mut self, key: &[u8]) -> (u32, bool) {
        if let Some(entry) = self.by_bytes.get(key) {
            return (*entry, false);
        }
        let entry = self.by_bytes.len() as u32;
        self.by_bytes.insert(key.into(), entry);
        self.bytes += key.len();
        (entry, true)
    }

    fn clear(&mut self) {
        self.by_bytes.clear();
        self.bytes = 0;
    }
}

/// The resources of the rows not yet written.
#[derive(Debug)]
pub(crate) struct ResourceTable {
    entries: Entries,
    service: TextColumn,
    schema_url: TextColumn,
    dropped: NumberColumn<UInt32Type>,
    pub attributes: AttributeColumns,
}

impl Default for ResourceTable {
    fn default() -> Self {
        Self {
            entries: Entries::default(),
            service: TextColumn::default(),
            schema_url: TextColumn::default(),
            dropped: NumberColumn::default(),
            attributes: AttributeColumns::of_table(),
        }
    }
}

/// The service of an entry, where the entry is new.
pub(crate) enum NewService<'a> {
    /// It is not new.
    Known,
    Named(&'a str),
    Nameless,
}

impl ResourceTable {
    /// The entry of `resource`; where it is new, the name of its service as well, if it has one.
    pub(crate) fn entry<'a>(
        &mut self,
        resource: &ResourceRow<'a>,
        identity: &[u8],
        keys: &mut Keys,
    ) -> (u32, NewService<'a>) {
        let (entry, is_new) = self.entries.entry(identity);
        if !is_new {
            return (entry, NewService::Known);
        }
        self.schema_url.push_some(entry, resource.schema_url);
        push_count(&mut self.dropped, entry, resource.dropped);
        let mut service = None;
        for (position, (key, value)) in resource.attributes.iter().enumerate() {
            let id = keys.number(position, key);
            match (value, id) {
                _ if *key != SERVICE_NAME_KEY => self.attributes.push(entry, id, key, *value),
                (AnyRef::String(name), Some(id)) if service.is_none() => {
                    service = Some(*name);
                    self.service.push(entry, name);
                    self.attributes.note_elsewhere(entry, id, *value);
                }
                // Its column is `service_name`; what that cannot hold must not get another one.
                _ => self.attributes.push_unpromoted(entry, id, key, *value),
            }
        }
        self.attributes.end_row(entry);
        (entry, service.map_or(NewService::Nameless, NewService::Named))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.by_bytes.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.entries.bytes
    }

    pub(crate) fn build_service(&mut self, placement: Placement<'_>) -> ArrayRef {
        self.service.build(placement)
    }

    pub(crate) fn build_schema_url(&mut self, placement: Placement<'_>) -> ArrayRef {
        self.schema_url.build(placement)
    }

    pub(crate) fn build_dropped(&self, placement: Placement<'_>) -> ArrayRef {
        self.dropped.build(placement, &DataType::UInt32)
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.service.clear();
        self.schema_url.clear();
        self.dropped.clear();
        self.attributes.clear();
    }
}

/// The instrumentation scopes of the rows not yet written.
#[derive(Debug)]
pub(crate) struct ScopeTable {
    entries: Entries,
    name: TextColumn,
    version: TextColumn,
    schema_url: TextColumn,
    dropped: NumberColumn<UInt32Type>,
    pub attributes: AttributeColumns,
}

impl Default for ScopeTable {
    fn default() -> Self {
        Self {
            entries: Entries::default(),
            name: TextColumn::default(),
            version: TextColumn::default(),
            schema_url: TextColumn::default(),
            dropped: NumberColumn::default(),
            attributes: AttributeColumns::of_table(),
        }
    }
}

impl ScopeTable {
    /// The entry of `scope`.
    pub(crate) fn entry(&mut self, scope: &ScopeRow<'_>, identity: &[u8], keys: &mut Keys) -> u32 {
        let (entry, is_new) = self.entries.entry(identity);
        if is_new {
            self.name.push_some(entry, scope.name);
            self.version.push_some(entry, scope.version);
            self.schema_url.push_some(entry, scope.schema_url);
            push_count(&mut self.dropped, entry, scope.dropped);
            push_attributes(&mut self.attributes, keys, entry, &scope.attributes);
        }
        entry
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.by_bytes.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.entries.bytes
    }

    /// Name, version and schema URL.
    pub(crate) fn build_texts(&mut self, placement: Placement<'_>) -> [ArrayRef; 3] {
        [&mut self.name, &mut self.version, &mut self.schema_url].map(|column| column.build(placement))
    }

    pub(crate) fn build_dropped(&self, placement: Placement<'_>) -> ArrayRef {
        self.dropped.build(placement, &DataType::UInt32)
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.name.clear();
        self.version.clear();
        self.schema_url.clear();
        self.dropped.clear();
        self.attributes.clear();
    }
}

/// Adds all attributes of one row.
#[inline]
pub(crate) fn push_attributes(columns: &mut AttributeColumns, keys: &mut Keys, row: u32, attributes: &[Attribute<'_>]) {
    for (position, (key, value)) in attributes.iter().enumerate() {
        columns.push(row, keys.number(position, key), key, *value);
    }
    columns.end_row(row);
}

/// Stores a count unless it is proto3's default.
#[inline]
pub(crate) fn push_count(column: &mut NumberColumn<UInt32Type>, row: u32, count: u32) {
    if count != 0 {
        column.push(row, count);
    }
}
