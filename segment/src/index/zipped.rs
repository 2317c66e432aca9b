//! Tables of an index that are read whole: a magic, a version (1 byte), the size of the body, the body compressed by zstd, and the check of
//! all before (8 bytes).

use std::io::Read;

use super::wire::{Reader, check_of, corrupt, put_varint};
use crate::error::Result;

/// A larger body is refused.
const BODY_LIMIT_BYTES: u64 = 1 << 30;

/// The bytes of a table.
pub(super) fn zipped(subject: &str, (magic, version): (&[u8; 4], u8), body: &[u8]) -> Result<Vec<u8>> {
    let mut out = magic.to_vec();
    out.push(version);
    put_varint(&mut out, body.len() as u64);
    let compressed = zstd::encode_all(body, 3).map_err(|error| corrupt(subject, error.to_string()))?;
    out.extend_from_slice(&compressed);
    let check = check_of(&out);
    out.extend_from_slice(&check.to_le_bytes());
    Ok(out)
}

/// The body of a table.
///
/// # Errors
/// When the bytes are not a table of this magic and version, or not what was written.
pub(super) fn unzipped(subject: &'static str, (magic, version): (&[u8; 4], u8), bytes: &[u8]) -> Result<Vec<u8>> {
    let covered = bytes.len().checked_sub(8).ok_or_else(|| corrupt(subject, "no check"))?;
    if check_of(&bytes[..covered]).to_le_bytes() != bytes[covered..] {
        return Err(corrupt(subject, "the check differs"));
    }
    let mut reader = Reader::new(subject, &bytes[..covered]);
    if reader.take(magic.len())? != magic {
        return Err(corrupt(subject, format!("does not start with {}", magic.escape_ascii())));
    }
    let found = reader.byte()?;
    if found != version {
        return Err(corrupt(subject, format!("version {found}; this build reads {version}")));
    }
    let size = reader.bounded("size", BODY_LIMIT_BYTES)?;
    let compressed = reader.take(reader.remaining())?;
    let failed = |error: std::io::Error| corrupt(subject, error.to_string());
    let mut body = Vec::new();
    zstd::Decoder::new(compressed).map_err(failed)?.take(size).read_to_end(&mut body).map_err(failed)?;
    Ok(body)
}
