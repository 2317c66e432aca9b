//! The token of a Pub/Sub push subscription: proves that Google sends for the configured service account.
//!
//! Format: "Authentication for push subscriptions" of Pub/Sub. RS256 over Google's published keys; issuer, audience, expiry and the
//! verified e-mail address of the service account must all fit. Keys are kept, and loaded again when a token names an unknown
//! one, at most once in [`RELOAD_AFTER`].

use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Where Google publishes its keys.
pub const GOOGLE_KEYS_URL: &str = "https://www.googleapis.com/oauth2/v3/certs";

const ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
const RELOAD_AFTER: Duration = Duration::from_secs(60);
const MAX_KEYS_BYTES: usize = 256 * 1024;

/// Where the signing keys (a JSON Web Key Set) are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// At an address.
    Url(String),
    /// In a file.
    File(PathBuf),
}

/// What a token must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushTokenOptions {
    /// The signing keys; [`GOOGLE_KEYS_URL`] unless configured.
    pub keys: KeySource,
    /// The audience configured at the subscription.
    pub audience: String,
    /// The service account configured at the subscription.
    pub email: String,
}

/// Verifies tokens.
#[derive(Debug)]
pub struct PushTokenVerifier {
    options: PushTokenOptions,
    client: reqwest::Client,
    loaded: Mutex<Option<Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    keys: JwkSet,
    at: Instant,
}

/// Why a token does not prove what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token is wrong.
    #[error("the Pub/Sub push token is refused: {0}")]
    Refused(String),
    /// The keys could not be loaded; the sender may come again.
    #[error("the keys of Pub/Sub push tokens cannot be loaded: {0}")]
    Unavailable(String),
}

#[derive(Debug, Deserialize)]
struct Claims {
    email: Option<String>,
    #[serde(default)]
    email_verified: bool,
}

