//! What is done to one request before it may join a group: decompress, check, convert, hash. Synchronous and bounded.

use bytes::Bytes;
use tidemill_segment::ingest::Issue;
use tidemill_segment::push::check_push;
use tidemill_store::metastore::InputIdentity;
use tidemill_types::TimestampNs;

use super::{PushRequest, Reservation};
use crate::{Result, intake};

/// A request that may be stored.
#[derive(Debug)]
pub(super) struct Checked {
    /// The request as protobuf, uncompressed.
    pub body: Bytes,
    /// Its identity.
    pub identity: InputIdentity,
    /// Records in it.
    pub records: u64,
    /// Records that will be refused.
    pub rejected: u64,
    /// The first reasons.
    pub issues: Vec<Issue>,
    /// How many of the refused ones the body does not hold any more.
    pub left_out: u64,
    /// When it arrived.
    pub arrival: TimestampNs,
    /// Its share of the memory budget.
    pub reservation: Reservation,
}

/// Why nothing of a request can be used.
#[derive(Debug)]
pub(super) struct Malformed {
    /// With its place.
    pub reason: String,
}

/// Checks a request. The outer error is a bound; the inner one the sender's mistake.
pub(super) fn check(request: PushRequest, max_bytes: usize) -> Result<std::result::Result<Checked, Malformed>> {
    let mut reservation = request.reservation.expect("push reserves before it checks");
    let body = match intake::decompress(request.body, request.compression, max_bytes, &mut reservation)? {
        Ok(body) => body,
        Err(reason) => return Ok(Err(Malformed { reason })),
    };
    let identity =
        identify(request.organization.0.as_bytes(), request.signal.as_str(), &body, request.idempotency_key.as_deref());
    let checked = match check_push(request.signal, request.encoding, &body) {
        Ok(checked) => checked,
        Err(issue) => return Ok(Err(Malformed { reason: describe(&issue) })),
    };
    let body = match checked.protobuf {
        Some(protobuf) => {
            reservation.grow(protobuf.len())?;
            protobuf
        }
        None => body,
    };
    Ok(Ok(Checked {
        body,
        identity,
        records: checked.records,
        rejected: checked.rejected,
        issues: checked.issues,
        left_out: checked.left_out,
        arrival: request.arrival,
        reservation,
    }))
}

fn describe(issue: &Issue) -> String {
    if issue.path.is_empty() { issue.reason.clone() } else { format!("{}: {}", issue.path, issue.reason) }
}

/// BLAKE3 over the organization, the signal and either the sender's key or the uncompressed body. Every part is
/// length-prefixed, and the two kinds have different contexts, so that no body equals a key.
fn identify(organization: &[u8; 16], signal: &str, body: &[u8], key: Option<&str>) -> InputIdentity {
    let context = match key {
        Some(_) => "tidemill 2026-11 push identity by Idempotency-Key",
        None => "tidemill 2026-11 push identity by content",
    };
    let content = key.map_or(body, str::as_bytes);
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(organization);
    hasher.update(&(signal.len() as u64).to_le_bytes());
    hasher.update(signal.as_bytes());
    hasher.update(&(content.len() as u64).to_le_bytes());
    hasher.update(content);
    InputIdentity(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_separates_organization_signal_content_and_key() {
        let identities = [
            identify(&[1; 16], "logs", b"x", None),
            identify(&[2; 16], "logs", b"x", None),
            identify(&[1; 16], "traces", b"x", None),
            identify(&[1; 16], "logs", b"y", None),
            identify(&[1; 16], "logs", b"", Some("x")),
        ];
        for (place, identity) in identities.iter().enumerate() {
            assert!(!identities[..place].contains(identity), "identity {place} repeats another");
        }
        assert_eq!(identify(&[1; 16], "logs", b"other body", Some("x")), identities[4]);
    }

    /// Frozen: a changed hash would let requests in twice across an upgrade.
    #[test]
    fn the_hash_of_a_known_request_never_changes() {
        let identity = identify(&[7; 16], "logs", b"tide", None);
        assert_eq!(hex::encode(identity.0), FROZEN);
    }

    const FROZEN: &str = "95c79dec58e88a3f60bbc4ec3a87b4a4e4a37431db65370778a1dadd4c12b812";
}
