//! Filters of all row blocks of a part, laid out so that one key reads one small page.
//!
//! A key's hash chooses the page by its high bits. In the page each (block, key) pair is the number `block * universe + fingerprint`, the
//! fingerprint being the hash's low 32 bits scaled to the universe; the sorted numbers are Golomb-Rice coded gaps, as in a Golomb-coded set (Putze,
//! Sanders, Singler: Cache-, Hash- and Space-Efficient Bloom Filters, 2007, section 5). With a universe of 256 times the mean number of
//! keys per block and page, one block in 256 is a false answer, for about 9.5 bits a pair, however unevenly keys are spread over blocks.
//! Per-block Bloom or fuse filters cost the same bits but must all be read to look one key up.

use super::row_blocks::BlockSet;
use super::wire::{Reader, check_of, corrupt, put_varint};
use crate::error::Result;

const SUBJECT: &str = "index page";
/// Pairs per page, about: 4-5 KiB.
const PAGE_PAIRS: usize = 4096;
/// One over the share of blocks that answer falsely.
const FALSE_BLOCKS: u64 = 256;
const SMALLEST_UNIVERSE: u64 = 32;
const CHECK_BYTES: usize = 4;

/// How the pages of a part are laid out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PageTable {
    /// There are `1 << page_bits` pages, unless there are no keys.
    pub(crate) page_bits: u32,
    /// Fingerprints are smaller than this.
    pub(crate) universe: u64,
    /// Low bits of a gap that are written as they are.
    pub(crate) rice_bits: u32,
    /// Size of each page in bytes, in order; empty when there are no keys.
    pub(crate) page_bytes: Vec<u32>,
}

