//! How a command reaches an installation: a running server's API, or the metastore itself.
//!
//! Order: `--url`, then the server that runs on the data folder, then the metastore that the configuration names. The answers are
//! the same; both ways end in [`Admin`].

use std::path::Path;
use std::time::Duration;

use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemill_store::metastore::{ApiKey, InboxEntry, Organization, QueueEntry};
use tidemill_types::{ErrorKind, OrganizationId, SegmentId, SegmentMeta, WorkId};

use crate::admin::{Admin, CreatedKey, InboxRequest, OrganizationChange, QueueRequest, Scope, SegmentsRequest, Status};
use crate::auth::ORGANIZATION_HEADER;
use crate::cli::GlobalOptions;
use crate::config::Config;
use crate::data_folder::DataFolder;
use crate::error::{Error, Result};
use crate::http::{
    KeysRequest, NewDocument, NewKeyRequest, NewOrganization, Problem, ProblemBody, RedriveRequest, Redriven,
};
use crate::stack;
use crate::tls_pinned::trust_only;

/// How long a question of administration may take. SQL has the server's own limit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server's API.
#[derive(Debug, Clone)]
pub struct Remote {
    client: reqwest::Client,
    base: String,
    key: Option<String>,
    organization: Option<String>,
}

/// Where a command's questions go.
#[derive(Debug)]
pub enum Target {
    /// A running server.
    Remote(Remote),
    /// The metastore itself, seen as this organization or as a whole.
    Local(Admin, Scope),
}

/// The running server that the flags or the data folder name, if there is one.
///
/// # Errors
/// `Invalid` for a URL that is none.
pub fn find_server(global: &GlobalOptions, config: &Config) -> Result<Option<Remote>> {
    if let Some(url) = &global.url {
        return Remote::new(url, None, global.api_key.clone(), global.organization.clone()).map(Some);
    }
    let folder = DataFolder::new(config.data_dir());
    match folder.running_server() {
        // Whoever names another metastore means that one, not what happens to run here.
        Some(ports)
            if config.optional("metastore.url").is_some() && config.masked("metastore.url") != ports.metastore =>
        {
            Ok(None)
        }
        // A single role is nobody's to command; the metastore that it stands on is at hand.
        Some(_) if global.api_key.is_none() && !folder.has_operator_key() => Ok(None),
        Some(ports) => {
            let key = global.api_key.clone().or_else(|| folder.operator_key());
            let certificate = ports.certificate.as_deref();
            Remote::new(&ports.url(ports.api), certificate, key, global.organization.clone()).map(Some)
        }
        None => Ok(None),
    }
}

/// What a command says that needs a running server where there is none.
pub fn no_server() -> Error {
    Error::new(ErrorKind::Unavailable, "no server runs on this data folder")
        .with_hint("start one with `tidemill up`, or name one with --url http://HOST:PORT")
}

impl Target {
    /// Finds the installation.
    ///
    /// # Errors
    /// Those of opening the metastore, with a hint.
    pub async fn find(global: &GlobalOptions, config: &Config) -> Result<Self> {
        if let Some(remote) = find_server(global, config)? {
            return Ok(Self::Remote(remote));
        }
        let metastore = stack::open_existing_metastore(config).await?;
        let admin = Admin { metastore };
        let scope = match &global.organization {
            Some(named) => Some(admin.organization(named).await?.id),
            None => None,
        };
        Ok(Self::Local(admin, scope))
    }

    /// See [`Admin::status`].
    ///
    /// # Errors
    /// As there, and those of the connection; so for all below.
    pub async fn status(&self) -> Result<Status> {
        match self {
            Self::Remote(remote) => remote.get("status", &()).await,
            Self::Local(admin, _) => admin.status().await,
        }
    }

    /// See [`Admin::inbox`].
    pub async fn inbox(&self, request: &InboxRequest) -> Result<Vec<InboxEntry>> {
        match self {
            Self::Remote(remote) => remote.get("inbox", request).await,
            Self::Local(admin, scope) => Ok(admin.inbox(*scope, request).await?.rows),
        }
    }

