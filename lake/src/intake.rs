//! Reading a request's body within bounds: size, memory budget, decompression ratio.

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;

use crate::receive::Reservation;
use crate::{Error, Result};

/// No input decompresses to more than this many times its size.
const MAX_RATIO: usize = 200;
/// Below this a ratio says nothing: small bodies of zeros are harmless.
const RATIO_FREE_BYTES: usize = 1 << 20;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Identity,
    /// gzip.
    Gzip,
    /// zlib, or what is inside of it: senders mean either by `deflate`.
    Deflate,
    /// zstd.
    Zstd,
}

impl Compression {
    /// Reads a `Content-Encoding` or `grpc-encoding` header.
    ///
    /// # Errors
    /// The value, when it is none of these.
    pub fn from_header(headers: &HeaderMap, name: &str) -> std::result::Result<Self, String> {
        let Some(value) = headers.get(name) else { return Ok(Self::Identity) };
        match value.to_str().unwrap_or("?").trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            "zstd" => Ok(Self::Zstd),
            other => Err(other.to_owned()),
        }
    }
}

/// How long the rest of a body is awaited that is not taken.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// How long a body may take: a sender that stands still must not keep its share of the memory from the others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyTime {
    /// Between two parts.
    pub silence: Duration,
    /// From the head to the end.
    pub whole: Duration,
}

impl Default for BodyTime {
    fn default() -> Self {
        Self { silence: Duration::from_secs(30), whole: Duration::from_secs(300) }
    }
}

/// Reads a whole body, taking its bytes from the memory budget as they come.
///
/// # Errors
/// `TooLarge`; `Busy`, also when the body takes too long; `Invalid` when the sender broke off.
pub(crate) async fn read_body(
    mut body: Body,
    max_bytes: usize,
    time: BodyTime,
    reservation: &mut Reservation,
) -> Result<Bytes> {
    let reading = read_parts(&mut body, max_bytes, time.silence, reservation);
    match tokio::time::timeout(time.whole, reading).await {
        Ok(Err(error @ (Error::Busy { .. } | Error::TooLarge { .. }))) => {
            reservation.release();
            drain(body, max_bytes).await;
            Err(error)
        }
        Ok(read) => read,
        Err(_) => Err(too_slow(time.whole)),
    }
}

