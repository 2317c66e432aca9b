//! `tidemill doctor`: checks what a server needs, and says how to fix each.

use std::net::TcpListener;
use std::time::Instant;

use serde::Serialize;
use tidemill_lake::clock::{Clock as _, SystemClock};
use tidemill_types::ErrorKind;

use crate::cli::GlobalOptions;
use crate::commands::block_on;
use crate::config::{Config, format_bytes};
use crate::data_folder::DataFolder;
use crate::error::{Error, Result};
use crate::output::{Table, print};
use crate::stack::{open_buckets, open_existing_metastore};

#[derive(Serialize)]
struct Check {
    what: &'static str,
    is_good: bool,
    found: String,
    fix: String,
}

impl Check {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, is_good: true, found: found.into(), fix: String::new() }
    }

    fn bad(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, is_good: false, found: found.into(), fix: fix.into() }
    }
}

/// Runs it.
///
/// # Errors
/// `Unavailable` when a check failed.
pub fn run(global: &GlobalOptions) -> Result<()> {
    let config = global.load_config(Vec::new())?;
    let mut checks = block_on(async {
        let mut checks = check_database(&config).await;
        checks.extend(check_buckets(&config).await);
        Ok(checks)
    })?;
    checks.push(check_disk(&config));
    checks.extend(check_ports(&config));
    let bad = checks.iter().filter(|check| !check.is_good).count();
    print(global.output, &checks, |checks| table(checks))?;
    match bad {
        0 => Ok(()),
        _ => Err(Error::new(ErrorKind::Unavailable, format!("{bad} of {} checks failed", checks.len()))),
    }
}

async fn check_database(config: &Config) -> Vec<Check> {
    let started = Instant::now();
    let metastore = match open_existing_metastore(config).await {
        Ok(metastore) => metastore,
        Err(error) if error.kind() == ErrorKind::NotFound && config.optional("metastore.url").is_none() => {
            return vec![Check::good("database", "embedded, will be made at the first start")];
        }
        Err(error) => {
            let fix = error
                .hint()
                .unwrap_or("check metastore.url, the network, and that the server is PostgreSQL 16 or later");
            return vec![Check::bad("database", error.full_message(), fix)];
        }
    };
    match metastore.now().await {
        Ok(now) => {
            let described = format!("{}, answered in {} ms", metastore.describe(), started.elapsed().as_millis());
            let skew_ms = (now.0 - SystemClock.now().0) / 1_000_000;
            let clock = if skew_ms.abs() < 5_000 {
                Check::good("clock", format!("{skew_ms} ms from the database's"))
            } else {
                let found = format!("{skew_ms} ms from the database's");
                Check::bad("clock", found, "synchronize both machines by NTP (chronyc tracking; timedatectl)")
            };
            vec![Check::good("database", described), clock]
        }
        Err(error) => {
            vec![Check::bad("database", error.to_string(), "check that it accepts connections and is not read-only")]
        }
    }
}

async fn check_buckets(config: &Config) -> Vec<Check> {
    // A question makes no folder.
    if config.optional("storage.url").is_none() && !DataFolder::new(config.data_dir()).objects().exists() {
        return vec![Check::good("bucket", "embedded, will be made at the first start")];
    }
    let buckets = match open_buckets(config).await {
        Ok(buckets) => buckets,
        Err(error) => {
            let fix = error.hint().unwrap_or("check storage.url and the credentials").to_owned();
            return vec![Check::bad("bucket", error.full_message(), fix)];
        }
    };
    let mut checks = Vec::new();
    for name in buckets.names() {
        checks.push(match check_bucket(&buckets, &name).await {
            Ok(()) => Check::good("bucket", format!("{name}: written, read and deleted")),
            Err(error) => {
                let fix = "the role needs to list, read, write and delete; check region, endpoint and path style";
                Check::bad("bucket", format!("{name}: {}", error.full_message()), fix)
            }
        });
    }
    checks
}

async fn check_bucket(buckets: &tidemill_store::buckets::Buckets, name: &str) -> Result<()> {
    use tidemill_store::object::{PutBody, PutMode};
    let store = buckets.get(name)?;
    let key = format!("db/doctor/{}", uuid::Uuid::new_v4());
    let body = bytes::Bytes::from_static(b"doctor");
    store.put(&key, PutBody::Chunks(vec![body.clone()]), PutMode::IfAbsent).await?;
    let read = store.get_ranges(&key, std::slice::from_ref(&(0..6))).await;
    store.delete(&key).await?;
    if read?.first() == Some(&body) {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::Corrupt, "what was read is not what was written"))
    }
}

fn check_disk(config: &Config) -> Check {
    let folder = DataFolder::new(config.data_dir());
    let existing = folder.root().ancestors().find(|folder| folder.exists()).unwrap_or(std::path::Path::new("."));
    let existing = if existing.as_os_str().is_empty() { std::path::Path::new(".") } else { existing };
    match rustix::fs::statvfs(existing) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let text = format!("{} free for {}", format_bytes(free), folder.root().display());
            if free > 1 << 30 {
                Check::good("disk", text)
            } else {
                Check::bad("disk", text, "free some space, or choose another data_dir; ingest is refused below 256 MiB")
            }
        }
        Err(error) => {
            Check::bad("disk", format!("{}: {error}", existing.display()), "choose a data_dir that can be read")
        }
    }
}

fn check_ports(config: &Config) -> Vec<Check> {
    if let Some(ports) = DataFolder::new(config.data_dir()).running_server() {
        return vec![Check::good(
            "ports",
            format!("a server of this data folder (process {}) serves {}", ports.pid, ports.url(ports.api)),
        )];
    }
    let keys = ["listen.grpc_port", "listen.http_port", "listen.api_port"];
    let check = |key: &'static str| {
        let address = config.listen(key);
        match TcpListener::bind(address) {
            Ok(_) => Check::good("ports", format!("{address} is free ({key})")),
            Err(error) => {
                Check::bad("ports", format!("{address}: {error}"), format!("stop what listens there, or set {key}"))
            }
        }
    };
    keys.into_iter().map(check).collect()
}

fn table(checks: &[Check]) -> Table {
    let mut table = Table::new(&["CHECK", "RESULT", "FOUND", "HOW TO FIX"]);
    for check in checks {
        let result = if check.is_good { "ok" } else { "FAILED" };
        table.row(vec![check.what.to_owned(), result.to_owned(), check.found.clone(), check.fix.clone()]);
    }
    table
}
