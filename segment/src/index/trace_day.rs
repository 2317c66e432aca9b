//! The day index of an organization's traces: from a trace id to the segments and row groups that hold its spans.
//!
//! One object per day: the sorted 64-bit prefixes of all trace ids, each with a segment and a row group, in blocks of [`BLOCK_ENTRIES`]; then
//! the segments' names, the fence pointers (first prefix and place of each block), and a trailer of [`TRAILER_BYTES`]. Whoever caches the tail
//! finds a trace with one read of a block. Prefixes may collide: readers compare whole ids.

use std::collections::HashMap;

use tidemill_types::ByteRange;

use super::wire::{Reader, check_of, corrupt, put_bytes, put_varint};
use crate::error::Result;

const MAGIC: &[u8; 4] = b"TMTD";
/// The version that this code writes, and the only one it reads.
pub const TRACE_DAY_VERSION: u8 = 1;
/// Entries of a block, about 20 KiB.
pub const BLOCK_ENTRIES: usize = 2048;
/// The tail's length (8 bytes), its check (8), the version (1) and `TMTD`.
pub const TRAILER_BYTES: usize = 21;
/// Memory of an entry of a [`TraceDayBuilder`].
pub const ENTRY_BYTES: usize = size_of::<(u64, TracePlace)>();
const SUBJECT: &str = "trace day index";

/// Where spans of a trace are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TracePlace {
    /// Place in [`TraceDayIndex::segments`].
    pub segment: u32,
    /// Row group of that segment.
    pub row_group: u32,
}

/// The 64 bits by which a trace id is sorted: its first eight bytes, big-endian.
pub fn trace_prefix(trace_id: &[u8; 16]) -> u64 {
    u64::from_be_bytes(trace_id[..8].try_into().expect("eight of sixteen bytes"))
}

/// Gathers the places of a day's traces.
#[derive(Debug, Default)]
pub struct TraceDayBuilder {
    segments: Vec<String>,
    ordinals: HashMap<String, u32>,
    entries: Vec<(u64, TracePlace)>,
}

impl TraceDayBuilder {
    /// Adds a trace that has spans in a row group of the segment stored under `object_key`. Repetitions do no harm.
    pub fn add(&mut self, trace_id: &[u8; 16], object_key: &str, row_group: u32) {
        let segment = match self.ordinals.get(object_key) {
            Some(ordinal) => *ordinal,
            None => {
                let ordinal = self.segments.len() as u32;
                self.segments.push(object_key.to_owned());
                self.ordinals.insert(object_key.to_owned(), ordinal);
                ordinal
            }
        };
        self.entries.push((trace_prefix(trace_id), TracePlace { segment, row_group }));
    }

    /// Entries held, [`ENTRY_BYTES`] each.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// The object's bytes.
    pub fn encode(mut self) -> Vec<u8> {
        self.entries.sort_unstable();
        self.entries.dedup();
        let mut out = Vec::new();
        let mut tail = Vec::new();
        put_varint(&mut tail, self.segments.len() as u64);
        for segment in &self.segments {
            put_bytes(&mut tail, segment.as_bytes());
        }
        let blocks = self.entries.chunks(BLOCK_ENTRIES);
        put_varint(&mut tail, blocks.len() as u64);
        for block in blocks {
            let mut body = Vec::new();
            let mut last = block[0].0;
            put_varint(&mut body, block.len() as u64);
            for (prefix, place) in block {
                put_varint(&mut body, prefix - last);
                put_varint(&mut body, u64::from(place.segment));
                put_varint(&mut body, u64::from(place.row_group));
                last = *prefix;
            }
            tail.extend_from_slice(&block[0].0.to_le_bytes());
            tail.extend_from_slice(&check_of(&body).to_le_bytes());
            put_varint(&mut tail, body.len() as u64);
            out.extend_from_slice(&body);
        }
        out.extend_from_slice(&tail);
        out.extend_from_slice(&(tail.len() as u64).to_le_bytes());
        out.extend_from_slice(&check_of(&tail).to_le_bytes());
        out.push(TRACE_DAY_VERSION);
        out.extend_from_slice(MAGIC);
        out
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fence {
    first: u64,
    check: u64,
    range: ByteRange,
}

/// The cached tail of a day index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceDayIndex {
    segments: Vec<String>,
    fences: Vec<Fence>,
}

impl TraceDayIndex {
    /// How many bytes before the trailer the tail takes, from the object's last [`TRAILER_BYTES`] bytes.
    ///
    /// # Errors
    /// When they are not a trailer of this version.
    pub fn tail_bytes(trailer: &[u8]) -> Result<u64> {
        let mut reader = Reader::new(SUBJECT, trailer);
        let length = reader.u64()?;
        reader.u64()?;
        let version = reader.byte()?;
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(corrupt(SUBJECT, "does not end in TMTD"));
        }
        if version != TRACE_DAY_VERSION {
            return Err(corrupt(SUBJECT, format!("version {version}; this build reads {TRACE_DAY_VERSION}")));
        }
        Ok(length)
    }