/// Reads a body that is not taken to its end, without keeping anything: a connection that is closed while its body still comes is reset,
/// and the sender never sees why. Not more than `max_bytes`, and not for long.
pub(crate) async fn drain(mut body: Body, max_bytes: usize) {
    let reading = async {
        let mut total = 0;
        while let Some(Ok(frame)) = body.frame().await
            && total < max_bytes
        {
            total += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // However it ends, the answer is given.
    drop(tokio::time::timeout(DRAIN_TIME, reading).await);
}

fn too_slow(limit: Duration) -> Error {
    let reason = format!("the request's body did not come within {} s", limit.as_secs_f64());
    Error::Busy { reason, retry_after: Duration::from_secs(1) }
}

async fn read_parts(
    body: &mut Body,
    max_bytes: usize,
    silence: Duration,
    reservation: &mut Reservation,
) -> Result<Bytes> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut total = 0usize;
    while let Some(frame) = tokio::time::timeout(silence, body.frame()).await.map_err(|_| too_slow(silence))? {
        let frame =
            frame.map_err(|error| Error::Invalid { operation: "read the request", reason: error.to_string() })?;
        let Ok(data) = frame.into_data() else { continue };
        total += data.len();
        if total > max_bytes {
            return Err(Error::TooLarge { what: "the request", limit_bytes: max_bytes as u64 });
        }
        reservation.grow(data.len())?;
        if first.is_none() {
            first = Some(data);
            continue;
        }
        if rest.is_empty() {
            rest.extend_from_slice(first.as_deref().unwrap_or_default());
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() })
}

/// Whether a body begins as zlib does (RFC 1950): deflate in the low bits of the first byte, and a check over the first two.
fn has_zlib_header(body: &[u8]) -> bool {
    matches!(body, [first, second, ..] if first & 0x0f == 8 && u16::from_be_bytes([*first, *second]).is_multiple_of(31))
}

/// Decompresses a body. The inner error is the sender's: the bytes are not what the header says, or expand without measure.
///
/// # Errors
/// `TooLarge`, `Busy`.
pub(crate) fn decompress(
    body: Bytes,
    compression: Compression,
    max_bytes: usize,
    reservation: &mut Reservation,
) -> Result<std::result::Result<Bytes, String>> {
    let mut reader: Box<dyn Read> = match compression {
        Compression::Identity => return Ok(Ok(body)),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(&body[..])),
        Compression::Deflate if has_zlib_header(&body) => Box::new(flate2::read::ZlibDecoder::new(&body[..])),
        Compression::Deflate => Box::new(flate2::read::DeflateDecoder::new(&body[..])),
        Compression::Zstd => match zstd::stream::read::Decoder::with_buffer(&body[..]) {
            Ok(decoder) => Box::new(decoder),
            Err(error) => return Ok(Err(format!("zstd: {error}"))),
        },
    };
    let ratio_bytes = body.len().saturating_mul(MAX_RATIO).max(RATIO_FREE_BYTES);
    let mut out = Vec::with_capacity(body.len().saturating_mul(4).min(max_bytes).min(1 << 20));
    let mut chunk = vec![0u8; 64 << 10];
    loop {
        let read = match reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => {
                return Ok(Err(format!(
                    "the {compression:?} body cannot be decompressed after {} bytes: {error}",
                    out.len()
                )));
            }
        };
        if out.len() + read > max_bytes {
            return Err(Error::TooLarge { what: "the decompressed request", limit_bytes: max_bytes as u64 });
        }
        if out.len() + read > ratio_bytes {
            return Ok(Err(format!("the body decompresses to more than {MAX_RATIO} times its size")));
        }
        reservation.grow(read)?;
        out.extend_from_slice(&chunk[..read]);
    }
    Ok(Ok(out.into()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use futures::StreamExt;

    use super::*;
    use crate::receive::MemoryBudget;

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory").into()
    }

    fn decompress_one(body: Bytes, compression: Compression, max: usize) -> Result<std::result::Result<Bytes, String>> {
        decompress(body, compression, max, &mut MemoryBudget::new(64 << 20).reservation())
    }

    #[tokio::test]
    async fn a_body_that_stands_still_or_trickles_gives_its_memory_back() {
        let budget = MemoryBudget::new(8 << 10);
        let part = || Ok::<_, std::io::Error>(Bytes::from_static(&[0; 4 << 10]));
        let still = Body::from_stream(futures::stream::iter([part()]).chain(futures::stream::pending()));
        let silence = BodyTime { silence: Duration::from_millis(20), ..BodyTime::default() };
        let trickle = Body::from_stream(futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::new())).then(
            |empty| async move {
                tokio::task::yield_now().await;
                empty
            },
        ));
        let whole = BodyTime { whole: Duration::from_millis(20), ..BodyTime::default() };
        for (body, time) in [(still, silence), (trickle, whole)] {
            let mut reservation = budget.reservation();
            let error = read_body(body, 1 << 20, time, &mut reservation).await.expect_err("takes too long");
            assert!(error.to_string().contains("0.02 s") && error.retry_after().is_some(), "{error}");
        }
        budget.reservation().grow(8 << 10).expect("all of it is free again");
    }

    #[test]
    fn every_compression_gives_the_body_back() {
        let body = b"tide mill".repeat(1000);
        let zstd = zstd::encode_all(&body[..], 1).expect("memory");
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(&body).expect("memory");
        let zlib = Bytes::from(zlib.finish().expect("memory"));
        let bare = zlib.slice(2..zlib.len() - 4);
        for (bytes, compression) in [
            (Bytes::from(body.clone()), Compression::Identity),
            (gzip(&body), Compression::Gzip),
            (zlib, Compression::Deflate),
            (bare, Compression::Deflate),
            (Bytes::from(zstd), Compression::Zstd),
        ] {
            let read = decompress_one(bytes, compression, 1 << 20).expect("within bounds").expect("valid");
            assert_eq!(&read[..], &body[..], "{compression:?}");
        }
    }

    #[test]
    fn a_truncated_body_and_a_bomb_are_refused_with_a_reason() {
        let whole = gzip(&b"tide mill".repeat(1000));
        let torn = whole.slice(..whole.len() / 2);
        let reason = decompress_one(torn, Compression::Gzip, 1 << 20).expect("within bounds").expect_err("torn");
        assert!(reason.contains("cannot be decompressed"), "{reason}");
        let bomb = gzip(&vec![0; 16 << 20]);
        let reason =
            decompress_one(bomb.clone(), Compression::Gzip, 64 << 20).expect("within bounds").expect_err("bomb");
        assert!(reason.contains("200 times"), "{reason}");
        assert!(matches!(decompress_one(bomb, Compression::Gzip, 1 << 10), Err(Error::TooLarge { .. })));
    }
}