    /// See [`Admin::queue`].
    pub async fn queue(&self, request: &QueueRequest) -> Result<Vec<QueueEntry>> {
        match self {
            Self::Remote(remote) => remote.get("queue", request).await,
            Self::Local(admin, scope) => Ok(admin.queue(*scope, request).await?.rows),
        }
    }

    /// See [`Admin::redrive`].
    pub async fn redrive(&self, ids: Option<Vec<WorkId>>) -> Result<u64> {
        match self {
            Self::Remote(remote) => {
                let answer: Redriven = remote.send(Method::POST, "queue/redrive", &RedriveRequest { ids }).await?;
                Ok(answer.redriven)
            }
            Self::Local(admin, _) => admin.redrive(ids.as_deref()).await,
        }
    }

    /// See [`Admin::segments`].
    pub async fn segments(&self, request: &SegmentsRequest) -> Result<Vec<SegmentMeta>> {
        match self {
            Self::Remote(remote) => remote.get("segments", request).await,
            Self::Local(admin, scope) => Ok(admin.segments(*scope, request).await?.rows),
        }
    }

    /// See [`Admin::segment`].
    pub async fn segment(&self, id: SegmentId) -> Result<SegmentMeta> {
        match self {
            Self::Remote(remote) => remote.get(&format!("segments/{id}"), &()).await,
            Self::Local(admin, scope) => admin.segment(*scope, id).await,
        }
    }

    /// See [`Admin::organizations`].
    pub async fn organizations(&self) -> Result<Vec<Organization>> {
        match self {
            Self::Remote(remote) => remote.get("organizations", &()).await,
            Self::Local(admin, _) => admin.organizations().await,
        }
    }

    /// See [`Admin::create_organization`].
    pub async fn create_organization(&self, name: &str, id: Option<OrganizationId>) -> Result<Organization> {
        match self {
            Self::Remote(remote) => {
                remote.send(Method::POST, "organizations", &NewOrganization { name: name.to_owned(), id }).await
            }
            Self::Local(admin, _) => admin.create_organization(name, id).await,
        }
    }

    /// See [`Admin::change_organization`].
    pub async fn change_organization(&self, named: &str, change: &OrganizationChange) -> Result<Organization> {
        match self {
            Self::Remote(remote) => {
                remote.send(Method::PATCH, &format!("organizations/{}", escape(named)), change).await
            }
            Self::Local(admin, _) => admin.change_organization(named, change).await,
        }
    }

    /// See [`Admin::delete_organization`].
    pub async fn delete_organization(&self, named: &str) -> Result<Organization> {
        match self {
            Self::Remote(remote) => remote.send(Method::DELETE, &format!("organizations/{}", escape(named)), &()).await,
            Self::Local(admin, _) => admin.delete_organization(named).await,
        }
    }

    /// See [`Admin::keys`].
    pub async fn keys(&self, organization: Option<String>) -> Result<Vec<ApiKey>> {
        match self {
            Self::Remote(remote) => remote.get("keys", &KeysRequest { organization }).await,
            Self::Local(admin, _) => admin.keys(organization.as_deref()).await,
        }
    }

    /// See [`Admin::create_key`].
    pub async fn create_key(&self, organization: Option<String>, label: &str) -> Result<CreatedKey> {
        match self {
            Self::Remote(remote) => {
                remote.send(Method::POST, "keys", &NewKeyRequest { organization, label: label.to_owned() }).await
            }
            Self::Local(admin, _) => admin.create_key(organization.as_deref(), label).await,
        }
    }

    /// See [`Admin::document`].
    pub async fn document(&self, name: &str) -> Result<Option<String>> {
        match self {
            Self::Remote(remote) => remote.get(&format!("documents/{name}"), &()).await,
            Self::Local(admin, _) => admin.document(name).await,
        }
    }