    /// Reads the end of the object, which must hold the tail and the trailer and may hold more before them.
    ///
    /// # Errors
    /// When it is not what was written.
    pub fn decode(end: &[u8]) -> Result<Self> {
        let trailer_at = end.len().checked_sub(TRAILER_BYTES).ok_or_else(|| corrupt(SUBJECT, "no trailer"))?;
        let length = Self::tail_bytes(&end[trailer_at..])?;
        let start = usize::try_from(length).ok().and_then(|length| trailer_at.checked_sub(length));
        let tail = &end[start.ok_or_else(|| corrupt(SUBJECT, "the tail was not read wholly"))?..trailer_at];
        if check_of(tail).to_le_bytes() != end[trailer_at + 8..trailer_at + 16] {
            return Err(corrupt(SUBJECT, "the check of the tail differs"));
        }
        let mut reader = Reader::new(SUBJECT, tail);
        let segments = (0..reader.count()?).map(|_| reader.text().map(str::to_owned)).collect::<Result<_>>()?;
        let mut offset = 0;
        let fences = (0..reader.count()?)
            .map(|_| {
                let (first, check) = (reader.u64()?, reader.u64()?);
                let len = reader.bounded("block length", u64::from(u32::MAX))?;
                let range = ByteRange { offset, len };
                offset += len;
                Ok(Fence { first, check, range })
            })
            .collect::<Result<_>>()?;
        Ok(Self { segments, fences })
    }

    /// Object keys of the segments, by [`TracePlace::segment`].
    pub fn segments(&self) -> &[String] {
        &self.segments
    }

    /// The ranges of the object that hold a trace's places: one block, two when its places cross a block's end, none when the day has
    /// no such trace.
    pub fn needed(&self, trace_id: &[u8; 16]) -> Vec<ByteRange> {
        self.fences_of(trace_prefix(trace_id)).iter().map(|fence| fence.range).collect()
    }

    /// The places of a trace, from the blocks of [`Self::needed`] in the same order.
    ///
    /// # Errors
    /// When a block is not what was written.
    pub fn places(&self, trace_id: &[u8; 16], blocks: &[&[u8]]) -> Result<Vec<TracePlace>> {
        let wanted = trace_prefix(trace_id);
        let fences = self.fences_of(wanted);
        if fences.len() != blocks.len() {
            return Err(corrupt(SUBJECT, format!("{} blocks given, {} needed", blocks.len(), fences.len())));
        }
        let mut places = Vec::new();
        for (fence, block) in fences.iter().zip(blocks) {
            if check_of(block) != fence.check {
                return Err(corrupt(SUBJECT, "the check of a block differs"));
            }
            let mut reader = Reader::new(SUBJECT, block);
            let mut prefix = fence.first;
            for _ in 0..reader.count()? {
                prefix = prefix.wrapping_add(reader.varint()?);
                let segment = reader.bounded("segment", (self.segments.len() as u64).saturating_sub(1))? as u32;
                let row_group = reader.bounded("row group", u64::from(u32::MAX))? as u32;
                if prefix == wanted {
                    places.push(TracePlace { segment, row_group });
                }
            }
        }
        Ok(places)
    }

    fn fences_of(&self, prefix: u64) -> &[Fence] {
        let end = self.fences.partition_point(|fence| fence.first <= prefix);
        // Equal prefixes may fill blocks: start at the last block whose first entry is smaller.
        let start = self.fences[..end].partition_point(|fence| fence.first < prefix).saturating_sub(1);
        &self.fences[start..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> [u8; 16] {
        let mut id = [7; 16];
        id[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        id
    }

    fn lookup(object: &[u8], trace: &[u8; 16]) -> Vec<(String, u32)> {
        let index = TraceDayIndex::decode(object).expect("reads");
        let ranges = index.needed(trace);
        let blocks: Vec<&[u8]> =
            ranges.iter().map(|range| &object[range.offset as usize..(range.offset + range.len) as usize]).collect();
        let places = index.places(trace, &blocks).expect("reads");
        places.iter().map(|place| (index.segments()[place.segment as usize].clone(), place.row_group)).collect()
    }

    #[test]
    fn every_trace_is_found_where_it_is() {
        let mut builder = TraceDayBuilder::default();
        for n in 0..10_000 {
            builder.add(&id(n), &format!("segment-{}", n % 3), (n % 5) as u32);
        }
        builder.add(&id(4), "segment-late", 9);
        let object = builder.encode();
        for n in [0, 1, 77, 9_999] {
            assert_eq!(lookup(&object, &id(n)), [(format!("segment-{}", n % 3), (n % 5) as u32)]);
        }
        assert_eq!(lookup(&object, &id(4)), [("segment-1".to_owned(), 4), ("segment-late".to_owned(), 9)]);
        assert_eq!(lookup(&object, &id(10_001)), []);
        assert!(TraceDayIndex::decode(&object).expect("reads").needed(&id(77)).len() == 1);
    }

    #[test]
    fn places_may_fill_blocks() {
        let mut builder = TraceDayBuilder::default();
        for group in 0..5_000 {
            builder.add(&id(1), "s", group);
        }
        builder.add(&id(2), "s", 0);
        let object = builder.encode();
        assert_eq!(lookup(&object, &id(1)).len(), 5_000);
    }

    /// The bytes of version 1 as they were first written; later builds must read them.
    #[test]
    fn version_1_is_still_read_and_written() {
        let mut builder = TraceDayBuilder::default();
        for n in 0..5 {
            builder.add(&id(n), &format!("segment-{}", n % 2), n as u32);
        }
        let object = builder.encode();
        let frozen = hex::decode(include_str!("../../tests/samples/trace-day-v1.hex").trim()).expect("hex");
        assert_eq!(object, frozen);
        assert_eq!(lookup(&frozen, &id(3)), [("segment-1".to_owned(), 3)]);
    }

    #[test]
    fn an_empty_day_and_damage() {
        let object = TraceDayBuilder::default().encode();
        assert_eq!(lookup(&object, &id(1)), []);
        let mut damaged = object.clone();
        damaged[0] ^= 1;
        assert!(TraceDayIndex::decode(&damaged).is_err());
        assert!(TraceDayIndex::decode(&object[1..]).is_err());
    }
}
