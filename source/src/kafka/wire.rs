//! A connection to one broker: one request at a time, its version the newest that both sides know.
//!
//! Protocol: <https://kafka.apache.org/protocol>. SASL by PLAIN only.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsRequest, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::SourceError;

/// A longer answer is refused before it is read.
const MAX_ANSWER: usize = 16 << 20;

/// How brokers are talked to.
#[derive(Debug, Clone, Default)]
pub(super) struct Login {
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
    /// User and password of SASL PLAIN.
    pub(super) plain: Option<(String, String)>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that was logged in.
pub(super) struct Connection {
    address: String,
    stream: Box<dyn Stream>,
    next: i32,
    /// The versions that the broker knows, by API key.
    versions: BTreeMap<i16, (i16, i16)>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Connection").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects, asks for versions, logs in.
    pub(super) async fn open(address: &str, login: &Login) -> Result<Self, SourceError> {
        let failed = |what: &dyn std::fmt::Display| SourceError::unavailable(format!("Kafka at {address}: {what}"));
        let stream = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
        let _ = stream.set_nodelay(true);
        let stream: Box<dyn Stream> = match &login.tls {
            None => Box::new(stream),
            Some(config) => {
                let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
                let connector = tokio_rustls::TlsConnector::from(config.clone());
                Box::new(connector.connect(name, stream).await.map_err(|error| failed(&error))?)
            }
        };
        let mut connection = Self { address: address.to_owned(), stream, next: 0, versions: BTreeMap::new() };
        let known = connection.send(&ApiVersionsRequest::default(), 0).await?;
        connection.versions =
            known.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        if let Some((user, password)) = &login.plain {
            connection.login(user, password).await?;
        }
        Ok(connection)
    }

    async fn login(&mut self, user: &str, password: &str) -> Result<(), SourceError> {
        let mechanism = StrBytes::from_static_str("PLAIN");
        let answer = self.call(&SaslHandshakeRequest::default().with_mechanism(mechanism), 1).await?;
        self.check(answer.error_code, "SASL PLAIN")?;
        let token = Bytes::from(format!("\0{user}\0{password}"));
        let answer = self.call(&SaslAuthenticateRequest::default().with_auth_bytes(token), 1).await?;
        self.check(answer.error_code, answer.error_message.as_deref().unwrap_or("logging in"))
    }

    /// An error code as an error.
    pub(super) fn check(&self, code: i16, what: &str) -> Result<(), SourceError> {
        match kafka_protocol::error::ResponseError::try_from_code(code) {
            None => Ok(()),
            Some(error) => Err(SourceError::unavailable(format!("Kafka at {}: {what}: {error}", self.address))),
        }
    }

    /// Sends a request in the newest version up to `most` that the broker knows.
    pub(super) async fn call<R: Request>(&mut self, request: &R, most: i16) -> Result<R::Response, SourceError> {
        let ours = R::VERSIONS;
        let (least, newest) = self.versions.get(&R::KEY).copied().unwrap_or((0, -1));
        let version = most.min(newest).min(ours.max);
        if version < least.max(ours.min) {
            return Err(SourceError::unavailable(format!(
                "Kafka at {}: no version of API {} that both sides know",
                self.address,
                R::KEY
            )));
        }
        self.send(request, version).await
    }

    async fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, SourceError> {
        let address = self.address.clone();
        let broken = |what: &dyn std::fmt::Display| SourceError::unavailable(format!("Kafka at {address}: {what}"));
        self.next = self.next.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.next)
            .with_client_id(Some(StrBytes::from_static_str("tidemill")));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        header.encode(&mut frame, R::header_version(version)).map_err(|error| broken(&error))?;
        request.encode(&mut frame, version).map_err(|error| broken(&error))?;
        let length = i32::try_from(frame.len() - 4).map_err(|error| broken(&error))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&frame).await.map_err(|error| broken(&error))?;
        self.stream.flush().await.map_err(|error| broken(&error))?;
        let length = self.stream.read_i32().await.map_err(|error| broken(&error))?;
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_ANSWER);
        let Some(length) = length else { return Err(broken(&"an answer of no possible length")) };
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).await.map_err(|error| broken(&error))?;
        let mut answer = Bytes::from(answer);
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version));
        if header.map_err(|error| broken(&error))?.correlation_id != self.next {
            return Err(broken(&"an answer to another request"));
        }
        // Bytes after it are a newer version's, and passed over as by every client.
        R::Response::decode(&mut answer, version).map_err(|error| broken(&error))
    }
}
