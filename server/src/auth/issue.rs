//! New API keys. The key is shown once; its SHA-256 is what is stored.

use rand::TryRngCore as _;
use rand::rngs::OsRng;
use sha2::{Digest as _, Sha256};
use tidemill_store::metastore::{ApiKey, KeyRole};
use tidemill_types::{ErrorKind, OrganizationId, TimestampNs};

use crate::error::{Error, Result};

/// A key that was just made.
#[derive(Debug)]
pub struct NewKey {
    /// What its holder sends. Shown once.
    pub secret: String,
    /// What is stored.
    pub stored: ApiKey,
}

/// The SHA-256 of a key.
pub fn hash_key(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Makes a key of 160 random bits: `tm_` (an organization's) or `tmop_` (an operator's), then 40 hexadecimal digits. Its
/// public id is the prefix with the first 8 of them.
///
/// # Errors
/// `Unavailable` when the system gives no randomness.
pub fn issue_key(organization: Option<OrganizationId>, label: &str, now: TimestampNs) -> Result<NewKey> {
    let mut random = [0_u8; 20];
    OsRng
        .try_fill_bytes(&mut random)
        .map_err(|error| Error::caused(ErrorKind::Unavailable, "the system gives no randomness for a key", error))?;
    let (prefix, role) = match organization {
        Some(_) => ("tm", KeyRole::Organization),
        None => ("tmop", KeyRole::Operator),
    };
    let digits = hex::encode(random);
    let secret = format!("{prefix}_{digits}");
    let stored = ApiKey {
        id: format!("{prefix}_{}", &digits[..8]),
        hash: hash_key(&secret),
        organization,
        role,
        label: label.to_owned(),
        created_at: now,
    };
    Ok(NewKey { secret, stored })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_stored_as_its_hash_and_listed_by_its_beginning() {
        let key = issue_key(None, "ops", TimestampNs(1)).expect("there is randomness");
        assert_eq!(key.stored.hash, hash_key(&key.secret));
        assert_eq!(key.stored.role, KeyRole::Operator);
        assert!(key.secret.starts_with(&key.stored.id) && key.secret.len() > key.stored.id.len() + 24);
        let other = issue_key(None, "ops", TimestampNs(1)).expect("there is randomness");
        assert_ne!(key.secret, other.secret);
    }
}
