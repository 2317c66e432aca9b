//! TLS to what is observed: the host's roots, or an authority that the trigger brings.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::SourceError;

/// PEM texts of a trigger's authentication.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pem<'a> {
    /// The authority that replaces the host's roots.
    pub(crate) authority: Option<&'a str>,
    /// The client's own certificate and key.
    pub(crate) own: Option<(&'a str, &'a str)>,
}

/// A configuration that verifies whom it talks to.
///
/// # Errors
/// A text that is no PEM.
pub(crate) fn config(pem: Pem<'_>) -> Result<ClientConfig, SourceError> {
    let invalid = |what: &str, error: &dyn std::fmt::Display| SourceError::invalid(format!("{what}: {error}"));
    let mut roots = RootCertStore::empty();
    match pem.authority {
        Some(text) => {
            for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
                let certificate = certificate.map_err(|error| invalid("ca", &error))?;
                roots.add(certificate).map_err(|error| invalid("ca", &error))?;
            }
            if roots.is_empty() {
                return Err(SourceError::invalid("ca: it has no certificate in PEM"));
            }
        }
        None => {
            for certificate in rustls_native_certs::load_native_certs().certs {
                // One that cannot be read makes the others no worse.
                let _ = roots.add(certificate);
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| invalid("TLS", &error))?.with_root_certificates(roots);
    let Some((certificate, key)) = pem.own else { return Ok(builder.with_no_client_auth()) };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let chain = chain.map_err(|error| invalid("client certificate", &error))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| invalid("client key", &error))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| invalid("client certificate", &error))
}
