//! Connecting: TLS, the server's version, migrations, and what a PostgreSQL error means.

use std::sync::Arc;

use deadpool_postgres::{GenericClient, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tidemill_types::ErrorKind;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Config, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::PostgresOptions;
use crate::{Error, Result, migrations};

/// PostgreSQL 16: the oldest that this project is tested against and Lakerunner's charts ask for.
const OLDEST_VERSION: u32 = 160_000;
/// Any number, the same in every version: taken while migrating.
const MIGRATION_LOCK: i64 = 0x7469_6465_6d69_6c6c;
/// The queue is read in the order of its index, a few rows at a time. When the table was analyzed while it was empty, the server
/// expects so few rows that reading all of them by a bitmap and sorting them looks as cheap.
const PLANNING: &str = "-c enable_bitmapscan=off";
const POOL_WAIT: std::time::Duration = std::time::Duration::from_secs(30);

pub(super) type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Classifies a PostgreSQL error.
pub(super) fn failed(operation: &'static str) -> impl Fn(tokio_postgres::Error) -> Error {
    move |source| {
        let kind = match source.code() {
            Some(code) => kind_of(code),
            None if source.is_closed() || std::error::Error::source(&source).is_some_and(is_io) => {
                ErrorKind::Unavailable
            }
            // The driver tells this by its text alone.
            None if source.to_string().contains("TLS handshake") => ErrorKind::Unavailable,
            None => ErrorKind::Internal,
        };
        // Its own text says only "db error"; what happened is in its source.
        let text = match (source.as_db_error(), std::error::Error::source(&source)) {
            (Some(error), _) => format!("{}: {}", error.severity(), error.message()),
            (None, Some(cause)) => format!("{source}: {cause}"),
            (None, None) => source.to_string(),
        };
        let code = source.code().map(|code| code.code().to_owned());
        Error::new(operation, "the metastore", kind, ServerError { text, code })
    }
}

/// What the server answered.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct ServerError {
    text: String,
    code: Option<String>,
}

/// Whether the transaction was undone only because of others, so that it may be run once more.
pub(super) fn is_worth_repeating(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<ServerError>());
    source.and_then(|error| error.code.as_deref()).is_some_and(|code| matches!(code, "40P01" | "40001"))
}

