//! What a raw object says of the requests in it.
//!
//! Owns: the trailing field of a raw object. A raw object is pushed requests one after the other, which is one valid request; behind them
//! comes a field with a number that OTLP does not use, which every protobuf reader skips. It holds the identity and the length of each
//! request, so that a raw object explains itself when the database is lost: 32 bytes of identity and 8 of length (little endian) for each
//! request, their count (4 bytes), the first eight bytes of the BLAKE3 of what is before, and `TMRAWID1`. Never: deciding what to do
//! about a repetition. Start with [`encode_trailer`] and [`decode_trailer`].

use bytes::Bytes;
use tidemill_store::ObjectStore;
use tidemill_store::metastore::InputIdentity;

use crate::Result;

/// The bytes that tell how long the field is.
pub(crate) const END_BYTES: u64 = 20;
const PART_BYTES: usize = 40;
const MAGIC: &[u8; 8] = b"TMRAWID1";
/// Near the end of protobuf's field numbers, where no specification will put one.
const FIELD_NUMBER: u64 = 536_870_900;
const LENGTH_DELIMITED: u64 = 2;

/// One request of a raw object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// What it is known by.
    pub identity: InputIdentity,
    /// Its length.
    pub bytes: u64,
}

/// The trailing field for requests that follow each other in this order.
pub(crate) fn encode_trailer(parts: &[Part]) -> Bytes {
    let payload = parts.len() * PART_BYTES + END_BYTES as usize;
    let mut out = Vec::with_capacity(payload + 16);
    put_varint(&mut out, FIELD_NUMBER << 3 | LENGTH_DELIMITED);
    put_varint(&mut out, payload as u64);
    let start = out.len();
    for part in parts {
        out.extend_from_slice(&part.identity.0);
        out.extend_from_slice(&part.bytes.to_le_bytes());
    }
    out.extend_from_slice(&(parts.len() as u32).to_le_bytes());
    let check = check_of(&out[start..]);
    out.extend_from_slice(&check);
    out.extend_from_slice(MAGIC);
    out.into()
}

/// How many bytes of the object's end [`decode_trailer`] wants, by its last [`END_BYTES`]; `None` when there is no such field.
pub(crate) fn trailer_bytes(end: &[u8], object_bytes: u64) -> Option<u64> {
    let end = end.last_chunk::<{ END_BYTES as usize }>()?;
    (&end[12..] == MAGIC).then_some(())?;
    let count = u32::from_le_bytes([end[0], end[1], end[2], end[3]]);
    let needed = u64::from(count) * PART_BYTES as u64 + END_BYTES;
    (needed < object_bytes).then_some(needed)
}

/// The requests of an object of `object_bytes`, by its last bytes, as many as [`trailer_bytes`] wants. `None` when the object does not end
/// in the field, or not in one that describes exactly this object.
pub(crate) fn decode_trailer(tail: &[u8], object_bytes: u64) -> Option<Vec<Part>> {
    let needed = trailer_bytes(tail, object_bytes)?;
    let payload = &tail[tail.len().checked_sub(usize::try_from(needed).ok()?)?..];
    let (body, end) = payload.split_at(payload.len() - 16);
    (check_of(body) == end[..8]).then_some(())?;
    let parts: Vec<Part> = body[..body.len() - 4]
        .chunks_exact(PART_BYTES)
        .map(|part| {
            let (identity, length) = part.split_at(32);
            Part {
                identity: InputIdentity(identity.try_into().expect("32 bytes")),
                bytes: u64::from_le_bytes(length.try_into().expect("8 bytes")),
            }
        })
        .collect();
    let requests = parts.iter().try_fold(0u64, |sum, part| sum.checked_add(part.bytes))?;
    let field = encode_trailer(&parts).len() as u64;
    (requests.checked_add(field)? == object_bytes).then_some(parts)
}

/// Reads the requests of a stored raw object; `None` when it does not list them.
///
/// # Errors
/// What the store answers.
pub(crate) async fn read_parts(store: &dyn ObjectStore, key: &str, object_bytes: u64) -> Result<Option<Vec<Part>>> {
    if object_bytes <= END_BYTES {
        return Ok(None);
    }
    let last = |bytes: u64| object_bytes - bytes..object_bytes;
    let end = store.get_ranges(key, &[last(END_BYTES)]).await?;
    let Some(needed) = end.first().and_then(|end| trailer_bytes(end, object_bytes)) else { return Ok(None) };
    let tail = store.get_ranges(key, &[last(needed)]).await?;
    Ok(tail.first().and_then(|tail| decode_trailer(tail, object_bytes)))
}

fn check_of(bytes: &[u8]) -> [u8; 8] {
    *blake3::hash(bytes).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Vec<Part> {
        vec![Part { identity: InputIdentity([1; 32]), bytes: 5 }, Part { identity: InputIdentity([2; 32]), bytes: 300 }]
    }

    #[test]
    fn a_trailer_is_read_as_it_was_written_and_only_behind_its_object() {
        let trailer = encode_trailer(&parts());
        let object = 305 + trailer.len() as u64;
        assert_eq!(decode_trailer(&trailer, object), Some(parts()));
        assert_eq!(trailer_bytes(&trailer[trailer.len() - 20..], object), Some(100));
        assert_eq!(decode_trailer(&trailer, object + 1), None, "another object");
        for place in trailer.len() - 100..trailer.len() {
            let mut changed = trailer.to_vec();
            changed[place] ^= 1;
            assert_eq!(decode_trailer(&changed, object), None, "byte {place}");
        }
        assert_eq!(decode_trailer(&trailer[..trailer.len() - 1], object), None);
        assert_eq!(decode_trailer(b"", 0), None);
    }

    /// Frozen: a bucket holds such objects when its database is lost.
    #[test]
    fn the_bytes_of_a_trailer_never_change() {
        assert_eq!(hex::encode(encode_trailer(&parts()[..1])), FROZEN);
    }

    const FROZEN: &str = "a2ffffff0f3c01010101010101010101010101010101010101010101010101010101010101010500000000000000010000004c1e83a0e17567ac544d524157494431";
}
