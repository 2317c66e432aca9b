//! Looking conditions up: which row blocks may hold a row that meets them.
//!
//! The answer is a superset by construction; rows are always rechecked by the reader. `None` means that the index says nothing.

use std::collections::BTreeSet;

use bytes::Bytes;
use fst::{IntoStreamer, Map, Streamer};
use memchr::memmem;
use tidemill_text::{Piece, literal_pieces};
use tidemill_types::ByteRange;

use super::build::LONGEST_FST_VALUE;
use super::directory::{IndexDirectory, IndexMode, Part, Section};
use super::filter_keys::{TokenClass, gram_keys, is_filterable, token_keys, whole_key};
use super::postings::read_postings;
use super::row_blocks::{BlockSet, RowBlocks};
use super::wire::{check_of, corrupt};
use crate::error::Result;

/// What rows are wanted. Case matters everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Condition {
    /// The text of `column` contains `literal`, as in `LIKE '%literal%'` and LogQL's `|=`.
    Substring {
        /// The physical column.
        column: String,
        /// What must occur.
        literal: String,
    },
    /// The text of `column` has all these tokens, each whole.
    AllTokens {
        /// The physical column.
        column: String,
        /// Runs of letters and digits.
        tokens: Vec<String>,
    },
    /// The value of `column` is exactly this.
    Equals {
        /// The physical column.
        column: String,
        /// Its bytes: UTF-8 for texts, raw bytes for trace and span ids.
        value: Vec<u8>,
    },
    /// All of them hold.
    All(Vec<Condition>),
    /// At least one of them holds.
    Any(Vec<Condition>),
}

/// Parts of an index that have been read, by their place relative to its start.
pub trait IndexBytes {
    /// The bytes of `range`.
    ///
    /// # Errors
    /// When they have not been read.
    fn section(&self, range: ByteRange) -> Result<&[u8]>;
}

impl Condition {
    /// About how much memory it takes.
    pub fn memory_bytes(&self) -> usize {
        let inside = match self {
            Self::Substring { column, literal } => column.len() + literal.len(),
            Self::AllTokens { column, tokens } => {
                column.len() + tokens.iter().map(|token| token.len() + size_of::<String>()).sum::<usize>()
            }
            Self::Equals { column, value } => column.len() + value.len(),
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::memory_bytes).sum(),
        };
        size_of::<Self>() + inside
    }
}

impl IndexBytes for [u8] {
    fn section(&self, range: ByteRange) -> Result<&[u8]> {
        let start = usize::try_from(range.offset).ok();
        let end = start.and_then(|start| start.checked_add(usize::try_from(range.len).ok()?));
        start
            .zip(end)
            .and_then(|(start, end)| self.get(start..end))
            .ok_or_else(|| corrupt("index", format!("{range:?} is beyond its {} bytes", self.len())))
    }
}

impl IndexBytes for [(ByteRange, Bytes)] {
    fn section(&self, range: ByteRange) -> Result<&[u8]> {
        let holder = self.iter().find(|(held, _)| {
            held.offset <= range.offset && range.offset.saturating_add(range.len) <= held.offset + held.len
        });
        let (held, bytes) = holder.ok_or_else(|| corrupt("index", format!("{range:?} was not fetched")))?;
        bytes.as_ref().section(ByteRange { offset: range.offset - held.offset, len: range.len })
    }
}

/// A whole index in memory.
#[derive(Debug, Clone)]
pub struct TokenIndex {
    directory: IndexDirectory,
    bytes: Bytes,
}

impl TokenIndex {
    /// Reads the bytes of a segment's index range.
    ///
    /// # Errors
    /// When the directory is not what was written.
    pub fn open(bytes: Bytes) -> Result<Self> {
        Ok(Self { directory: IndexDirectory::decode(&bytes)?, bytes })
    }

    /// Its directory.
    pub fn directory(&self) -> &IndexDirectory {
        &self.directory
    }

