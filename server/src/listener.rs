//! One listening socket: HTTP/1.1 and HTTP/2 (with prior knowledge or by ALPN), over TLS where a certificate is set.
//!
//! Owns: accepting, the bound on open connections, TLS, graceful shutdown. Never: what is answered (a `Router` given by the caller).
//! Start with [`Listener::bind`] and [`Listener::serve`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::error::{Error, Result};
use crate::preface::PromptStream;
use crate::tls::ServerTls;

/// A client has this long to finish the TLS handshake, to begin a request, and to send its head.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 connections are asked for a sign of life this often.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Requests that one HTTP/2 connection may have open.
const MAX_STREAMS: u32 = 256;

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    max_connections: usize,
    tls: Option<ServerTls>,
}

impl Listener {
    /// Binds `address`; port 0 takes any free one.
    ///
    /// # Errors
    /// `Busy` when the port is taken, with the key that chooses another.
    pub async fn bind(
        address: SocketAddr,
        port_key: &str,
        max_connections: usize,
        tls: Option<ServerTls>,
    ) -> Result<Self> {
        let socket = TcpListener::bind(address).await.map_err(|error| {
            let hint = bind_hint(&error, port_key);
            Error::io(format!("listening on {address}"), error).with_hint(hint)
        })?;
        let address = socket.local_addr().map_err(|error| Error::io("asking for the bound address", error))?;
        Ok(Self { socket, address, max_connections, tls })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Serves `router` until `stop`, then lets requests in flight finish.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.max_connections));
        let graceful = GracefulShutdown::new();
        loop {
            // The slot comes first: beyond the bound, clients wait in the kernel's backlog.
            let slot = tokio::select! {
                () = stop.cancelled() => break,
                slot = Arc::clone(&slots).acquire_owned() => slot.expect("nobody closes the semaphore"),
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let connection = Connection { router: router.clone(), peer, tls: self.tls.clone(), slot };
                    tokio::spawn(connection.run(stream, graceful.watcher(), stop.clone()));
                }
                Err(error) => {
                    // Out of file descriptors: waiting is the only remedy, and the loop must not spin.
                    tracing::warn!(%error, address = %self.address, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(self.socket);
        graceful.shutdown().await;
    }
}

/// What to do about an address that cannot be listened on.
pub fn bind_hint(error: &std::io::Error, port_key: &str) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrNotAvailable => "set listen.address to an address of this machine".to_owned(),
        std::io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 are the system's: choose another with --set {port_key}=<port>")
        }
        _ => format!(
            "stop what listens there, or choose another port with --set {port_key}=<port> (0 takes any free one)"
        ),
    }
}

struct Connection {
    router: Router,
    peer: SocketAddr,
    tls: Option<ServerTls>,
    slot: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, stream: TcpStream, watcher: Watcher, stop: CancellationToken) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, peer = %self.peer, "TCP_NODELAY");
        }
        let Some(tls) = self.tls.clone() else {
            return self.serve(stream, watcher).await;
        };
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(stream));
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = handshake => accepted,
        };
        match accepted {
            Ok(Ok(stream)) => self.serve(stream, watcher).await,
            Ok(Err(error)) => tracing::debug!(%error, peer = %self.peer, "TLS handshake failed"),
            Err(_) => tracing::debug!(peer = %self.peer, "TLS handshake took too long"),
        }
    }

    async fn serve<S>(self, stream: S, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { router, peer, slot, .. } = self;
        let service = router.map_request(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request.map(axum::body::Body::new)
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .keep_alive_interval(KEEP_ALIVE)
            .adaptive_window(true);
        let stream = TokioIo::new(PromptStream::new(stream, HANDSHAKE_TIMEOUT));
        let connection = builder.serve_connection_with_upgrades(stream, TowerToHyperService::new(service)).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, %peer, "connection ended");
        }
        drop(slot);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::routing::get;
    use tokio::sync::Notify;

    use super::*;

    async fn listener(tls: Option<ServerTls>) -> Listener {
        Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), "listen.api_port", 8, tls).await.expect("a free port")
    }

    #[tokio::test]
    async fn a_taken_port_names_the_key_that_chooses_another() {
        let first = listener(None).await;
        let error = Listener::bind(first.address(), "listen.api_port", 8, None).await.expect_err("is taken");
        assert_eq!(error.kind(), tidemill_types::ErrorKind::Busy);
        assert!(error.hint().is_some_and(|hint| hint.contains("listen.api_port")));
        // Of a network that is for documents only.
        let elsewhere = Listener::bind((Ipv4Addr::new(192, 0, 2, 1), 0).into(), "listen.api_port", 8, None).await;
        let error = elsewhere.expect_err("is not this machine");
        assert!(error.hint().is_some_and(|hint| hint.contains("listen.address")), "{error}");
    }

    #[tokio::test]
    async fn a_request_in_flight_is_finished_and_then_nobody_listens() {
        let (arrived, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (tell, wait) = (arrived.clone(), go_on.clone());
        let answer = || async move {
            tell.notify_one();
            wait.notified().await;
            "done"
        };
        let listener = listener(None).await;
        let address = listener.address();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(listener.serve(Router::new().route("/", get(answer)), stop.clone()));
        let request = tokio::spawn(reqwest::get(format!("http://{address}/")));
        arrived.notified().await;
        stop.cancel();
        go_on.notify_one();
        let response = request.await.expect("ends").expect("is answered");
        assert_eq!(response.text().await.expect("has a body"), "done");
        serving.await.expect("ends");
        assert!(reqwest::get(format!("http://{address}/")).await.is_err());
    }

    #[tokio::test]
    async fn a_certificate_is_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).expect("is written");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("is written");
        let listener = listener(Some(ServerTls::load(certificate, key).expect("is read"))).await;
        assert_eq!(listener.scheme(), "https");
        let port = listener.address().port();
        let stop = CancellationToken::new();
        tokio::spawn(listener.serve(Router::new().route("/", get(|| async { "safe" })), stop.clone()));
        let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).expect("is PEM");
        let client = reqwest::Client::builder().add_root_certificate(root).build().expect("a client");
        let answer = client.get(format!("https://localhost:{port}/")).send().await.expect("is answered");
        assert_eq!(answer.text().await.expect("has a body"), "safe");
        assert!(reqwest::get(format!("https://localhost:{port}/")).await.is_err(), "an unknown certificate is refused");
        stop.cancel();
    }
}
