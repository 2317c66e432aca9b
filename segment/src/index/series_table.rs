//! The series of a metrics segment: what each is called, its labels, and which rows are its points.
//!
//! Rows are sorted by (name, series, time), so a series is one range of rows. Whoever evaluates a selector reads this table and then only times
//! and values. Layout: `TMSR`, version (1 byte), size of the body, the body compressed by zstd, and the check of all before (8 bytes). The body:
//! frames (what a metric and its scope say, six texts each), series in row order (id, frame, number of rows), then label pairs in order (scope,
//! key, value, the series that have it).

use std::collections::BTreeMap;
use std::ops::Range;

use super::wire::{Reader, corrupt, put_bytes, put_varint};
use super::zipped::{unzipped, zipped};
use crate::error::Result;
use crate::schema::AttributeScope;

const MAGIC: &[u8; 4] = b"TMSR";
/// The version that this code writes, and the only one it reads.
pub const SERIES_TABLE_VERSION: u8 = 1;
const SUBJECT: &str = "series table";

/// What a metric and its scope say of all their series; an empty text stands for none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct SeriesFrame {
    /// The metric's name.
    pub name: String,
    /// The metric's unit.
    pub unit: String,
    /// `gauge`, `sum`, `histogram`, `exponential_histogram` or `summary`; a sum that never falls is `monotonic_sum`.
    pub kind: String,
    /// `delta`, `cumulative` or nothing.
    pub temporality: String,
    /// The instrumentation scope's name.
    pub scope_name: String,
    /// The instrumentation scope's version.
    pub scope_version: String,
}

/// One series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesRows {
    /// The column `series` of its rows.
    pub id: [u8; 16],
    /// Place in [`SeriesTable::frames`].
    pub frame: u32,
    /// Its rows, counted from the file's first.
    pub rows: Range<u64>,
}

/// A label and the series that have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelPostings {
    /// Whose attribute.
    pub scope: AttributeScope,
    /// The attribute's key as it was sent.
    pub key: String,
    /// Its value as JSON, spelled as in the overflow columns.
    pub value: String,
    /// Places in [`SeriesTable::series`], ascending.
    pub series: Vec<u32>,
}

/// All series of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeriesTable {
    frames: Vec<SeriesFrame>,
    series: Vec<SeriesRows>,
    labels: Vec<LabelPostings>,
}

impl SeriesTable {
    /// What metrics and scopes say, each once.
    pub fn frames(&self) -> &[SeriesFrame] {
        &self.frames
    }

    /// The series in the order of their rows.
    pub fn series(&self) -> &[SeriesRows] {
        &self.series
    }

    /// Every label, by scope, key and value.
    pub fn labels(&self) -> &[LabelPostings] {
        &self.labels
    }

    /// The series that have a label, by their places.
    pub fn with_label(&self, scope: AttributeScope, key: &str, value: &str) -> &[u32] {
        let wanted = (scope, key, value);
        let found = self.labels.binary_search_by(|label| (label.scope, &*label.key, &*label.value).cmp(&wanted));
        found.map_or(&[], |place| &self.labels[place].series)
    }

    /// Reads a table: exactly the bytes of the footer's index part `series`.
    ///
    /// # Errors
    /// When they are not a table of version [`SERIES_TABLE_VERSION`], or not what was written.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        decode_body(&unzipped(SUBJECT, (MAGIC, SERIES_TABLE_VERSION), bytes)?)
    }
}

fn decode_body(body: &[u8]) -> Result<SeriesTable> {
    let mut reader = Reader::new(SUBJECT, body);
    let mut table = SeriesTable::default();
    for _ in 0..reader.count()? {
        let mut text = || reader.text().map(str::to_owned);
        table.frames.push(SeriesFrame {
            name: text()?,
            unit: text()?,
            kind: text()?,
            temporality: text()?,
            scope_name: text()?,
            scope_version: text()?,
        });
    }
    let mut start = 0_u64;
    for _ in 0..reader.count()? {
        let id = reader.take(16)?.try_into().expect("sixteen bytes were taken");
        let frame = reader.bounded("frame", (table.frames.len() as u64).saturating_sub(1))? as u32;
        let end = start.saturating_add(reader.varint()?);
        table.series.push(SeriesRows { id, frame, rows: start..end });
        start = end;
    }
    for _ in 0..reader.count()? {
        let scope = usize::from(reader.byte()?);
        let scope = *AttributeScope::ALL.get(scope).ok_or_else(|| corrupt(SUBJECT, format!("scope {scope}")))?;
        let (key, value) = (reader.text()?.to_owned(), reader.text()?.to_owned());
        let mut next = 0_u64;
        let mut series = Vec::new();
        for _ in 0..reader.count()? {
            let place = next.saturating_add(reader.varint()?);
            if place >= table.series.len() as u64 {
                return Err(corrupt(SUBJECT, format!("series {place} of {}", table.series.len())));
            }
            series.push(place as u32);
            next = place + 1;
        }
        table.labels.push(LabelPostings { scope, key, value, series });
    }
    Ok(table)
}