    /// The rows that may meet `condition`; `None` when the index cannot tell.
    ///
    /// # Errors
    /// When a section is not what was written.
    pub fn select(&self, condition: &Condition) -> Result<Option<RowBlocks>> {
        self.directory.select(condition, self.bytes.as_ref())
    }
}

impl IndexDirectory {
    /// The ranges, relative to the start of the index, that [`Self::select`] reads for `condition`; sorted, disjoint.
    pub fn needed(&self, condition: &Condition) -> Vec<ByteRange> {
        let mut places = BTreeSet::new();
        self.collect_needed(condition, &mut places);
        let mut ranges: Vec<ByteRange> = Vec::new();
        for (offset, len) in places {
            match ranges.last_mut() {
                Some(last) if offset <= last.offset + last.len => last.len = last.len.max(offset + len - last.offset),
                _ => ranges.push(ByteRange { offset, len }),
            }
        }
        ranges
    }

    /// The rows that may meet `condition`, from bytes that hold all [`Self::needed`] ranges; `None` when the index cannot tell.
    ///
    /// # Errors
    /// When a section is missing or not what was written.
    pub fn select<B: IndexBytes + ?Sized>(&self, condition: &Condition, bytes: &B) -> Result<Option<RowBlocks>> {
        Ok(self.blocks_of(condition, bytes)?.map(|set| set.row_blocks(&self.starts)))
    }

    fn collect_needed(&self, condition: &Condition, places: &mut BTreeSet<(u64, u64)>) {
        match condition {
            Condition::All(conditions) | Condition::Any(conditions) => {
                conditions.iter().for_each(|condition| self.collect_needed(condition, places));
            }
            simple => {
                let Some(probes) = self.probes(simple) else { return };
                for part in &self.parts {
                    for section in [part.fst, part.postings] {
                        let range = self.range_of(section);
                        places.insert((range.offset, range.len));
                    }
                    for key in probes.iter().flat_map(Probe::keys) {
                        if let Some(range) = self.page_range(part, key) {
                            places.insert((range.offset, range.len));
                        }
                    }
                }
            }
        }
    }

    fn blocks_of<B: IndexBytes + ?Sized>(&self, condition: &Condition, bytes: &B) -> Result<Option<BlockSet>> {
        match condition {
            Condition::All(conditions) => {
                let mut all: Option<BlockSet> = None;
                for condition in conditions {
                    if let Some(set) = self.blocks_of(condition, bytes)? {
                        match &mut all {
                            Some(all) => all.intersect(&set),
                            None => all = Some(set),
                        }
                    }
                }
                Ok(all)
            }
            Condition::Any(conditions) => {
                let mut any = BlockSet::empty(self.blocks());
                for condition in conditions {
                    match self.blocks_of(condition, bytes)? {
                        Some(set) => any.union(&set),
                        None => return Ok(None),
                    }
                }
                Ok(Some(any))
            }
            simple => {
                let Some(probes) = self.probes(simple) else { return Ok(None) };
                let mut all = BlockSet::empty(self.blocks());
                for part in &self.parts {
                    let found = PartLookup { directory: self, part, bytes }.blocks(&probes)?;
                    for block in (0..part.shapes.len()).filter(|block| found.contains(*block)) {
                        all.insert(part.first_block + block);
                    }
                }
                Ok(Some(all))
            }
        }
    }

