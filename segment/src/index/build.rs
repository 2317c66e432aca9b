//! Building an index while the rows of a segment are written.
//!
//! Terms gather in one table per part; a part ends when the table reaches the memory limit, so memory is bounded however many distinct
//! terms a segment has. Only encoded parts, about a tenth of the segment, are kept.

use hashbrown::HashTable;
use smallvec::SmallVec;
use tidemill_text::tokens;

use super::directory::{IndexDirectory, IndexMode, IndexedColumn, Part, Section};
use super::filter_keys::{BlockShape, is_filterable, token_keys, whole_key};
use super::hash_pages::encode_pages;
use super::postings::put_postings;
use super::wire::check_of;
use crate::error::Result;
use crate::index::wire::corrupt;

/// A term in more blocks than this goes to the FST.
const RARE_BLOCKS: usize = 8;
/// A longer value is known to filters only, however often it occurs.
pub(crate) const LONGEST_FST_VALUE: usize = 128;
/// The table of a part may use this much memory.
const PART_MEMORY_BYTES: usize = 64 << 20;
/// The most blocks of a part: blocks are numbered by 16 bits.
const PART_BLOCKS: usize = 1 << 15;

/// An encoded index: the directory, and the sections that follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedIndex {
    /// To be written first.
    pub directory: Vec<u8>,
    /// To be written right after the directory.
    pub sections: Vec<u8>,
}

/// Collects the terms of each row block.
#[derive(Debug)]
pub struct IndexBuilder {
    columns: Vec<IndexedColumn>,
    starts: Vec<u64>,
    parts: Vec<Part>,
    sections: Vec<u8>,
    terms: Terms,
    is_cut: Vec<bool>,
    previous: PreviousText,
    memory_limit_bytes: usize,
}

impl IndexBuilder {
    /// An index of these columns, without blocks.
    pub fn new(columns: Vec<IndexedColumn>) -> Self {
        Self {
            columns,
            starts: vec![0],
            parts: Vec::new(),
            sections: Vec::new(),
            terms: Terms::default(),
            is_cut: Vec::new(),
            previous: PreviousText::default(),
            memory_limit_bytes: PART_MEMORY_BYTES,
        }
    }

    /// The same with another limit for the table of terms.
    #[must_use]
    pub fn with_memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit_bytes = bytes;
        self
    }

    /// The place of a column, for the `add_` functions.
    pub fn ordinal(&self, name: &str, mode: IndexMode) -> Option<u16> {
        self.columns.iter().position(|column| column.name == name && column.mode == mode).map(|place| place as u16)
    }

    /// Starts the next block, of `rows` rows; what is added from now on occurs in it.
    ///
    /// # Errors
    /// When a finished part cannot be encoded.
    pub fn start_block(&mut self, rows: u64) -> Result<()> {
        if self.terms.memory_bytes() > self.memory_limit_bytes || self.is_cut.len() == PART_BLOCKS {
            self.end_part()?;
        }
        self.starts.push(self.starts[self.starts.len() - 1] + rows);
        self.is_cut.push(false);
        Ok(())
    }

    /// Adds the tokens of a text of the current block.
    pub fn add_text(&mut self, column: u16, text: &str) {
        let block = (self.is_cut.len() - 1) as u16;
        let previous = &mut self.previous;
        let is_known = previous.column == column && previous.block == Some(self.starts.len());
        for (place, token) in tokens(text).enumerate() {
            // Neighbours are often written by one statement: most of their tokens stand at the same places and are in the table already.
            if !is_known || previous.token(place) != Some(token.text.as_bytes()) {
                self.terms.add(column, token.text.as_bytes(), block);
            }
            if token.is_cut {
                self.is_cut[usize::from(block)] = true;
            }
            let start = token.text.as_ptr() as usize - text.as_ptr() as usize;
            previous.next_spans.push((start, start + token.text.len()));
        }
        previous.replace(column, self.starts.len(), text);
    }

    /// Adds a value of the current block.
    pub fn add_value(&mut self, column: u16, value: &[u8]) {
        let block = (self.is_cut.len() - 1) as u16;
        self.terms.add(column, value, block);
    }

    /// Memory in use: the table of the current part and all encoded parts.
    pub fn memory_bytes(&self) -> usize {
        self.terms.memory_bytes() + self.sections.capacity()
    }

    /// Ends the index.
    ///
    /// # Errors
    /// When the last part cannot be encoded.
    pub fn finish(mut self) -> Result<EncodedIndex> {
        if !self.is_cut.is_empty() {
            self.end_part()?;
        }
        let directory =
            IndexDirectory { columns: self.columns, starts: self.starts, parts: self.parts, encoded_bytes: 0 };
        Ok(EncodedIndex { directory: directory.encode(), sections: self.sections })
    }

    fn end_part(&mut self) -> Result<()> {
        let terms = std::mem::take(&mut self.terms);
        let is_cut = std::mem::take(&mut self.is_cut);
        let blocks = is_cut.len();
        let mut shapes: Vec<BlockShape> =
            is_cut.into_iter().map(|is_cut| BlockShape { is_cut, ..BlockShape::default() }).collect();
        let mut pairs = Vec::new();
        let mut frequent = Vec::new();
        for entry in terms.table.iter() {
            let text = terms.text(entry);
            let is_token = self.columns[usize::from(entry.column)].mode == IndexMode::Tokens;
            let is_rare = entry.blocks.len() <= RARE_BLOCKS;
            if is_token && is_rare && is_filterable(text) {
                let keys = token_keys(entry.column, text);
                for block in &entry.blocks {
                    shapes[usize::from(*block)].add(text);
                    pairs.extend(keys.iter().map(|key| (*key, *block)));
                }
            } else if !is_token && (is_rare || text.len() > LONGEST_FST_VALUE) {
                let key = whole_key(entry.column, text);
                pairs.extend(entry.blocks.iter().map(|block| (key, *block)));
            } else {
                frequent.push(entry);
            }
        }
        frequent.sort_unstable_by_key(|entry| (entry.column, terms.text(entry)));
        let (fst, postings) = encode_frequent(&terms, &frequent, blocks)?;
        drop(frequent);
        drop(terms);
        let (table, pages) = encode_pages(pairs, blocks);
        let first_block = self.starts.len() - 1 - blocks;
        let fst = self.push_section(&fst);
        let postings = self.push_section(&postings);
        let pages_offset = self.sections.len() as u64;
        self.sections.extend_from_slice(&pages);
        self.parts.push(Part { first_block, fst, postings, pages: table, pages_offset, shapes });
        Ok(())
    }

    fn push_section(&mut self, bytes: &[u8]) -> Section {
        let section = Section { offset: self.sections.len() as u64, len: bytes.len() as u64, check: check_of(bytes) };
        self.sections.extend_from_slice(bytes);
        section
    }
}