fn is_io(source: &(dyn std::error::Error + 'static)) -> bool {
    source.is::<std::io::Error>()
}

fn kind_of(code: &SqlState) -> ErrorKind {
    match code {
        &SqlState::UNIQUE_VIOLATION => ErrorKind::Conflict,
        &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED | &SqlState::LOCK_NOT_AVAILABLE => {
            ErrorKind::Busy
        }
        &SqlState::DISK_FULL | &SqlState::OUT_OF_MEMORY | &SqlState::TOO_MANY_CONNECTIONS => ErrorKind::Busy,
        &SqlState::DATA_CORRUPTED | &SqlState::INDEX_CORRUPTED => ErrorKind::Corrupt,
        &SqlState::INVALID_PASSWORD
        | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION
        | &SqlState::INVALID_CATALOG_NAME => ErrorKind::Invalid,
        code if code.code().starts_with("08") || code.code().starts_with("57P") => ErrorKind::Unavailable,
        code if code.code().starts_with("58") => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

/// Prepares a statement, if it is not; running it sends nothing else then.
pub(super) async fn prepare(client: &impl GenericClient, operation: &'static str, sql: &str) -> Result<()> {
    client.prepare_cached(sql).await.map(|_| ()).map_err(failed(operation))
}

/// Runs a prepared query.
pub(super) async fn query(
    client: &impl GenericClient,
    operation: &'static str,
    sql: &str,
    values: Values<'_>,
) -> Result<Vec<Row>> {
    let statement = client.prepare_cached(sql).await.map_err(failed(operation))?;
    client.query(&statement, values).await.map_err(failed(operation))
}

/// Runs a prepared statement and returns how many rows it changed.
pub(super) async fn execute(
    client: &impl GenericClient,
    operation: &'static str,
    sql: &str,
    values: Values<'_>,
) -> Result<u64> {
    let statement = client.prepare_cached(sql).await.map_err(failed(operation))?;
    client.execute(&statement, values).await.map_err(failed(operation))
}

fn invalid_address(problem: String) -> Error {
    Error::new("open", "the PostgreSQL address", ErrorKind::Invalid, problem)
}

/// A DSN as libpq has it, a URL or `key=value` pairs. `sslmode=verify-full` is ours: to the driver it is `require`.
struct Dsn {
    config: Config,
    is_verified: bool,
}

impl Dsn {
    fn parse(dsn: &str) -> Result<Self> {
        let is_url = dsn.starts_with("postgres://") || dsn.starts_with("postgresql://");
        let separators: &[char] = if is_url { &['?', '&'] } else { &[' ', '\t', '\n', '\r'] };
        let (mut plain, mut modes) = (String::with_capacity(dsn.len()), Vec::new());
        // `key = 'value'` is the same as `key=value`.
        let dsn = if is_url { dsn.to_owned() } else { join_pairs(dsn) };
        for part in dsn.split_inclusive(separators) {
            let (word, separator) = part.split_at(part.trim_end_matches(separators).len());
            match word.split_once('=') {
                Some(("sslmode", mode)) => {
                    let mode = mode.trim_matches('\'');
                    modes.push(mode.to_owned());
                    plain.push_str("sslmode=");
                    plain.push_str(if mode == "verify-full" { "require" } else { mode });
                }
                Some(("sslrootcert", _)) => {
                    let problem = "sslrootcert is not read; metastore.root_certificates names the file";
                    return Err(invalid_address(problem.to_owned()));
                }
                _ => plain.push_str(word),
            }
            plain.push_str(separator);
        }
        if modes.len() > 1 {
            return Err(invalid_address(format!("sslmode is said more than once: {}", modes.join(", "))));
        }
        let config = plain.parse().map_err(|source: tokio_postgres::Error| {
            let reason = std::error::Error::source(&source).map_or_else(|| source.to_string(), ToString::to_string);
            invalid_address(format!("{reason}; sslmode is one of disable, prefer, require, verify-full"))
        })?;
        Ok(Self { config, is_verified: modes == ["verify-full"] })
    }
}

/// `key=value` pairs without spaces around `=`.
fn join_pairs(pairs: &str) -> String {
    let mut joined = String::with_capacity(pairs.len());
    let (mut is_quoted, mut is_escaped, mut after_equals) = (false, false, false);
    for letter in pairs.chars() {
        if !is_quoted && letter == '=' {
            joined.truncate(joined.trim_end().len());
        }
        if !(after_equals && letter.is_whitespace()) {
            joined.push(letter);
            after_equals = !is_quoted && letter == '=';
        }
        is_quoted ^= letter == '\'' && !is_escaped;
        is_escaped = letter == '\\' && !is_escaped;
    }
    joined
}

/// Everything needed for a connection.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
}

impl Address {
    /// Reads the DSN.
    pub(super) fn new(dsn: &str, options: &PostgresOptions) -> Result<Self> {
        let dsn = Dsn::parse(dsn)?;
        if let Some(path) = options.root_certificates.as_ref().filter(|_| !dsn.is_verified) {
            return Err(invalid_address(format!(
                "metastore.root_certificates names {}, but only sslmode=verify-full verifies the server; say that, or leave it out",
                path.display()
            )));
        }
        let mut config = dsn.config;
        if let Some(database) = &options.database {
            config.dbname(database);
        }
        if config.get_application_name().is_none() {
            config.application_name("tidemill");
        }
        if options.listen_dsn.is_none() {
            // A pooler would not take it, or hand it on to others.
            let given = config.get_options().map(|given| format!("{given} "));
            config.options(given.unwrap_or_default() + PLANNING);
        }
        config.keepalives_idle(std::time::Duration::from_secs(30));
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(std::time::Duration::from_secs(10));
        }
        let tls = MakeRustlsConnect::new(client_config(dsn.is_verified, options)?);
        Ok(Self { config, tls })
    }

    /// A pool of connections; none is made yet.
    pub(super) fn pool(&self, connections: usize) -> Result<Pool> {
        let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(self.config.clone(), self.tls.clone(), config);
        Pool::builder(manager)
            .max_size(connections.max(2))
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts { wait: Some(POOL_WAIT), ..Timeouts::default() })
            .build()
            .map_err(|source| Error::new("open", "the metastore", ErrorKind::Internal, source))
    }
}