    /// What must all hold of a block; `None` when the index knows nothing of the column or the condition says nothing.
    fn probes(&self, condition: &Condition) -> Option<Vec<Probe>> {
        let probes: Vec<Probe> = match condition {
            Condition::Substring { column, literal } => {
                let column = self.ordinal(column, IndexMode::Tokens)?;
                literal_pieces(literal).into_iter().map(|piece| Probe::from_piece(column, piece)).collect()
            }
            Condition::AllTokens { column, tokens } => {
                let column = self.ordinal(column, IndexMode::Tokens)?;
                let whole = |piece| match piece {
                    Piece::Contains(run) => Probe::Token { column, token: cut(run).to_owned() },
                    Piece::Suffix(run) => Probe::Token { column, token: cut(run).to_owned() },
                    other => Probe::from_piece(column, other),
                };
                tokens.iter().flat_map(|token| literal_pieces(token)).map(whole).collect()
            }
            Condition::Equals { column, value } => {
                vec![Probe::Value { column: self.ordinal(column, IndexMode::Values)?, value: value.clone() }]
            }
            Condition::All(_) | Condition::Any(_) => return None,
        };
        (!probes.is_empty()).then_some(probes)
    }

    fn page_range(&self, part: &Part, key: u64) -> Option<ByteRange> {
        let (offset, len) = part.pages.page_range(key)?;
        Some(ByteRange { offset: self.encoded_bytes + part.pages_offset + offset, len })
    }
}

fn cut(run: &str) -> &str {
    &run[..run.len().min(tidemill_text::MAX_TOKEN_BYTES)]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edge {
    Prefix,
    Suffix,
    Contains,
}

/// One question about a block.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Probe {
    /// It has this token.
    Token { column: u16, token: String },
    /// One of its tokens starts with, ends with or contains this.
    Fragment { column: u16, edge: Edge, text: String },
    /// It has this value.
    Value { column: u16, value: Vec<u8> },
}

impl Probe {
    fn from_piece(column: u16, piece: Piece<'_>) -> Self {
        let fragment = |edge, text: &str| Self::Fragment { column, edge, text: text.to_owned() };
        match piece {
            Piece::Whole(token) => Self::Token { column, token: token.to_owned() },
            Piece::Prefix(text) => fragment(Edge::Prefix, text),
            Piece::Suffix(text) => fragment(Edge::Suffix, text),
            Piece::Contains(text) => fragment(Edge::Contains, text),
        }
    }

    /// The filter keys that it may ask for.
    fn keys(&self) -> Vec<u64> {
        match self {
            Self::Token { column, token } if is_filterable(token.as_bytes()) => token_keys(*column, token.as_bytes()),
            Self::Token { .. } => Vec::new(),
            Self::Value { column, value } => vec![whole_key(*column, value)],
            Self::Fragment { column, text, .. } => {
                let text = text.as_bytes();
                let mut keys = Vec::new();
                if is_filterable(text) {
                    keys.extend(token_keys(*column, text));
                }
                for class in TokenClass::ALL {
                    if text.len() >= class.sampled_bytes() {
                        keys.extend(gram_keys(*column, class, text));
                    }
                }
                keys
            }
        }
    }
}

/// One part of the index and its bytes.
struct PartLookup<'a, B: ?Sized> {
    directory: &'a IndexDirectory,
    part: &'a Part,
    bytes: &'a B,
}

impl<'a, B: IndexBytes + ?Sized> PartLookup<'a, B> {
    fn blocks(&self, probes: &[Probe]) -> Result<BlockSet> {
        let terms =
            Map::new(self.section(self.part.fst)?).map_err(|error| corrupt("index terms", error.to_string()))?;
        let postings = self.section(self.part.postings)?;
        let mut all = BlockSet::full(self.part.shapes.len());
        for probe in probes {
            if all.is_empty() {
                break;
            }
            all.intersect(&match probe {
                Probe::Token { column, token } => self.token(&terms, postings, *column, token.as_bytes())?,
                Probe::Value { column, value } => self.value(&terms, postings, *column, value)?,
                Probe::Fragment { column, edge, text } => {
                    self.fragment(&terms, postings, *column, *edge, text.as_bytes())?
                }
            });
        }
        Ok(all)
    }

    fn token(&self, terms: &Map<&[u8]>, postings: &[u8], column: u16, token: &[u8]) -> Result<BlockSet> {
        if let Some(offset) = terms.get(fst_key(column, token)) {
            return read_postings(postings, offset, self.part.shapes.len());
        }
        if is_filterable(token) {
            return self.all_keys(&token_keys(column, token));
        }
        Ok(self.none())
    }

