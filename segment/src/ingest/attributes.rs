//! The attribute columns of one scope in one partition: a column for each promoted key, JSON for the rest.

use std::collections::HashMap;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Float64Type, Int64Type};

use super::columns::{BoolColumn, NumberColumn, Placement, TextColumn};
use super::keys::KeyId;
use crate::footer::ValueType;
use crate::json::write_member;
use crate::otlp::value::AnyRef;
use crate::schema::{AttributeType, PROMOTED_KEY_BYTES};

/// Keys that may have a column of their own until the first row group decides which keep it.
const CANDIDATE_LIMIT: usize = 1_000;
const NO_SLOT: u32 = u32::MAX;

/// Values of one scope's attributes. A row is a record, or an entry of the resource or scope table.
#[derive(Debug, Default)]
pub(crate) struct AttributeColumns {
    slots: Vec<Slot>,
    /// By key number.
    slot_of: Vec<u32>,
    /// By key number.
    seen: Vec<KeySeen>,
    rest: TextColumn,
    /// The object of the current row, without its closing brace.
    open: Vec<u8>,
    /// Whether new keys may still get columns.
    frozen: bool,
    /// Key numbers by row, kept for tables whose rows stand for many records.
    occurrences: Option<Vec<(u32, KeyId)>>,
}

/// What is known of a key so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KeySeen {
    /// Records that have it.
    pub rows: u64,
    types: u8,
    /// Whether a value is in the overflow column.
    pub overflows: bool,
}

impl KeySeen {
    /// The types that occurred.
    pub(crate) fn types(self) -> Vec<ValueType> {
        [ValueType::String, ValueType::Int, ValueType::Double, ValueType::Bool, ValueType::Other]
            .into_iter()
            .filter(|kind| self.types & (1 << *kind as u8) != 0)
            .collect()
    }
}

/// The column of one key.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Which key.
    pub key: KeyId,
    values: SlotValues,
}

#[derive(Debug)]
enum SlotValues {
    String(TextColumn),
    Int(NumberColumn<Int64Type>),
    Double(NumberColumn<Float64Type>),
    Bool(BoolColumn),
}

impl AttributeColumns {
    /// Columns of a table whose rows each stand for many records.
    pub(crate) fn of_table() -> Self {
        Self { occurrences: Some(Vec::new()), ..Self::default() }
    }

    /// Adds one attribute of `row`; rows only grow.
    #[inline]
    pub(crate) fn push(&mut self, row: u32, id: Option<KeyId>, key: &str, value: AnyRef<'_>) {
        let Some(id) = id else { return self.push_rest(key, value) };
        let place = id as usize;
        if place >= self.seen.len() {
            self.seen.resize(place + 1, KeySeen::default());
            self.slot_of.resize(place + 1, NO_SLOT);
        }
        let seen = &mut self.seen[place];
        seen.types |= 1 << value_type(value) as u8;
        match &mut self.occurrences {
            None => seen.rows += 1,
            Some(occurrences) => occurrences.push((row, id)),
        }
        let mut slot = self.slot_of[place];
        if slot == NO_SLOT {
            slot = self.open_slot(id, key, value);
        }
        if slot == NO_SLOT || !self.slots[slot as usize].push(row, value) {
            self.seen[place].overflows = true;
            self.push_rest(key, value);
        }
    }

    /// Ends the attributes of `row`.
    #[inline]
    pub(crate) fn end_row(&mut self, row: u32) {
        if !self.open.is_empty() {
            self.open.push(b'}');
            let open = std::mem::take(&mut self.open);
            self.rest.push_written(row, |out| out.extend_from_slice(&open));
            self.open = open;
            self.open.clear();
        }
    }

    /// Adds one attribute of `row` to the overflow column, whatever its type.
    pub(crate) fn push_unpromoted(&mut self, row: u32, id: Option<KeyId>, key: &str, value: AnyRef<'_>) {
        if let Some(id) = id {
            self.note_elsewhere(row, id, value);
            self.seen[id as usize].overflows = true;
        }
        self.push_rest(key, value);
    }