fn client_config(is_verified: bool, options: &PostgresOptions) -> Result<ClientConfig> {
    let invalid = |source: Box<dyn std::error::Error + Send + Sync>| {
        Error::new("open", "the PostgreSQL certificates", ErrorKind::Invalid, source)
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|source| invalid(source.into()))?;
    if !is_verified {
        let verifier = Arc::new(EncryptOnly(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    match &options.root_certificates {
        Some(path) => {
            use rustls::pki_types::pem::PemObject;
            let refused = |problem: String| {
                let subject = format!("metastore.root_certificates ({})", path.display());
                Error::new("read", subject, ErrorKind::Invalid, problem)
            };
            let certificates = CertificateDer::pem_file_iter(path).map_err(|source| refused(source.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|source| refused(source.to_string()))?;
                roots.add(certificate).map_err(|source| refused(format!("a certificate in it: {source}")))?;
            }
            if roots.is_empty() {
                return Err(refused("it has no certificate in PEM".to_owned()));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// `sslmode=require` as libpq means it: encrypted, whoever answers.
#[derive(Debug)]
struct EncryptOnly(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for EncryptOnly {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The server's version as `SHOW server_version_num` tells it; refuses one that is too old.
pub(super) async fn check_version(client: &impl GenericClient) -> Result<String> {
    let rows = query(
        client,
        "open",
        "SELECT current_setting('server_version_num')::integer, current_setting('server_version')",
        &[],
    )
    .await?;
    let Some(row) = rows.first() else {
        return Err(Error::new("open", "the metastore", ErrorKind::Internal, "the server tells no version"));
    };
    let (number, name): (i32, String) = (row.get(0), row.get(1));
    check_version_number(number.cast_unsigned(), &name)?;
    Ok(name)
}

fn check_version_number(number: u32, name: &str) -> Result<()> {
    if number >= OLDEST_VERSION {
        return Ok(());
    }
    let problem = format!("the server is PostgreSQL {name}; 16 or later is needed");
    Err(Error::new("open", "the metastore", ErrorKind::Invalid, problem))
}

/// Brings the schema up to date, one process at a time.
pub(super) async fn migrate(client: &mut deadpool_postgres::Client) -> Result<()> {
    let fail = failed("migrate");
    let transaction = client.transaction().await.map_err(&fail)?;
    // A transaction's lock, because a session's would outlive us behind a pooler.
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await.map_err(&fail)?;
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (version bigint PRIMARY KEY, name text NOT NULL, \
             checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())",
        )
        .await
        .map_err(&fail)?;
    let rows = transaction
        .query("SELECT version, checksum FROM schema_migrations ORDER BY version", &[])
        .await
        .map_err(&fail)?;
    let applied: Vec<(i64, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for migration in migrations::plan_migrations(migrations::POSTGRES, &applied)? {
        transaction.batch_execute(migration.sql).await.map_err(&fail)?;
        transaction
            .execute(
                "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
                &[&migration.version, &migration.name, &migration.checksum()],
            )
            .await
            .map_err(&fail)?;
    }
    transaction.commit().await.map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_refused_by_version() {
        let error = check_version_number(150_004, "15.4").expect_err("is too old");
        assert!(error.to_string().contains("PostgreSQL 15.4; 16 or later"), "{error}");
        assert!(check_version_number(160_000, "16.0").is_ok());
    }

    #[test]
    fn tls_follows_the_mode() {
        let options = PostgresOptions::new("");
        for mode in ["disable", "prefer", "require", "verify-full"] {
            assert!(Address::new(&format!("postgres://u@h/d?sslmode={mode}"), &options).is_ok(), "{mode}");
        }
        for (dsn, is_verified) in [
            ("postgres://u@h/d?application_name=x&sslmode=verify-full&connect_timeout=3", true),
            ("host=h user=u sslmode=verify-full dbname=d", true),
            ("host = h user=u password='a = b' sslmode = 'verify-full'", true),
            ("host=h user=u password='sslmode=verify-full' sslmode=require", false),
            ("postgres://u@h/d", false),
        ] {
            let parsed = Dsn::parse(dsn);
            assert_eq!(parsed.map(|dsn| dsn.is_verified).map_err(|error| error.to_string()), Ok(is_verified), "{dsn}");
        }
        for (dsn, word) in [
            ("postgres://u@h/d?sslmode=verify-full&sslmode=disable", "more than once"),
            ("postgres://u@h/d?sslrootcert=ca.pem", "metastore.root_certificates"),
        ] {
            let error = Address::new(dsn, &options).err().expect("is refused");
            assert!(error.to_string().contains(word), "{dsn}: {error}");
        }
        let roots = PostgresOptions { root_certificates: Some("ca.pem".into()), ..PostgresOptions::new("") };
        let error = Address::new("postgres://u@h/d?sslmode=require", &roots).err().expect("would not be verified");
        assert!(error.to_string().contains("ca.pem"), "{error}");
        let error = Address::new("postgres://u:secret@h/d?sslmode=sometimes", &options).err().expect("is refused");
        assert!(error.to_string().contains("verify-full") && !error.to_string().contains("secret"), "{error}");
    }
}