/// The FST of (column, term) to offset in the postings, and the postings.
fn encode_frequent(terms: &Terms, frequent: &[&Entry], blocks: usize) -> Result<(Vec<u8>, Vec<u8>)> {
    let failed = |error: fst::Error| corrupt("index terms", error.to_string());
    let mut builder = fst::MapBuilder::memory();
    let mut postings = Vec::new();
    let mut key = Vec::new();
    for entry in frequent {
        key.clear();
        key.extend_from_slice(&entry.column.to_be_bytes());
        key.extend_from_slice(terms.text(entry));
        builder.insert(&key, postings.len() as u64).map_err(failed)?;
        put_postings(&mut postings, &entry.blocks, blocks);
    }
    Ok((builder.into_inner().map_err(failed)?, postings))
}

/// The text added last, and where its tokens are.
#[derive(Debug, Default)]
struct PreviousText {
    column: u16,
    /// Which block it was in.
    block: Option<usize>,
    text: Vec<u8>,
    spans: Vec<(usize, usize)>,
    next_spans: Vec<(usize, usize)>,
}

impl PreviousText {
    fn token(&self, place: usize) -> Option<&[u8]> {
        self.spans.get(place).map(|(start, end)| &self.text[*start..*end])
    }

    fn replace(&mut self, column: u16, block: usize, text: &str) {
        self.column = column;
        self.block = Some(block);
        self.text.clear();
        self.text.extend_from_slice(text.as_bytes());
        std::mem::swap(&mut self.spans, &mut self.next_spans);
        self.next_spans.clear();
    }
}

/// The distinct terms of a part and the blocks that have each.
#[derive(Debug, Default)]
struct Terms {
    table: HashTable<Entry>,
    arena: Vec<u8>,
    spilled: usize,
    hasher: ahash::RandomState,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    start: usize,
    length: u32,
    column: u16,
    /// Ascending.
    blocks: SmallVec<[u16; 4]>,
}

impl Terms {
    fn text(&self, entry: &Entry) -> &[u8] {
        text_of(&self.arena, entry)
    }

    fn add(&mut self, column: u16, term: &[u8], block: u16) {
        let hash = self.hasher.hash_one((column, term));
        let arena = &self.arena;
        let is_same = |entry: &Entry| entry.hash == hash && entry.column == column && text_of(arena, entry) == term;
        let found = self.table.find_mut(hash, is_same);
        if let Some(entry) = found {
            if entry.blocks.last() != Some(&block) {
                let before = entry.blocks.capacity();
                entry.blocks.push(block);
                self.spilled += 2 * (entry.blocks.capacity() - before);
            }
            return;
        }
        let start = self.arena.len();
        self.arena.extend_from_slice(term);
        let entry = Entry { hash, start, length: term.len() as u32, column, blocks: SmallVec::from_slice(&[block]) };
        self.table.insert_unique(hash, entry, |entry| entry.hash);
    }

    fn memory_bytes(&self) -> usize {
        self.table.capacity() * (size_of::<Entry>() + 1) + self.arena.capacity() + self.spilled
    }
}

fn text_of<'a>(arena: &'a [u8], entry: &Entry) -> &'a [u8] {
    &arena[entry.start..entry.start + entry.length as usize]
}