/// Encodes the pairs of (key hash, block) of a part with `part_blocks` blocks; answers the table and the pages.
pub(crate) fn encode_pages(mut pairs: Vec<(u64, u16)>, part_blocks: usize) -> (PageTable, Vec<u8>) {
    if pairs.is_empty() {
        return (PageTable::default(), Vec::new());
    }
    pairs.sort_unstable();
    pairs.dedup();
    let page_bits = (pairs.len() / PAGE_PAIRS).max(1).ilog2();
    let cells = (part_blocks as u64) << page_bits;
    let universe = (FALSE_BLOCKS * pairs.len() as u64).div_ceil(cells).max(SMALLEST_UNIVERSE);
    let gap = (cells * universe / pairs.len() as u64).max(1);
    // The best Rice parameter for geometric gaps is near log2 of 0.69 times their mean.
    let rice_bits = (gap * 69 / 100).max(1).ilog2();
    let mut table = PageTable { page_bits, universe, rice_bits, page_bytes: Vec::with_capacity(1 << page_bits) };
    let mut pages = Vec::new();
    let mut rest = pairs.as_slice();
    for page in 0..1_u64 << page_bits {
        let end = rest.partition_point(|(hash, _)| page_of(*hash, page_bits) <= page);
        let (mine, others) = rest.split_at(end);
        rest = others;
        let mut numbers: Vec<u64> =
            mine.iter().map(|(hash, block)| u64::from(*block) * universe + fingerprint(*hash, universe)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let encoded = encode_page(&numbers, rice_bits);
        table.page_bytes.push(encoded.len() as u32);
        pages.extend_from_slice(&encoded);
    }
    (table, pages)
}

impl PageTable {
    /// Which page holds `hash`, as a byte range of the pages; `None` when there are no keys at all.
    pub(crate) fn page_range(&self, hash: u64) -> Option<(u64, u64)> {
        let page = page_of(hash, self.page_bits) as usize;
        let length = *self.page_bytes.get(page)?;
        let offset = self.page_bytes[..page].iter().map(|bytes| u64::from(*bytes)).sum();
        Some((offset, u64::from(length)))
    }

    /// The blocks that may hold the key of `hash`, from the bytes of its page.
    ///
    /// # Errors
    /// When the page is not what was written.
    pub(crate) fn blocks_in_page(&self, page: &[u8], hash: u64, part_blocks: usize) -> Result<BlockSet> {
        let (check, body) = page.split_at_checked(CHECK_BYTES).ok_or_else(|| corrupt(SUBJECT, "no check"))?;
        if check_of(body).to_le_bytes()[..CHECK_BYTES] != *check {
            return Err(corrupt(SUBJECT, "the check differs"));
        }
        let mut reader = Reader::new(SUBJECT, body);
        let count = reader.varint()?;
        let bits = reader.take(reader.remaining())?;
        if count > 8 * bits.len() as u64 {
            return Err(corrupt(SUBJECT, format!("{count} numbers in {} bytes", bits.len())));
        }
        let wanted = fingerprint(hash, self.universe);
        let mut set = BlockSet::empty(part_blocks);
        let mut source = BitSource { bytes: bits, at: 0 };
        let mut next = 0_u64;
        for _ in 0..count {
            let gap = source.rice(self.rice_bits).ok_or_else(|| corrupt(SUBJECT, "ends early"))?;
            let number = next.checked_add(gap).ok_or_else(|| corrupt(SUBJECT, "a gap too long"))?;
            next = number.saturating_add(1);
            let block = number / self.universe;
            if block >= part_blocks as u64 {
                return Err(corrupt(SUBJECT, format!("block {block} of {part_blocks}")));
            }
            if number % self.universe == wanted {
                set.insert(block as usize);
            }
        }
        Ok(set)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.page_bytes.len() as u64);
        if self.page_bytes.is_empty() {
            return;
        }
        put_varint(out, self.universe);
        put_varint(out, u64::from(self.rice_bits));
        for bytes in &self.page_bytes {
            put_varint(out, u64::from(*bytes));
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let pages = reader.count()?;
        if pages == 0 {
            return Ok(Self::default());
        }
        if !pages.is_power_of_two() {
            return Err(corrupt(SUBJECT, format!("{pages} pages")));
        }
        let universe = reader.bounded("universe", u64::from(u32::MAX))?;
        if universe == 0 {
            return Err(corrupt(SUBJECT, "an empty universe"));
        }
        let rice_bits = reader.bounded("rice bits", 48)? as u32;
        let page_bytes = (0..pages)
            .map(|_| reader.bounded("page size", u64::from(u32::MAX)).map(|bytes| bytes as u32))
            .collect::<Result<_>>()?;
        Ok(Self { page_bits: pages.ilog2(), universe, rice_bits, page_bytes })
    }
}

fn page_of(hash: u64, page_bits: u32) -> u64 {
    hash.checked_shr(64 - page_bits).unwrap_or(0)
}

fn fingerprint(hash: u64, universe: u64) -> u64 {
    ((hash & 0xffff_ffff) * universe) >> 32
}

fn encode_page(numbers: &[u64], rice_bits: u32) -> Vec<u8> {
    let mut body = Vec::new();
    put_varint(&mut body, numbers.len() as u64);
    let mut sink = BitSink { bytes: body, free: 0 };
    let mut next = 0;
    for number in numbers {
        sink.rice(number - next, rice_bits);
        next = number + 1;
    }
    let mut page = check_of(&sink.bytes).to_le_bytes()[..CHECK_BYTES].to_vec();
    page.extend_from_slice(&sink.bytes);
    page
}

/// Writes bits, low bit of each byte first.
struct BitSink {
    bytes: Vec<u8>,
    /// Unwritten bits of the last byte.
    free: u32,
}

impl BitSink {
    fn bit(&mut self, bit: bool) {
        if self.free == 0 {
            self.bytes.push(0);
            self.free = 8;
        }
        if bit {
            *self.bytes.last_mut().expect("a byte was pushed") |= 1 << (8 - self.free);
        }
        self.free -= 1;
    }

    /// The high part as that many ones and a zero, then the low bits.
    fn rice(&mut self, value: u64, rice_bits: u32) {
        for _ in 0..value >> rice_bits {
            self.bit(true);
        }
        self.bit(false);
        for place in 0..rice_bits {
            self.bit(value & (1 << place) != 0);
        }
    }
}

struct BitSource<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl BitSource<'_> {
    fn bit(&mut self) -> Option<u64> {
        let byte = *self.bytes.get(self.at / 8)?;
        let bit = u64::from(byte >> (self.at % 8) & 1);
        self.at += 1;
        Some(bit)
    }

    fn rice(&mut self, rice_bits: u32) -> Option<u64> {
        let mut high = 0_u64;
        while self.bit()? == 1 {
            high += 1;
        }
        let mut low = 0;
        for place in 0..rice_bits {
            low |= self.bit()? << place;
        }
        high.checked_shl(rice_bits).filter(|shifted| shifted >> rice_bits == high).map(|shifted| shifted | low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_text::term_hash;

    fn lookup(table: &PageTable, pages: &[u8], hash: u64, blocks: usize) -> BlockSet {
        let (offset, length) = table.page_range(hash).expect("there are keys");
        table.blocks_in_page(&pages[offset as usize..(offset + length) as usize], hash, blocks).expect("reads")
    }

    #[test]
    fn every_key_is_found_and_few_others() {
        let blocks = 100;
        let hash = |n: usize| term_hash(&n.to_le_bytes());
        let pairs: Vec<(u64, u16)> = (0..20_000).map(|n| (hash(n), (n % 7 * n % blocks) as u16)).collect();
        let (table, pages) = encode_pages(pairs.clone(), blocks);
        assert!(table.page_bytes.len() >= 4);
        for (hash, block) in pairs.iter().step_by(97) {
            assert!(lookup(&table, &pages, *hash, blocks).contains(usize::from(*block)));
        }
        let bits = pages.len() * 8 / pairs.len();
        assert!(bits <= 11, "{bits} bits a pair");
        let false_blocks: usize = (0..100)
            .map(|n| {
                let found = lookup(&table, &pages, hash(1_000_000 + n), blocks);
                (0..blocks).filter(|block| found.contains(*block)).count()
            })
            .sum();
        assert!(false_blocks < 100 * blocks / 128, "{false_blocks}");
    }

    #[test]
    fn a_changed_page_is_refused() {
        let (table, mut pages) = encode_pages(vec![(7, 0), (u64::MAX, 1)], 2);
        let last = pages.len() - 1;
        pages[last] ^= 1;
        assert!(table.blocks_in_page(&pages, 7, 2).is_err());
        assert!(table.blocks_in_page(&[], 7, 2).is_err());
    }

    #[test]
    fn tables_round_trip() {
        let (table, _) = encode_pages((0..20_000).map(|n: u64| (term_hash(&n.to_le_bytes()), 3)).collect(), 5);
        let mut out = Vec::new();
        table.encode(&mut out);
        assert_eq!(PageTable::decode(&mut Reader::new("test", &out)).expect("reads"), table);
    }
}