    fn value(&self, terms: &Map<&[u8]>, postings: &[u8], column: u16, value: &[u8]) -> Result<BlockSet> {
        if value.len() <= LONGEST_FST_VALUE
            && let Some(offset) = terms.get(fst_key(column, value))
        {
            return read_postings(postings, offset, self.part.shapes.len());
        }
        self.all_keys(&[whole_key(column, value)])
    }

    fn fragment(&self, terms: &Map<&[u8]>, postings: &[u8], column: u16, edge: Edge, text: &[u8]) -> Result<BlockSet> {
        let mut found = self.scan_terms(terms, postings, column, edge, text)?;
        let equal = if is_filterable(text) { self.all_keys(&token_keys(column, text))? } else { self.none() };
        let mut sampled = Vec::new();
        for class in TokenClass::ALL {
            let is_sampled = text.len() >= class.sampled_bytes();
            sampled.push(if is_sampled { Some(self.all_keys(&gram_keys(column, class, text))?) } else { None });
        }
        for (block, shape) in self.part.shapes.iter().enumerate() {
            let in_cut = shape.is_cut && edge != Edge::Prefix;
            let in_rare = TokenClass::ALL.into_iter().any(|class| {
                shape.has_letters(class, text)
                    && ((shape.has_length(class, text.len()) && equal.contains(block))
                        || (shape.has_longer(class, text.len())
                            && sampled[class as usize].as_ref().is_none_or(|sampled| sampled.contains(block))))
            });
            if in_cut || in_rare {
                found.insert(block);
            }
        }
        Ok(found)
    }

    /// The blocks of all terms of the FST that have the fragment.
    fn scan_terms(
        &self,
        terms: &Map<&[u8]>,
        postings: &[u8],
        column: u16,
        edge: Edge,
        text: &[u8],
    ) -> Result<BlockSet> {
        let mut found = self.none();
        let low = if edge == Edge::Prefix { fst_key(column, text) } else { fst_key(column, b"") };
        let mut stream = terms.range().ge(&low).into_stream();
        let finder = memmem::Finder::new(text);
        while let Some((key, offset)) = stream.next() {
            let Some(term) = key.strip_prefix(column.to_be_bytes().as_slice()) else { break };
            let matches = match edge {
                Edge::Prefix if term.starts_with(text) => true,
                // Terms are sorted, so those with the prefix stand together.
                Edge::Prefix => break,
                Edge::Suffix => term.ends_with(text),
                Edge::Contains => finder.find(term).is_some(),
            };
            if matches {
                found.union(&read_postings(postings, offset, self.part.shapes.len())?);
            }
        }
        Ok(found)
    }

    /// The blocks whose filter has all of `keys`.
    fn all_keys(&self, keys: &[u64]) -> Result<BlockSet> {
        let blocks = self.part.shapes.len();
        let mut all = BlockSet::full(blocks);
        for key in keys {
            let Some(range) = self.directory.page_range(self.part, *key) else { return Ok(self.none()) };
            all.intersect(&self.part.pages.blocks_in_page(self.bytes.section(range)?, *key, blocks)?);
            if all.is_empty() {
                break;
            }
        }
        Ok(all)
    }

    fn none(&self) -> BlockSet {
        BlockSet::empty(self.part.shapes.len())
    }

    fn section(&self, section: Section) -> Result<&'a [u8]> {
        let bytes = self.bytes.section(self.directory.range_of(section))?;
        if check_of(bytes) != section.check {
            return Err(corrupt("index section", "the check differs"));
        }
        Ok(bytes)
    }
}

fn fst_key(column: u16, term: &[u8]) -> Vec<u8> {
    let mut key = column.to_be_bytes().to_vec();
    key.extend_from_slice(term);
    key
}
