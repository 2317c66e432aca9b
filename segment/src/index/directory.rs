//! The directory of an index: which columns it knows, the row blocks, and where each part's sections lie.
//!
//! Layout, numbers LEB128 unless said otherwise: `TMIX`, version (1 byte), columns (mode byte, name), rows of each block, parts, and the
//! first eight bytes of the BLAKE3 of all before. A part: its number of blocks; length and check (8 bytes) of its FST and of its postings; the page
//! table; then the shape of each block. Sections follow the directory in the order of their parts: FST, postings, pages.

use tidemill_types::ByteRange;

use super::filter_keys::BlockShape;
use super::hash_pages::PageTable;
use super::wire::{Reader, check_of, corrupt, put_bytes, put_varint};
use crate::error::Result;

const MAGIC: &[u8; 4] = b"TMIX";
/// The version that this code writes, and the only one it reads.
pub const INDEX_VERSION: u8 = 1;
const SUBJECT: &str = "index directory";

/// How a column is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexMode {
    /// By the tokens of its texts.
    Tokens,
    /// By its whole values.
    Values,
}

/// A column that the index knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedColumn {
    /// The physical column.
    pub name: String,
    /// What of it is indexed.
    pub mode: IndexMode,
}

/// A section's place, relative to the end of the directory, and the check of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) check: u64,
}

/// Some consecutive row blocks with their own dictionary and filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) first_block: usize,
    pub(crate) fst: Section,
    pub(crate) postings: Section,
    pub(crate) pages: PageTable,
    pub(crate) pages_offset: u64,
    /// One per block.
    pub(crate) shapes: Vec<BlockShape>,
}

/// The decoded directory; small enough to be kept in memory for every segment that is queried often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexDirectory {
    pub(crate) columns: Vec<IndexedColumn>,
    /// Block `i` has rows `starts[i]..starts[i + 1]`.
    pub(crate) starts: Vec<u64>,
    pub(crate) parts: Vec<Part>,
    /// Size of the encoded directory: where the sections start.
    pub(crate) encoded_bytes: u64,
}

impl IndexDirectory {
    /// The columns that can be looked up.
    pub fn columns(&self) -> &[IndexedColumn] {
        &self.columns
    }

    /// Rows of the segment.
    pub fn rows(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Number of row blocks.
    pub fn blocks(&self) -> usize {
        self.starts.len() - 1
    }

    /// The place of a section relative to the start of the index.
    pub(crate) fn range_of(&self, section: Section) -> ByteRange {
        ByteRange { offset: self.encoded_bytes + section.offset, len: section.len }
    }

    pub(crate) fn ordinal(&self, name: &str, mode: IndexMode) -> Option<u16> {
        let place = self.columns.iter().position(|column| column.name == name && column.mode == mode)?;
        u16::try_from(place).ok()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(INDEX_VERSION);
        put_varint(&mut out, self.columns.len() as u64);
        for column in &self.columns {
            out.push(match column.mode {
                IndexMode::Tokens => 0,
                IndexMode::Values => 1,
            });
            put_bytes(&mut out, column.name.as_bytes());
        }
        put_varint(&mut out, self.blocks() as u64);
        for pair in self.starts.windows(2) {
            put_varint(&mut out, pair[1] - pair[0]);
        }
        put_varint(&mut out, self.parts.len() as u64);
        for part in &self.parts {
            put_varint(&mut out, part.shapes.len() as u64);
            for section in [part.fst, part.postings] {
                put_varint(&mut out, section.len);
                out.extend_from_slice(&section.check.to_le_bytes());
            }
            part.pages.encode(&mut out);
            for shape in &part.shapes {
                out.push(u8::from(shape.is_cut));
                put_varint(&mut out, shape.lengths[0]);
                put_varint(&mut out, shape.lengths[1]);
                put_varint(&mut out, shape.letters);
            }
        }
        let check = check_of(&out);
        out.extend_from_slice(&check.to_le_bytes());
        out
    }

    /// Reads a directory: exactly the bytes of the footer's index part `directory`, or the whole index.
    ///
    /// # Errors
    /// When the bytes are not a directory of version [`INDEX_VERSION`], or not what was written.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(SUBJECT, bytes);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(corrupt(SUBJECT, "does not start with TMIX"));
        }
        let version = reader.byte()?;
        if version != INDEX_VERSION {
            return Err(corrupt(SUBJECT, format!("version {version}; this build reads {INDEX_VERSION}")));
        }
        let columns = (0..reader.count()?).map(|_| decode_column(&mut reader)).collect::<Result<Vec<_>>>()?;
        let mut starts = vec![0_u64];
        for _ in 0..reader.count()? {
            let rows = reader.bounded("rows of a block", u64::from(u32::MAX))?;
            starts.push(starts[starts.len() - 1] + rows);
        }
        let mut directory = Self { columns, starts, parts: Vec::new(), encoded_bytes: 0 };
        let mut offset = 0_u64;
        let mut first_block = 0;
        for _ in 0..reader.count()? {
            let part = decode_part(&mut reader, first_block, &mut offset)?;
            first_block += part.shapes.len();
            directory.parts.push(part);
        }
        if first_block != directory.blocks() {
            return Err(corrupt(SUBJECT, format!("parts of {first_block} blocks, {} expected", directory.blocks())));
        }
        let covered = bytes.len() - reader.remaining();
        if reader.u64()? != check_of(&bytes[..covered]) {
            return Err(corrupt(SUBJECT, "the check differs"));
        }
        directory.encoded_bytes = covered as u64 + 8;
        Ok(directory)
    }
}

fn decode_column(reader: &mut Reader<'_>) -> Result<IndexedColumn> {
    let mode = match reader.byte()? {
        0 => IndexMode::Tokens,
        1 => IndexMode::Values,
        other => return Err(corrupt(SUBJECT, format!("index mode {other}"))),
    };
    Ok(IndexedColumn { name: reader.text()?.to_owned(), mode })
}

fn decode_part(reader: &mut Reader<'_>, first_block: usize, offset: &mut u64) -> Result<Part> {
    let blocks = reader.count()?;
    if blocks > usize::from(u16::MAX) {
        return Err(corrupt(SUBJECT, format!("a part of {blocks} blocks")));
    }
    let mut section = |reader: &mut Reader<'_>| -> Result<Section> {
        let len = reader.bounded("section length", 1 << 40)?;
        let section = Section { offset: *offset, len, check: reader.u64()? };
        *offset += len;
        Ok(section)
    };
    let fst = section(reader)?;
    let postings = section(reader)?;
    let pages = PageTable::decode(reader)?;
    let pages_offset = *offset;
    *offset += pages.page_bytes.iter().map(|bytes| u64::from(*bytes)).sum::<u64>();
    let shapes = (0..blocks)
        .map(|_| {
            let is_cut = reader.byte()? != 0;
            Ok(BlockShape { lengths: [reader.varint()?, reader.varint()?], letters: reader.varint()?, is_cut })
        })
        .collect::<Result<_>>()?;
    Ok(Part { first_block, fst, postings, pages, pages_offset, shapes })
}
