//! Who calls: the trait through which receivers ask, and where a key may stand in a request.
//!
//! Never: storing or comparing keys. The server gives an [`Authenticator`], so that keys rotate without a restart.

use std::fmt::Debug;

use async_trait::async_trait;
use base64::Engine as _;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use tidemill_store::metastore::KeyRole;
use tidemill_types::OrganizationId;

/// An authenticated caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Whose data it may write; `None` for an operator that named no organization.
    pub organization: Option<OrganizationId>,
    /// What it may do.
    pub role: KeyRole,
}

/// Why a caller was turned away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No key was sent.
    #[error("no API key was sent; send it as `Authorization: Bearer <key>`")]
    Missing,
    /// The key is not known, or was revoked.
    #[error("the API key is not valid")]
    Unknown,
    /// The key is valid and does not allow this.
    #[error("{0}")]
    Forbidden(String),
    /// The keys could not be looked up.
    #[error("the API keys cannot be read at the moment: {0}")]
    Unavailable(String),
}

impl AuthError {
    /// The HTTP status that tells this error.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Missing | Self::Unknown => 401,
            Self::Forbidden(_) => 403,
            Self::Unavailable(_) => 503,
        }
    }
}

/// Tells who sent a request.
#[async_trait]
pub trait Authenticator: Send + Sync + Debug + 'static {
    /// Authenticates by the request's headers.
    ///
    /// # Errors
    /// Why the caller is turned away.
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, AuthError>;
}

/// Headers that hold a bare key, most preferred first.
const KEY_HEADERS: [&str; 3] = ["api-key", "x-api-key", "x-cardinalhq-api-key"];

/// The API key in a request: `Authorization: Bearer` or `Basic` (the password, or the user where there is none), `Api-Key`,
/// `x-api-key`, `x-cardinalhq-api-key`.
pub fn api_key(headers: &HeaderMap) -> Option<String> {
    if let Some(key) = headers.get(AUTHORIZATION).and_then(|value| authorization_key(value.to_str().ok()?)) {
        return Some(key);
    }
    let bare = KEY_HEADERS.iter().find_map(|name| headers.get(*name)?.to_str().ok())?;
    Some(bare.trim().to_owned()).filter(|key| !key.is_empty())
}

fn authorization_key(value: &str) -> Option<String> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim();
    let key = if scheme.eq_ignore_ascii_case("basic") {
        let decoded = base64::engine::general_purpose::STANDARD.decode(rest).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (user, password) = decoded.split_once(':').unwrap_or((&decoded, ""));
        if password.is_empty() { user.to_owned() } else { password.to_owned() }
    } else if ["bearer", "apikey", "api-key"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        rest.to_owned()
    } else {
        return None;
    };
    Some(key).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_in(name: &'static str, value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("a header value"));
        api_key(&headers)
    }

    #[test]
    fn a_key_is_found_in_every_accepted_place() {
        for (name, value) in [
            ("authorization", "Bearer k1"),
            ("authorization", "bearer  k1 "),
            ("authorization", "Basic dXNlcjprMQ=="),
            ("authorization", "Basic azE6"),
            ("authorization", "ApiKey k1"),
            ("api-key", "k1"),
            ("x-api-key", "k1"),
            ("x-cardinalhq-api-key", "k1"),
        ] {
            assert_eq!(key_in(name, value).as_deref(), Some("k1"), "{name}: {value}");
        }
    }

    #[test]
    fn nothing_else_is_taken_for_a_key() {
        for (name, value) in
            [("authorization", "Digest k1"), ("authorization", "Bearer "), ("api-key", " "), ("cookie", "k1")]
        {
            assert_eq!(key_in(name, value), None, "{name}: {value}");
        }
    }
}
