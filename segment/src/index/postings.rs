//! Which row blocks a term occurs in: a list of gaps while short, a bitmap when that is smaller.

use super::row_blocks::BlockSet;
use super::wire::{Reader, corrupt, put_varint};
use crate::error::Result;

const SUBJECT: &str = "index postings";
/// The first number of a bitmap; a list starts with its length, which is never 0.
const BITMAP: u64 = 0;

/// Appends the ascending `blocks` of a part with `part_blocks` blocks.
pub(crate) fn put_postings(out: &mut Vec<u8>, blocks: &[u16], part_blocks: usize) {
    let start = out.len();
    put_varint(out, blocks.len() as u64);
    let mut next = 0_u64;
    for block in blocks {
        put_varint(out, u64::from(*block) - next);
        next = u64::from(*block) + 1;
    }
    let bitmap_bytes = part_blocks.div_ceil(8);
    if out.len() - start > bitmap_bytes + 1 || blocks.is_empty() {
        out.truncate(start);
        put_varint(out, BITMAP);
        let bits = out.len();
        out.resize(bits + bitmap_bytes, 0);
        for block in blocks {
            out[bits + usize::from(*block) / 8] |= 1 << (block % 8);
        }
    }
}

/// The postings that start at `offset`.
///
/// # Errors
/// When they name a block that the part does not have, or end early.
pub(crate) fn read_postings(bytes: &[u8], offset: u64, part_blocks: usize) -> Result<BlockSet> {
    let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
    let mut reader = Reader::new(SUBJECT, rest.ok_or_else(|| corrupt(SUBJECT, format!("no byte {offset}")))?);
    let mut set = BlockSet::empty(part_blocks);
    let count = reader.varint()?;
    if count == BITMAP {
        for (place, byte) in reader.take(part_blocks.div_ceil(8))?.iter().enumerate() {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                let block = place * 8 + bit;
                if block >= part_blocks {
                    return Err(corrupt(SUBJECT, format!("block {block} of {part_blocks}")));
                }
                set.insert(block);
            }
        }
        return Ok(set);
    }
    if count > part_blocks as u64 {
        return Err(corrupt(SUBJECT, format!("{count} blocks of {part_blocks}")));
    }
    let mut next = 0_u64;
    for _ in 0..count {
        let block = next.saturating_add(reader.varint()?);
        if block >= part_blocks as u64 {
            return Err(corrupt(SUBJECT, format!("block {block} of {part_blocks}")));
        }
        set.insert(block as usize);
        next = block + 1;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn postings_round_trip(blocks in proptest::collection::btree_set(0_u16..300, 0..300)) {
            let blocks: Vec<u16> = blocks.into_iter().collect();
            let mut out = vec![9];
            put_postings(&mut out, &blocks, 300);
            let set = read_postings(&out, 1, 300).expect("reads");
            let found: Vec<u16> = (0..300).filter(|block| set.contains(usize::from(*block))).collect();
            prop_assert_eq!(found, blocks);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40), blocks in 0_usize..70) {
            let _ = read_postings(&bytes, 0, blocks);
        }
    }
}