    /// Counts that key number `id` stands in a column outside of this set, once for each of `rows`.
    pub(crate) fn note_elsewhere(&mut self, row: u32, id: KeyId, value: AnyRef<'_>) {
        let place = id as usize;
        if place >= self.seen.len() {
            self.seen.resize(place + 1, KeySeen::default());
            self.slot_of.resize(place + 1, NO_SLOT);
        }
        self.seen[place].types |= 1 << value_type(value) as u8;
        if let Some(occurrences) = &mut self.occurrences {
            occurrences.push((row, id));
        }
    }

    /// The columns so far, in order of appearance.
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The arrays of the columns, in their order.
    pub(crate) fn build_slots(&mut self, placement: Placement<'_>, out: &mut Vec<ArrayRef>) {
        out.extend(self.slots.iter_mut().map(|slot| slot.build(placement)));
    }

    /// What is known of key number `id`.
    pub(crate) fn seen(&self, id: KeyId) -> Option<KeySeen> {
        self.seen.get(id as usize).copied().filter(|seen| seen.types != 0)
    }

    /// For a table: counts the records behind each row into the keys' statistics.
    pub(crate) fn weigh(&mut self, records_of_row: &[u64]) {
        if let Some(occurrences) = &mut self.occurrences {
            for (row, id) in occurrences.drain(..) {
                self.seen[id as usize].rows += records_of_row[row as usize];
            }
        }
    }

    /// Keeps the columns for which `keep` (by slot) is true and moves the others' values to the overflow column; from now on no key gets
    /// a new column.
    pub(crate) fn freeze(&mut self, keep: &[bool], name: impl Fn(KeyId) -> String) {
        self.frozen = true;
        let mut moved: HashMap<u32, Vec<u8>> = HashMap::new();
        let slots = std::mem::take(&mut self.slots);
        for (slot, keep) in slots.into_iter().zip(keep) {
            let place = slot.key as usize;
            if *keep {
                self.slot_of[place] = self.slots.len() as u32;
                self.slots.push(slot);
                continue;
            }
            self.slot_of[place] = NO_SLOT;
            self.seen[place].overflows = true;
            let key = name(slot.key);
            slot.for_each(|row, value| {
                let object = moved.entry(row).or_default();
                object.push(if object.is_empty() { b'{' } else { b',' });
                write_member(object, &key, value);
            });
        }
        if !moved.is_empty() {
            self.merge_into_rest(moved);
        }
    }

    fn merge_into_rest(&mut self, mut moved: HashMap<u32, Vec<u8>>) {
        let old = std::mem::take(&mut self.rest);
        for (place, row) in old.rows().iter().enumerate() {
            let object = moved.entry(*row).or_default();
            object.push(if object.is_empty() { b'{' } else { b',' });
            let text = old.value(place);
            object.extend_from_slice(&text[1..text.len() - 1]);
        }
        let mut rows: Vec<(u32, Vec<u8>)> = moved.into_iter().collect();
        rows.sort_unstable_by_key(|(row, _)| *row);
        for (row, object) in rows {
            self.rest.push_written(row, |out| {
                out.extend_from_slice(&object);
                out.push(b'}');
            });
        }
    }

    /// The array of the overflow column.
    pub(crate) fn build_rest(&mut self, placement: Placement<'_>) -> ArrayRef {
        self.rest.build_long(placement)
    }

    /// Forgets all rows, keeping columns and statistics.
    pub(crate) fn clear(&mut self) {
        self.rest.clear();
        for slot in &mut self.slots {
            slot.clear();
        }
    }

    #[inline(never)]
    fn open_slot(&mut self, id: KeyId, key: &str, value: AnyRef<'_>) -> u32 {
        if self.frozen || self.slots.len() >= CANDIDATE_LIMIT || key.is_empty() || key.len() > PROMOTED_KEY_BYTES {
            return NO_SLOT;
        }
        let values = match value {
            AnyRef::String(_) => SlotValues::String(TextColumn::default()),
            AnyRef::Int(_) => SlotValues::Int(NumberColumn::default()),
            AnyRef::Double(_) => SlotValues::Double(NumberColumn::default()),
            AnyRef::Bool(_) => SlotValues::Bool(BoolColumn::default()),
            _ => return NO_SLOT,
        };
        let slot = self.slots.len() as u32;
        self.slots.push(Slot { key: id, values });
        self.slot_of[id as usize] = slot;
        slot
    }

