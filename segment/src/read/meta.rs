//! From the last bytes of an object back to its catalog row.

use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use tidemill_types::{ByteRange, SegmentMeta};

use crate::draft::segment_id;
use crate::error::{Error, Result};
use crate::footer::SegmentFooter;
use tidemill_types::OrganizationId;

/// What the store says of an object; with the object's footer it makes a catalog row.
#[derive(Debug, Clone)]
pub struct StoredObject {
    /// Bucket as the storage profile names it.
    pub bucket: String,
    /// The storage profile's instance.
    pub instance_num: i32,
    /// Path inside the bucket.
    pub key: String,
    /// Size in bytes.
    pub bytes: u64,
    /// The store's ETag.
    pub etag: Option<String>,
}

/// Decodes a Parquet footer (the Thrift bytes, without the eight trailing bytes).
///
/// # Errors
/// When the bytes are no Parquet footer.
pub fn parse_footer(footer: &[u8]) -> Result<ParquetMetaData> {
    ParquetMetaDataReader::decode_metadata(footer)
        .map_err(|error| Error::Corrupt { subject: "footer".to_owned(), problem: error.to_string() })
}

/// The catalog row of a stored segment, from its last bytes. `Ok(Err(n))` asks for the last `n` bytes instead.
///
/// # Errors
/// When the object is no segment of a known format, or its key is not `db/<organization>/…`.
pub fn segment_meta(
    object: &StoredObject,
    tail: &[u8],
) -> Result<std::result::Result<(SegmentMeta, SegmentFooter), u64>> {
    let corrupt = |problem: &str| Error::Corrupt { subject: object.key.clone(), problem: problem.to_owned() };
    let trailer = tail.len().checked_sub(8).ok_or_else(|| corrupt("shorter than a Parquet trailer"))?;
    if &tail[trailer + 4..] != b"PAR1" {
        return Err(corrupt("does not end in PAR1"));
    }
    let length = u32::from_le_bytes([tail[trailer], tail[trailer + 1], tail[trailer + 2], tail[trailer + 3]]) as usize;
    let Some(start) = trailer.checked_sub(length) else {
        let need = length as u64 + 8;
        return if need > object.bytes { Err(corrupt("the footer is longer than the object")) } else { Ok(Err(need)) };
    };
    let footer_bytes = &tail[start..trailer];
    let footer = SegmentFooter::from_metadata(&parse_footer(footer_bytes)?)?;
    let organization = organization_of(&object.key).ok_or_else(|| corrupt("the key is not db/<organization>/…"))?;
    let meta = SegmentMeta {
        id: segment_id(&object.key),
        organization,
        signal: footer.signal,
        tier: footer.tier,
        level: footer.level,
        day: footer.day,
        time: footer.time,
        ingest_day: footer.ingest_day,
        rows: footer.rows,
        bytes: object.bytes,
        bucket: object.bucket.clone(),
        instance_num: object.instance_num,
        object_key: object.key.clone(),
        etag: object.etag.clone(),
        footer: ByteRange { offset: object.bytes - 8 - length as u64, len: length as u64 },
        footer_hash: *blake3::hash(footer_bytes).as_bytes(),
        index: footer.index,
        services: footer.services.clone(),
        covers_ingest_seq: footer.covers_ingest_seq,
    };
    Ok(Ok((meta, footer)))
}

fn organization_of(key: &str) -> Option<OrganizationId> {
    key.strip_prefix("db/")?.split('/').next()?.parse().ok()
}