/// Gathers the series of a segment in the order of its rows.
#[derive(Debug, Default)]
pub struct SeriesTableBuilder {
    frames: Vec<SeriesFrame>,
    frame_places: BTreeMap<SeriesFrame, u32>,
    series: Vec<([u8; 16], u32, u64)>,
    labels: BTreeMap<(AttributeScope, String, String), Vec<u32>>,
}

impl SeriesTableBuilder {
    /// The series of the last rows.
    pub fn last(&self) -> Option<&[u8; 16]> {
        self.series.last().map(|(id, ..)| id)
    }

    /// Starts the next series; rows are counted by [`Self::add_row`].
    pub fn start_series(&mut self, id: [u8; 16], frame: SeriesFrame, labels: Vec<(AttributeScope, String, String)>) {
        let place = match self.frame_places.get(&frame) {
            Some(place) => *place,
            None => {
                let place = self.frames.len() as u32;
                self.frames.push(frame.clone());
                self.frame_places.insert(frame, place);
                place
            }
        };
        let ordinal = self.series.len() as u32;
        self.series.push((id, place, 0));
        for label in labels {
            let postings = self.labels.entry(label).or_default();
            if postings.last() != Some(&ordinal) {
                postings.push(ordinal);
            }
        }
    }

    /// Counts a row of the current series.
    pub fn add_row(&mut self) {
        if let Some((_, _, rows)) = self.series.last_mut() {
            *rows += 1;
        }
    }

    /// The table's bytes.
    ///
    /// # Errors
    /// When compression fails.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        put_varint(&mut body, self.frames.len() as u64);
        for frame in &self.frames {
            for text in
                [&frame.name, &frame.unit, &frame.kind, &frame.temporality, &frame.scope_name, &frame.scope_version]
            {
                put_bytes(&mut body, text.as_bytes());
            }
        }
        put_varint(&mut body, self.series.len() as u64);
        for (id, frame, rows) in &self.series {
            body.extend_from_slice(id);
            put_varint(&mut body, u64::from(*frame));
            put_varint(&mut body, *rows);
        }
        put_varint(&mut body, self.labels.len() as u64);
        for ((scope, key, value), series) in &self.labels {
            body.push(*scope as u8);
            put_bytes(&mut body, key.as_bytes());
            put_bytes(&mut body, value.as_bytes());
            put_varint(&mut body, series.len() as u64);
            let mut next = 0;
            for place in series {
                put_varint(&mut body, u64::from(*place - next));
                next = place + 1;
            }
        }
        zipped(SUBJECT, (MAGIC, SERIES_TABLE_VERSION), &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        let mut builder = SeriesTableBuilder::default();
        for series in 0..5_u8 {
            let frame = SeriesFrame {
                name: format!("metric-{}", series / 3),
                kind: "gauge".to_owned(),
                ..SeriesFrame::default()
            };
            let labels = vec![
                (AttributeScope::Resource, "pod".to_owned(), format!("\"pod-{series}\"")),
                (AttributeScope::Record, "even".to_owned(), (series % 2 == 0).to_string()),
            ];
            builder.start_series([series; 16], frame, labels);
            (0..=series).for_each(|_| builder.add_row());
        }
        builder.encode().expect("encodes")
    }

    /// The bytes of version 1 as they were first written; later builds must read them.
    #[test]
    fn version_1_is_still_read() {
        let frozen = hex::decode(include_str!("../../tests/samples/series-table-v1.hex").trim()).expect("hex");
        assert_eq!(SeriesTable::decode(&frozen).expect("reads"), SeriesTable::decode(&sample()).expect("reads"));
    }

    #[test]
    fn series_and_labels_are_found() {
        let table = SeriesTable::decode(&sample()).expect("reads");
        assert_eq!(table.series()[3].rows, 6..10);
        assert_eq!(table.frames()[table.series()[3].frame as usize].name, "metric-1");
        assert_eq!(table.with_label(AttributeScope::Record, "even", "true"), [0, 2, 4]);
        assert_eq!(table.with_label(AttributeScope::Resource, "pod", "\"pod-3\""), [3]);
        assert_eq!(table.with_label(AttributeScope::Resource, "pod", "\"pod-9\""), [0_u32; 0]);
    }

    proptest! {
        #[test]
        fn damage_is_refused(place in any::<proptest::sample::Index>(), bit in 0_u32..8) {
            let mut bytes = sample();
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            prop_assert!(SeriesTable::decode(&bytes).is_err());
        }

        #[test]
        fn any_body_is_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode_body(&body);
        }
    }
}
