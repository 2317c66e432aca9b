//! Which attribute keys get a column: the profile's list first, then the most frequent, at most 200 in a segment.

use super::attributes::AttributeColumns;
use super::keys::KeyId;
use super::partition::ScopeKeys;
use crate::footer::AttributeEntry;
use crate::schema::{
    AttributeScope, AttributeType, ColumnNames, PROMOTED_LIMIT, PromotedColumn, SERVICE_NAME_COLUMN, SERVICE_NAME_KEY,
};

/// The columns of a segment's attributes, decided when its first row group is written.
#[derive(Debug)]
pub(crate) struct Promotion {
    /// In the order of the schema: by scope, in the order of the slots that were kept.
    pub columns: Vec<PromotedColumn>,
    /// Columns whose values hardly repeat.
    pub distinct: Vec<String>,
}

/// Decides and tells the three sets of columns, which are in the order of `AttributeScope::ALL`.
pub(crate) fn choose_columns(sets: [&mut AttributeColumns; 3], keys: &ScopeKeys, promote: &[String]) -> Promotion {
    let mut candidates = Vec::new();
    for (scope, set) in sets.iter().enumerate() {
        for (slot, candidate) in set.slots().iter().enumerate() {
            let name = keys[scope].name(candidate.key);
            let listed = promote.iter().position(|key| key == name).unwrap_or(promote.len());
            let rows = set.seen(candidate.key).map_or(0, |seen| seen.rows);
            candidates.push((listed, std::cmp::Reverse(rows), scope, slot));
        }
    }
    candidates.sort_unstable();
    let mut keep: Vec<Vec<bool>> = sets.iter().map(|set| vec![false; set.slots().len()]).collect();
    for (_, _, scope, slot) in candidates.into_iter().take(PROMOTED_LIMIT) {
        keep[scope][slot] = true;
    }
    let mut promotion = Promotion { columns: Vec::new(), distinct: Vec::new() };
    let mut names = ColumnNames::default();
    for (place, set) in sets.into_iter().enumerate() {
        let scope = AttributeScope::ALL[place];
        set.freeze(&keep[place], |id: KeyId| keys[place].name(id).to_owned());
        for slot in set.slots() {
            let key = keys[place].name(slot.key).to_owned();
            let column = names.name(scope, &key);
            if slot.is_distinct() {
                promotion.distinct.push(column.clone());
            }
            promotion.columns.push(PromotedColumn { column, scope, key, kind: slot.kind() });
        }
    }
    promotion
}

/// The footer's list: promoted attributes in the order of their columns, then the others by frequency.
pub(crate) fn attribute_entries(
    promotion: &Promotion,
    sets: [&AttributeColumns; 3],
    keys: &ScopeKeys,
) -> Vec<AttributeEntry> {
    let mut entries = Vec::new();
    for (place, set) in sets.into_iter().enumerate() {
        let scope = AttributeScope::ALL[place];
        for id in 0..keys[place].len() as KeyId {
            let Some(seen) = set.seen(id) else { continue };
            let key = keys[place].name(id).to_owned();
            let column = promotion.columns.iter().find(|column| column.scope == scope && column.key == key);
            let is_service = scope == AttributeScope::Resource && key == SERVICE_NAME_KEY;
            let (column, kind) = match column {
                _ if is_service => (Some(SERVICE_NAME_COLUMN.to_owned()), Some(AttributeType::String)),
                Some(column) => (Some(column.column.clone()), Some(column.kind)),
                None => (None, None),
            };
            entries.push(AttributeEntry {
                scope,
                key,
                column,
                kind,
                types: seen.types(),
                rows: seen.rows,
                overflows: seen.overflows,
            });
        }
    }
    let place_of = |entry: &AttributeEntry| {
        let place = promotion.columns.iter().position(|column| Some(&column.column) == entry.column.as_ref());
        (entry.column.is_none(), place.map_or(0, |place| place + 1), std::cmp::Reverse(entry.rows))
    };
    entries.sort_by_cached_key(place_of);
    entries
}