    /// See [`Admin::store_document`].
    pub async fn store_document(&self, name: &str, label: &str, text: &str) -> Result<()> {
        match self {
            Self::Remote(remote) => {
                let body = NewDocument { label: label.to_owned(), text: text.to_owned() };
                remote.send(Method::PUT, &format!("documents/{name}"), &body).await
            }
            Self::Local(admin, _) => admin.store_document(name, label, text).await,
        }
    }

    /// See [`Admin::revoke_key`].
    pub async fn revoke_key(&self, id: &str) -> Result<()> {
        match self {
            Self::Remote(remote) => {
                let mut call = remote.request(Method::DELETE, &format!("keys/{}", escape(id)));
                call.builder = call.builder.timeout(ANSWER_TIMEOUT);
                call.send_checked().await.map(drop)
            }
            Self::Local(admin, _) => admin.revoke_key(id).await,
        }
    }
}

impl Remote {
    /// The API at `base`; with `certificate`, the server must have just the first one in that file.
    ///
    /// # Errors
    /// `Invalid` for a URL that is none.
    pub fn new(
        base: &str,
        certificate: Option<&Path>,
        key: Option<String>,
        organization: Option<String>,
    ) -> Result<Self> {
        let parsed = reqwest::Url::parse(base).map_err(|error| {
            Error::caused(ErrorKind::Invalid, format!("--url {base:?}"), error).with_hint("as http://127.0.0.1:8080")
        })?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(Error::invalid(format!("--url {base:?}: expected http:// or https://")));
        }
        // Without TLS there is no need to read the system's certificates.
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .tls_built_in_root_certs(parsed.scheme() == "https");
        if let Some(config) = certificate.and_then(trust_only) {
            builder = builder.use_preconfigured_tls(config);
        }
        let client = builder.build().map_err(|error| Error::caused(ErrorKind::Internal, "the HTTP client", error))?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), key, organization })
    }

    /// Begins a request to `/api/v1/<path>`.
    pub fn request(&self, method: Method, path: &str) -> Call {
        self.call(method, &format!("/api/v1/{path}"))
    }

    /// Begins a request to a path from the root.
    pub fn call(&self, method: Method, path: &str) -> Call {
        let mut builder = self.client.request(method, format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            builder = builder.bearer_auth(key);
        }
        if let Some(organization) = &self.organization {
            builder = builder.header(ORGANIZATION_HEADER, organization);
        }
        Call { builder, base: self.base.clone() }
    }

    /// Begins a request to any path.
    pub fn request_to(&self, method: Method, path: &str) -> Call {
        let mut builder = self.client.request(method, format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            builder = builder.bearer_auth(key);
        }
        Call { builder, base: self.base.clone() }
    }

    /// The same server, acting for `organization`.
    pub fn acting_for(mut self, organization: String) -> Self {
        self.organization = Some(organization);
        self
    }

    /// For which organization it acts.
    pub fn organization(&self) -> Option<&str> {
        self.organization.as_deref()
    }

    /// Asks.
    ///
    /// # Errors
    /// `Unavailable` when nothing answers; the server's own error.
    pub async fn get<Q: Serialize, T: DeserializeOwned>(&self, path: &str, query: &Q) -> Result<T> {
        let mut call = self.request(Method::GET, path);
        call.builder = call.builder.query(query).timeout(ANSWER_TIMEOUT);
        call.read().await
    }

    async fn send<B: Serialize, T: DeserializeOwned>(&self, method: Method, path: &str, body: &B) -> Result<T> {
        let mut call = self.request(method, path);
        call.builder = call.builder.json(body).timeout(ANSWER_TIMEOUT);
        call.read().await
    }
}

/// What an error and all its causes say.
fn chain_of(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(|error| format!("{error}; ")).collect()
}

/// A request to the API being built.
#[derive(Debug)]
pub struct Call {
    /// The request.
    pub builder: reqwest::RequestBuilder,
    base: String,
}

