//! TLS for every listener: rustls with ring, the certificate read again when its files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tidemill_types::ErrorKind;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// How often the files' times are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// The certificate in use.
#[derive(Clone)]
pub struct ServerTls {
    files: Arc<Files>,
    current: Arc<ArcSwap<ServerConfig>>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// `Invalid` with the file that is no PEM, or when the two do not belong together.
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Self> {
        let files = Files { certificate, key };
        let config = files.read()?;
        Ok(Self { files: Arc::new(files), current: Arc::new(ArcSwap::from_pointee(config)) })
    }

    /// An acceptor with the certificate of now.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Reads the files again whenever their times change, until `stop`. A pair that cannot be read leaves the old one in use.
    pub async fn run_reload(self, stop: CancellationToken) {
        let mut seen = self.files.modified();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RELOAD_INTERVAL) => {}
            }
            let modified = self.files.modified();
            if modified == seen {
                continue;
            }
            seen = modified;
            self.reload();
        }
    }

    fn reload(&self) {
        match self.files.read() {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!(certificate = %self.files.certificate.display(), "TLS certificate reloaded");
            }
            Err(error) => tracing::warn!(error = %error.full_message(), "the changed TLS certificate is not used"),
        }
    }
}

impl Files {
    fn modified(&self) -> [Option<SystemTime>; 2] {
        [&self.certificate, &self.key].map(|path| std::fs::metadata(path).and_then(|it| it.modified()).ok())
    }

    fn read(&self) -> Result<ServerConfig> {
        let refuse = |path: &Path, error: rustls_pki_types::pem::Error| {
            Error::caused(ErrorKind::Invalid, format!("tls: reading PEM from {}", path.display()), error)
                .with_hint("tls.cert is a PEM certificate chain, tls.key the PEM private key of its first certificate")
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(|error| refuse(&self.certificate, error))?;
        if chain.is_empty() {
            return Err(Error::invalid(format!("{} holds no certificate", self.certificate.display())));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| refuse(&self.key, error))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::caused(ErrorKind::Internal, "TLS versions", error))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| {
                let what = format!("{} and {} do not belong together", self.certificate.display(), self.key.display());
                Error::caused(ErrorKind::Invalid, what, error)
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_pair(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).expect("is written");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("is written");
        (certificate, key)
    }

    #[test]
    fn a_changed_pair_is_used_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate, key) = write_pair(folder.path(), "one.example");
        let tls = ServerTls::load(certificate.clone(), key).expect("is read");
        let first = tls.current.load_full();
        std::fs::write(&certificate, "no certificate").expect("is written");
        tls.reload();
        assert!(Arc::ptr_eq(&first, &tls.current.load_full()));
        write_pair(folder.path(), "two.example");
        tls.reload();
        assert!(!Arc::ptr_eq(&first, &tls.current.load_full()));
    }

    #[test]
    fn a_file_without_a_certificate_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate, key) = write_pair(folder.path(), "one.example");
        std::fs::write(&certificate, "").expect("is written");
        let error = ServerTls::load(certificate, key).expect_err("is refused");
        assert!(error.full_message().contains("cert.pem"), "{}", error.full_message());
    }
}