impl PushTokenVerifier {
    /// Loads nothing yet.
    ///
    /// # Errors
    /// A client that cannot be built.
    pub fn new(options: PushTokenOptions) -> Result<Self, TokenError> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build();
        let client = client.map_err(|error| TokenError::Unavailable(error.to_string()))?;
        Ok(Self { options, client, loaded: Mutex::new(None) })
    }

    /// Verifies the token of an `Authorization: Bearer` header.
    ///
    /// # Errors
    /// What does not fit, or that the keys could not be loaded.
    pub async fn verify(&self, token: &str) -> Result<(), TokenError> {
        let refused = |error: jsonwebtoken::errors::Error| TokenError::Refused(error.to_string());
        let header = decode_header(token).map_err(refused)?;
        let name = header.kid.ok_or_else(|| TokenError::Refused("it names no key (kid)".to_owned()))?;
        let key = self.key(&name).await?;
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&[&self.options.audience]);
        validation.set_issuer(&ISSUERS);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        let claims = decode::<Claims>(token, &key, &validation).map_err(refused)?.claims;
        if claims.email.as_deref() != Some(self.options.email.as_str()) {
            let found = claims.email.unwrap_or_default();
            return Err(TokenError::Refused(format!("its email {found:?} is not {:?}", self.options.email)));
        }
        if !claims.email_verified {
            return Err(TokenError::Refused("its email is not verified".to_owned()));
        }
        Ok(())
    }

    async fn key(&self, name: &str) -> Result<DecodingKey, TokenError> {
        let mut loaded = self.loaded.lock().await;
        let has_key = loaded.as_ref().is_some_and(|loaded| loaded.keys.find(name).is_some());
        let may_reload = loaded.as_ref().is_none_or(|loaded| loaded.at.elapsed() >= RELOAD_AFTER);
        if !has_key && may_reload {
            *loaded = Some(Loaded { keys: self.load_keys().await?, at: Instant::now() });
        }
        let found = loaded.as_ref().and_then(|loaded| loaded.keys.find(name));
        let found =
            found.ok_or_else(|| TokenError::Refused(format!("its key {name:?} is not among the published ones")))?;
        DecodingKey::from_jwk(found).map_err(|error| TokenError::Unavailable(format!("the key {name:?}: {error}")))
    }

    async fn load_keys(&self) -> Result<JwkSet, TokenError> {
        let unavailable = |error: &dyn std::fmt::Display| TokenError::Unavailable(error.to_string());
        let bytes = match &self.options.keys {
            KeySource::File(path) => {
                tokio::fs::read(path).await.map_err(|error| unavailable(&format!("{}: {error}", path.display())))?
            }
            KeySource::Url(url) => self.fetch(url).await?,
        };
        serde_json::from_slice(&bytes).map_err(|error| unavailable(&format!("no JSON Web Key Set: {error}")))
    }

    async fn fetch(&self, url: &str) -> Result<Vec<u8>, TokenError> {
        let unavailable = |error: reqwest::Error| TokenError::Unavailable(error.to_string());
        let answer = self.client.get(url).send().await.and_then(reqwest::Response::error_for_status);
        let mut answer = answer.map_err(unavailable)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unavailable)? {
            if bytes.len() + chunk.len() > MAX_KEYS_BYTES {
                return Err(TokenError::Unavailable(format!("{url} answers more than {MAX_KEYS_BYTES} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;

    /// A key pair made for these tests only.
    const PRIVATE_KEY: &[u8] = include_bytes!("test_keys/push_token.pem");
    const KEY_SET: &str = include_str!("test_keys/push_token.jwks.json");

    const AUDIENCE: &str = "https://lake.example/notifications";
    const EMAIL: &str = "pusher@project.iam.gserviceaccount.com";

    fn claims() -> Value {
        let now = jsonwebtoken::get_current_timestamp();
        json!({"iss": "https://accounts.google.com", "aud": AUDIENCE, "email": EMAIL, "email_verified": true,
               "iat": now, "exp": now + 3600})
    }

    fn token(kid: &str, algorithm: Algorithm, claims: &Value) -> String {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) };
        let key = match algorithm {
            Algorithm::HS256 => EncodingKey::from_secret(KEY_SET.as_bytes()),
            _ => EncodingKey::from_rsa_pem(PRIVATE_KEY).expect("a key"),
        };
        encode(&header, claims, &key).expect("a token")
    }

    fn verifier() -> (PushTokenVerifier, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), KEY_SET).expect("written");
        let keys = KeySource::File(file.path().to_owned());
        let options = PushTokenOptions { keys, audience: AUDIENCE.to_owned(), email: EMAIL.to_owned() };
        (PushTokenVerifier::new(options).expect("a verifier"), file)
    }

    #[tokio::test]
    async fn a_token_of_the_configured_account_is_accepted() {
        let (verifier, _file) = verifier();
        assert_eq!(verifier.verify(&token("test", Algorithm::RS256, &claims())).await, Ok(()));
    }

    #[tokio::test]
    async fn every_other_token_is_refused() {
        let (verifier, _file) = verifier();
        for (name, value) in [
            ("iss", json!("https://issuer.example")),
            ("aud", json!("https://other.example")),
            ("email", json!("someone@else.example")),
            ("email", Value::Null),
            ("email_verified", json!(false)),
            ("exp", json!(1_000_000)),
        ] {
            let mut claims = claims();
            claims[name] = value.clone();
            let answer = verifier.verify(&token("test", Algorithm::RS256, &claims)).await;
            assert!(matches!(answer, Err(TokenError::Refused(_))), "{name} = {value}: {answer:?}");
        }
        for name in ["iss", "aud", "exp"] {
            let mut claims = claims();
            claims.as_object_mut().expect("an object").remove(name);
            assert!(verifier.verify(&token("test", Algorithm::RS256, &claims)).await.is_err(), "without {name}");
        }
        for bad in [
            token("unknown", Algorithm::RS256, &claims()),
            token("test", Algorithm::HS256, &claims()),
            token("test", Algorithm::RS512, &claims()),
            token("test", Algorithm::RS256, &claims()) + "x",
            "no token".to_owned(),
        ] {
            assert!(matches!(verifier.verify(&bad).await, Err(TokenError::Refused(_))), "{bad}");
        }
    }
}