impl Call {
    /// Sends it; an error answer becomes the server's error.
    ///
    /// # Errors
    /// `Unavailable` when nothing answers; the server's own error.
    pub async fn send_checked(self) -> Result<reqwest::Response> {
        let base = self.base;
        let response = self.builder.send().await.map_err(|error| {
            let hint = if chain_of(&error).contains("certificate") {
                "its certificate is not trusted here: name the file that signs it in SSL_CERT_FILE, and the server by a name in the \
                 certificate in --url"
            } else if error.is_timeout() && !error.is_connect() {
                "it takes connections but does not answer: is the process stopped or overloaded?"
            } else {
                "is the server running there?"
            };
            // The layers between repeat each other; the last says what happened.
            let cause = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source()).last();
            let cause = cause.map(ToString::to_string).unwrap_or_default();
            Error::new(ErrorKind::Unavailable, format!("calling {base}: {cause}")).with_hint(hint)
        })?;
        if response.status().is_success() { Ok(response) } else { Err(read_problem(response).await) }
    }

    async fn read<T: DeserializeOwned>(self) -> Result<T> {
        let response = self.send_checked().await?;
        response
            .json()
            .await
            .map_err(|error| Error::caused(ErrorKind::Unavailable, "reading the server's answer", error))
    }
}

async fn read_problem(response: reqwest::Response) -> Error {
    let status = response.status();
    let text = response.text().await.unwrap_or_default();
    if let Some(error) = error_of_status(&text) {
        return error;
    }
    let Ok(body) = serde_json::from_str::<ProblemBody>(&text) else {
        // Other systems' APIs tell their errors as plain text.
        return match status.as_u16() {
            400 | 413 | 422 => Error::invalid(text.trim()),
            429 => Error::new(ErrorKind::Busy, text.trim()),
            _ => Error::new(ErrorKind::Unavailable, format!("the server answered {status}: {}", text.trim())),
        };
    };
    error_of(body.error)
}

/// The error of a Kubernetes `Status`.
fn error_of_status(text: &str) -> Option<Error> {
    let status: serde_json::Value = serde_json::from_str(text).ok()?;
    if status.get("kind")? != "Status" {
        return None;
    }
    let word = |name: &str| status.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    let kind = match word("reason") {
        "NotFound" => ErrorKind::NotFound,
        "AlreadyExists" | "Conflict" => ErrorKind::Conflict,
        "ServiceUnavailable" => ErrorKind::Unavailable,
        "InternalError" => ErrorKind::Internal,
        _ => ErrorKind::Invalid,
    };
    Some(Error::new(kind, word("message")))
}

/// The error that the server told.
pub fn error_of(problem: Problem) -> Error {
    let kind = match problem.kind.as_str() {
        "invalid" | "unauthenticated" | "forbidden" => ErrorKind::Invalid,
        "not_found" => ErrorKind::NotFound,
        "conflict" => ErrorKind::Conflict,
        "busy" => ErrorKind::Busy,
        "unavailable" => ErrorKind::Unavailable,
        "corrupt" => ErrorKind::Corrupt,
        "cancelled" => ErrorKind::Cancelled,
        _ => ErrorKind::Internal,
    };
    let is_about_the_key = problem.kind == "unauthenticated";
    let error = Error::new(kind, problem.message);
    match problem.hint {
        Some(hint) => error.with_hint(hint),
        None if is_about_the_key => error.with_hint("give a key with --api-key or TIDEMILL_API_KEY"),
        None => error,
    }
}

/// `text` as one segment of a URL's path.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_in_paths() {
        assert_eq!(escape("a b/ü"), "a%20b%2F%C3%BC");
    }

    #[test]
    fn a_url_that_is_none_is_refused() {
        for url in ["127.0.0.1:8080", "ftp://x", ""] {
            assert_eq!(Remote::new(url, None, None, None).expect_err("is refused").kind(), ErrorKind::Invalid, "{url}");
        }
    }
}
