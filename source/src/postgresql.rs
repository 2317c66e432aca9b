//! PostgreSQL: one value of one query, and with `inFlightQuery` a second one of the same snapshot.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use crate::parameters::Parameters;
use crate::{Client, Observed, SourceError, tls};

/// One pool for each server, user and database.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    most: usize,
    pools: Mutex<BTreeMap<String, Pool>>,
}

impl Pools {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, pools: Mutex::default() }
    }

    fn pool(&self, config: &Config, mode: Tls) -> Result<Pool, SourceError> {
        let key = format!("{config:?} {:?} {mode:?}", config.get_password());
        let mut pools = self.pools.lock();
        if let Some(pool) = pools.get(&key) {
            return Ok(pool.clone());
        }
        let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match mode {
            Tls::Never => Manager::from_config(config.clone(), NoTls, manager_config),
            Tls::Verified => Manager::from_config(
                config.clone(),
                tokio_postgres_rustls::MakeRustlsConnect::new(tls::config(tls::Pem::default())?),
                manager_config,
            ),
        };
        let pool = Pool::builder(manager)
            .max_size(self.most.max(1))
            .build()
            .map_err(|error| SourceError::invalid(error.to_string()))?;
        pools.insert(key, pool.clone());
        Ok(pool)
    }
}

#[derive(Debug, Clone, Copy)]
enum Tls {
    Never,
    Verified,
}

#[derive(Debug)]
pub(crate) struct Postgresql {
    pool: Pool,
    query: String,
    in_flight: Option<String>,
    timeout: Duration,
}

impl Postgresql {
    pub(crate) fn new(
        parameters: &Parameters,
        pools: std::sync::Arc<Pools>,
        timeout: Duration,
    ) -> Result<Self, SourceError> {
        let (config, tls) = config(parameters, timeout)?;
        let query = parameters.need("query")?.trim().trim_end_matches(';').to_owned();
        let in_flight = parameters.get("inFlightQuery").map(|query| query.trim().trim_end_matches(';').to_owned());
        Ok(Self { pool: pools.pool(&config, tls)?, query, in_flight, timeout })
    }
}

fn config(parameters: &Parameters, timeout: Duration) -> Result<(Config, Tls), SourceError> {
    let invalid =
        |what: &'static str| move |error: tokio_postgres::Error| SourceError::invalid(format!("{what}: {error}"));
    let (mut config, mode) = match parameters.get("connection") {
        Some(text) => (text.parse::<Config>().map_err(invalid("connection"))?, sslmode_of(text)),
        None => {
            let mut config = Config::new();
            config.host(parameters.need("host")?).user(parameters.need("userName")?).dbname(parameters.need("dbName")?);
            let port = parameters.get("port").unwrap_or("5432");
            config.port(port.parse().map_err(|_| SourceError::invalid(format!("port: {port:?} is no port")))?);
            if let Some(password) = parameters.get("password") {
                config.password(password);
            }
            (config, Some(parameters.need("sslmode")?.to_owned()))
        }
    };
    let tls = match mode.as_deref().unwrap_or("prefer") {
        "disable" => Tls::Never,
        "allow" | "prefer" => {
            config.ssl_mode(SslMode::Prefer);
            Tls::Verified
        }
        // Stricter than libpq's `require`, which believes any certificate.
        "require" | "verify-ca" | "verify-full" => {
            config.ssl_mode(SslMode::Require);
            Tls::Verified
        }
        other => {
            return Err(SourceError::invalid(format!(
                "sslmode: {other:?} is none of disable, allow, prefer, require, verify-ca, verify-full"
            )));
        }
    };
    config.connect_timeout(timeout).application_name("tidemill");
    Ok((config, tls))
}

/// The `sslmode` of a connection string or address.
fn sslmode_of(text: &str) -> Option<String> {
    let after = text.split("sslmode=").nth(1)?;
    Some(after.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).next()?.to_owned())
}

#[async_trait]
impl Client for Postgresql {
    async fn observe(&self, _now: Timestamp) -> Result<Observed, SourceError> {
        let client = self
            .pool
            .get()
            .await
            .map_err(|error| SourceError::unavailable(format!("connecting to PostgreSQL: {}", chain(&error))))?;
        let failed = |what: &'static str| {
            move |error: tokio_postgres::Error| SourceError::unavailable(format!("{what}: {}", chain(&error)))
        };
        // One snapshot for both, nothing can be written, and the server gives up when nobody waits any more.
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {}",
            self.timeout.as_millis()
        );
        client.batch_execute(&begin).await.map_err(failed("beginning"))?;
        let at = Timestamp::now();
        let found = async {
            let value = one_value("query", client.simple_query(&self.query).await.map_err(failed("query"))?)?;
            let in_flight = match &self.in_flight {
                Some(query) => Some(one_value(
                    "inFlightQuery",
                    client.simple_query(query).await.map_err(failed("inFlightQuery"))?,
                )?),
                None => None,
            };
            Ok(Observed { in_flight, ..Observed::new(value, at) })
        };
        let found = found.await;
        if client.batch_execute("ROLLBACK").await.is_err() {
            // In an unknown state it serves nobody.
            drop(deadpool_postgres::Object::take(client));
        }
        found
    }
}

fn one_value(what: &str, messages: Vec<SimpleQueryMessage>) -> Result<f64, SourceError> {
    let statements =
        messages.iter().filter(|message| matches!(message, SimpleQueryMessage::CommandComplete(_))).count();
    if statements > 1 {
        return Err(SourceError::invalid(format!("{what}: has {statements} statements; one is allowed")));
    }
    let row =
        messages.iter().find_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None });
    let Some(row) = row else {
        return Err(SourceError::no_value(format!("{what}: gave no row; COUNT and COALESCE always give one")));
    };
    if row.len() != 1 {
        return Err(SourceError::no_value(format!("{what}: gave {} columns; one is needed", row.len())));
    }
    let Some(text) = row.get(0) else {
        return Err(SourceError::no_value(format!("{what}: gave NULL; write COALESCE(…, 0) where that means none")));
    };
    text.parse().map_err(|_| SourceError::no_value(format!("{what}: gave {text:?}, which is no number")))
}

/// An error with what caused it: the driver tells the server's words only there.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        let mut parameters = Parameters::default();
        pairs.iter().for_each(|(name, value)| parameters.set(name, *value));
        parameters
    }

    #[test]
    fn a_connection_is_read_from_parts_and_from_a_string() {
        let second = Duration::from_secs(1);
        let parts =
            parameters(&[("host", "h"), ("userName", "u"), ("dbName", "d"), ("sslmode", "disable"), ("password", "p")]);
        let (config, tls) = config(&parts, second).expect("parts");
        assert!(matches!(tls, Tls::Never));
        assert_eq!(
            (config.get_ports(), config.get_user(), config.get_password()),
            (&[5432][..], Some("u"), Some(&b"p"[..]))
        );
        let text = parameters(&[("connection", "postgres://u:p@h:1/d?sslmode=require")]);
        assert!(matches!(super::config(&text, second), Ok((_, Tls::Verified))));
        for wrong in [&[("host", "h")][..], &[("host", "h"), ("userName", "u"), ("dbName", "d"), ("sslmode", "maybe")]]
        {
            assert!(super::config(&parameters(wrong), second).is_err(), "{wrong:?}");
        }
    }
}
