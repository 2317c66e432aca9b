//! What a lookup reads of a row group, in as few requests as can be.
//!
//! A day index tells the row group that has a trace, and the bounds of its pages leave a page or two of each column. These lie apart by
//! the length of the columns, and to an object store a request costs as much as megabytes: what lies between is read as well.

use std::ops::Range;

use bytes::Bytes;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;

use super::blocks::RowSet;

/// Pages of a lookup are read in one request if that is no more than this.
pub(super) const TOGETHER_BYTES: u64 = 4 << 20;

/// Parts of an object that were read before they were asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ahead(Vec<(u64, Bytes)>);

impl Ahead {
    /// Parts with the places where they lie.
    pub(super) fn new(parts: impl IntoIterator<Item = (Range<u64>, Bytes)>) -> Self {
        let mut parts: Vec<(u64, Bytes)> = parts.into_iter().map(|(range, bytes)| (range.start, bytes)).collect();
        parts.sort_unstable_by_key(|(start, _)| *start);
        Self(parts)
    }

    /// The bytes of a range; `None` if they are not all there in one part.
    pub(super) fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        let at = self.0.partition_point(|(start, _)| *start <= range.start).checked_sub(1)?;
        let (start, bytes) = &self.0[at];
        let from = usize::try_from(range.start - start).ok()?;
        let until = usize::try_from(range.end - start).ok()?;
        (until <= bytes.len()).then(|| bytes.slice(from..until))
    }
}

/// Where the bytes of `leaves` lie that hold `rows` of a row group: pages with their dictionaries where page locations are known, else
/// whole columns.
pub(super) fn page_ranges(
    metadata: &ArrowReaderMetadata,
    group: usize,
    leaves: &[usize],
    rows: &RowSet,
) -> Vec<Range<u64>> {
    let metadata = metadata.metadata();
    let located = metadata.offset_index().and_then(|groups| groups.get(group));
    let mut ranges = Vec::new();
    for leaf in leaves {
        let (start, length) = metadata.row_group(group).column(*leaf).byte_range();
        let pages = located.and_then(|columns| columns.get(*leaf)).map(|pages| &pages.page_locations()[..]);
        let pages = match pages {
            Some(pages) if !pages.is_empty() => pages,
            _ => {
                ranges.push(start..start.saturating_add(length));
                continue;
            }
        };
        let place = |offset: i64| u64::try_from(offset).unwrap_or(start);
        let first = place(pages[0].offset);
        if start < first {
            ranges.push(start..first);
        }
        for (at, page) in pages.iter().enumerate() {
            let row = |row: i64| usize::try_from(row).unwrap_or(0);
            let until = pages.get(at + 1).map_or(usize::MAX, |next| row(next.first_row_index));
            if rows.has_any_of(row(page.first_row_index)..until) {
                let offset = place(page.offset);
                ranges.push(offset..offset.saturating_add(u64::try_from(page.compressed_page_size).unwrap_or(0)));
            }
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_in_one_part_is_given() {
        let ahead = Ahead::new([(100..110, Bytes::from_static(b"0123456789")), (20..23, Bytes::from_static(b"abc"))]);
        assert_eq!(ahead.get(&(102..105)).as_deref(), Some(&b"234"[..]));
        assert_eq!(ahead.get(&(20..23)).as_deref(), Some(&b"abc"[..]));
        for range in [0..5, 22..24, 108..111, 200..201] {
            assert_eq!(ahead.get(&range), None, "{range:?}");
        }
    }
}
