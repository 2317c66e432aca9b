//! The identities of the inputs behind a segment: a part of the object that only a rebuilt catalog reads.
//!
//! A ledger in the database knows which requests and objects were taken in. When the database is lost, this is what is left of it: without
//! it, a request that was stored twice and ingested once would be ingested again. Layout: `TMID`, a version byte, a LEB128 count, for each
//! entry a kind byte (0 request, 1 object), the arrival (8 bytes, little-endian nanoseconds) and the identity (32 bytes); then the first
//! eight bytes of the BLAKE3 of all before. Start with [`encode_identities`] and [`decode_identities`].

use tidemill_types::TimestampNs;

use crate::error::Result;
use crate::index::wire::{Reader, check_of, corrupt, put_varint};

/// The footer's name for this part.
pub const IDENTITIES_PART: &str = "identities";
/// A segment lists at most this many, the latest ones.
pub const LISTED_IDENTITIES: usize = 128 << 10;
/// The part is never longer than this.
pub const IDENTITIES_LIMIT_BYTES: u64 = (LISTED_IDENTITIES * ENTRY_BYTES + 32) as u64;

const MAGIC: &[u8; 4] = b"TMID";
const VERSION: u8 = 1;
const ENTRY_BYTES: usize = 41;
const SUBJECT: &str = "identities";

/// What an identity names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InputKind {
    /// A pushed request; its sender repeats it within a day or never.
    Request,
    /// An object that somebody announced; it may be announced again at any time.
    Object,
}

/// One input whose rows a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListedIdentity {
    /// What it names.
    pub kind: InputKind,
    /// When it arrived.
    pub arrival: TimestampNs,
    /// The identity itself.
    pub identity: [u8; 32],
}

/// The bytes of a list; above [`LISTED_IDENTITIES`] the earliest arrivals are left out.
pub fn encode_identities(mut listed: Vec<ListedIdentity>) -> Vec<u8> {
    listed.sort_unstable_by_key(|one| std::cmp::Reverse((one.arrival, one.identity)));
    listed.dedup_by_key(|one| one.identity);
    listed.truncate(LISTED_IDENTITIES);
    let mut out = Vec::with_capacity(listed.len() * ENTRY_BYTES + 32);
    out.extend_from_slice(MAGIC);
    out.push(VERSION);
    put_varint(&mut out, listed.len() as u64);
    for one in listed {
        out.push(match one.kind {
            InputKind::Request => 0,
            InputKind::Object => 1,
        });
        out.extend_from_slice(&one.arrival.0.to_le_bytes());
        out.extend_from_slice(&one.identity);
    }
    out.extend_from_slice(&check_of(&out).to_le_bytes());
    out
}

/// Reads a list.
///
/// # Errors
/// When the bytes are no list of this version.
pub fn decode_identities(bytes: &[u8]) -> Result<Vec<ListedIdentity>> {
    let body = bytes.len().checked_sub(8).ok_or_else(|| corrupt(SUBJECT, "shorter than its check"))?;
    let (body, check) = bytes.split_at(body);
    if check_of(body).to_le_bytes() != check {
        return Err(corrupt(SUBJECT, "the check does not match"));
    }
    let mut reader = Reader::new(SUBJECT, body);
    if reader.take(MAGIC.len())? != MAGIC || reader.byte()? != VERSION {
        return Err(corrupt(SUBJECT, "not a list of version 1"));
    }
    let count = reader.count()?;
    let mut listed = Vec::with_capacity(count.min(reader.remaining() / ENTRY_BYTES));
    for _ in 0..count {
        let kind = match reader.byte()? {
            0 => InputKind::Request,
            1 => InputKind::Object,
            other => return Err(corrupt(SUBJECT, format!("kind {other}"))),
        };
        let arrival = TimestampNs(reader.u64()?.cast_signed());
        let identity = reader.take(32)?.try_into().expect("32 bytes were taken");
        listed.push(ListedIdentity { kind, arrival, identity });
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> Vec<ListedIdentity> {
        vec![
            ListedIdentity { kind: InputKind::Request, arrival: TimestampNs(5), identity: [1; 32] },
            ListedIdentity { kind: InputKind::Object, arrival: TimestampNs(-1), identity: [2; 32] },
        ]
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_never_half() {
        let bytes = encode_identities(listed());
        assert_eq!(decode_identities(&bytes).expect("reads"), listed());
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            assert!(decode_identities(&changed).is_err(), "byte {place}");
            assert!(decode_identities(&bytes[..place]).is_err(), "{place} bytes");
        }
    }

    #[test]
    fn a_list_is_bounded_and_keeps_the_latest() {
        let many = (0..LISTED_IDENTITIES as i64 + 2).map(|number| {
            let mut identity = [0; 32];
            identity[..8].copy_from_slice(&number.to_le_bytes());
            ListedIdentity { kind: InputKind::Request, arrival: TimestampNs(number), identity }
        });
        let bytes = encode_identities(many.collect());
        assert!(bytes.len() as u64 <= IDENTITIES_LIMIT_BYTES);
        let left = decode_identities(&bytes).expect("reads");
        assert_eq!(left.len(), LISTED_IDENTITIES);
        assert_eq!(left.last().map(|one| one.arrival), Some(TimestampNs(2)));
    }

    /// Frozen: later builds read what this one wrote.
    #[test]
    fn the_bytes_of_a_list_never_change() {
        assert_eq!(hex::encode(encode_identities(listed())), FROZEN);
    }

    const FROZEN: &str = "544d49440102000500000000000000010101010101010101010101010101010101010101010101010101010101010101ffffffffffffffff0202020202020202020202020202020202020202020202020202020202020202ee1ba74282326531";
}
