//! Sets of row blocks, and the row ranges that they stand for.

use std::ops::Range;

/// Rows of a segment that must be read: sorted, disjoint, not adjacent, half-open ranges of row numbers counted from the file's first row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowBlocks {
    /// The ranges.
    pub ranges: Vec<Range<u64>>,
}

impl RowBlocks {
    /// The rows in it.
    pub fn rows(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether `row` is in it.
    pub fn contains(&self, row: u64) -> bool {
        let place = self.ranges.partition_point(|range| range.end <= row);
        self.ranges.get(place).is_some_and(|range| range.start <= row)
    }
}

/// One bit per row block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockSet {
    words: Vec<u64>,
    blocks: usize,
}

impl BlockSet {
    pub(crate) fn empty(blocks: usize) -> Self {
        Self { words: vec![0; blocks.div_ceil(64)], blocks }
    }

    pub(crate) fn full(blocks: usize) -> Self {
        let mut set = Self::empty(blocks);
        for block in 0..blocks {
            set.insert(block);
        }
        set
    }

    pub(crate) fn insert(&mut self, block: usize) {
        debug_assert!(block < self.blocks);
        self.words[block / 64] |= 1 << (block % 64);
    }

    pub(crate) fn contains(&self, block: usize) -> bool {
        block < self.blocks && self.words[block / 64] & (1 << (block % 64)) != 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    pub(crate) fn union(&mut self, other: &Self) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    pub(crate) fn intersect(&mut self, other: &Self) {
        for (word, only) in self.words.iter_mut().zip(&other.words) {
            *word &= only;
        }
    }

    /// The row ranges of the set's blocks, when block `i` has rows `starts[i]..starts[i + 1]`.
    pub(crate) fn row_blocks(&self, starts: &[u64]) -> RowBlocks {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for block in (0..self.blocks).filter(|block| self.contains(*block)) {
            let (start, end) = (starts[block], starts[block + 1]);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        RowBlocks { ranges }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_range() {
        let mut set = BlockSet::empty(4);
        for block in [0, 1, 3] {
            set.insert(block);
        }
        let rows = set.row_blocks(&[0, 10, 20, 30, 35]);
        assert_eq!(rows.ranges, [0..20, 30..35]);
        assert_eq!(rows.rows(), 25);
        assert!(rows.contains(19) && !rows.contains(20) && rows.contains(30) && !rows.contains(35));
    }
}