    #[inline]
    fn push_rest(&mut self, key: &str, value: AnyRef<'_>) {
        self.open.push(if self.open.is_empty() { b'{' } else { b',' });
        write_member(&mut self.open, key, value);
    }
}

impl Slot {
    /// The type of the column.
    pub(crate) fn kind(&self) -> AttributeType {
        match self.values {
            SlotValues::String(_) => AttributeType::String,
            SlotValues::Int(_) => AttributeType::Int,
            SlotValues::Double(_) => AttributeType::Double,
            SlotValues::Bool(_) => AttributeType::Bool,
        }
    }

    /// Whether its values hardly repeat, so that a dictionary would only cost.
    pub(crate) fn is_distinct(&self) -> bool {
        match &self.values {
            SlotValues::String(text) => {
                let sample = text.rows().len().min(1_024);
                let distinct: std::collections::HashSet<&[u8]> = (0..sample).map(|place| text.value(place)).collect();
                sample >= 64 && distinct.len() * 10 > sample * 8
            }
            _ => false,
        }
    }

    /// Adds `value` when it is of the column's type and the first of its row.
    #[inline]
    fn push(&mut self, row: u32, value: AnyRef<'_>) -> bool {
        match (&mut self.values, value) {
            (SlotValues::String(column), AnyRef::String(text)) if column.rows().last() != Some(&row) => {
                column.push(row, text)
            }
            (SlotValues::Int(column), AnyRef::Int(number)) if column.rows().last() != Some(&row) => {
                column.push(row, number)
            }
            (SlotValues::Double(column), AnyRef::Double(number)) if column.rows().last() != Some(&row) => {
                column.push(row, number)
            }
            (SlotValues::Bool(column), AnyRef::Bool(flag)) if column.rows().last() != Some(&row) => {
                column.push(row, flag)
            }
            _ => return false,
        }
        true
    }

    /// The column's array.
    fn build(&mut self, placement: Placement<'_>) -> ArrayRef {
        match &mut self.values {
            SlotValues::String(column) => column.build(placement),
            SlotValues::Int(column) => column.build(placement, &DataType::Int64),
            SlotValues::Double(column) => column.build(placement, &DataType::Float64),
            SlotValues::Bool(column) => column.build(placement),
        }
    }

    fn for_each(&self, mut visit: impl FnMut(u32, AnyRef<'_>)) {
        match &self.values {
            SlotValues::String(column) => {
                for (place, row) in column.rows().iter().enumerate() {
                    let text = std::str::from_utf8(column.value(place)).expect("only text is pushed");
                    visit(*row, AnyRef::String(text));
                }
            }
            SlotValues::Int(column) => {
                column.rows().iter().enumerate().for_each(|(place, row)| visit(*row, AnyRef::Int(column.value(place))));
            }
            SlotValues::Double(column) => {
                column
                    .rows()
                    .iter()
                    .enumerate()
                    .for_each(|(place, row)| visit(*row, AnyRef::Double(column.value(place))));
            }
            SlotValues::Bool(column) => {
                column
                    .rows()
                    .iter()
                    .enumerate()
                    .for_each(|(place, row)| visit(*row, AnyRef::Bool(column.value(place))));
            }
        }
    }

    fn clear(&mut self) {
        match &mut self.values {
            SlotValues::String(column) => column.clear(),
            SlotValues::Int(column) => column.clear(),
            SlotValues::Double(column) => column.clear(),
            SlotValues::Bool(column) => column.clear(),
        }
    }
}

fn value_type(value: AnyRef<'_>) -> ValueType {
    match value {
        AnyRef::String(_) => ValueType::String,
        AnyRef::Int(_) => ValueType::Int,
        AnyRef::Double(_) => ValueType::Double,
        AnyRef::Bool(_) => ValueType::Bool,
        _ => ValueType::Other,
    }
}
