//! `tidemill doctor`: checks what a server needs, and says how to fix each.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tidemill_lake::clock::{Clock as _, SystemClock};
use tidemill_store::Metastore;
use tidemill_store::buckets::Buckets;
use tidemill_types::{ErrorKind, StorageProfile};

use crate::cli::GlobalOptions;
use crate::commands::block_on;
use crate::config::{Config, format_bytes};
use crate::data_folder::DataFolder;
use crate::error::{Error, Result};
use crate::listener::bind_hint;
use crate::open_bucket::open_profile_bucket;
use crate::output::{Table, print};
use crate::routing::read_profiles;
use crate::stack::{open_default_bucket, open_existing_metastore};
use crate::tls::ServerTls;

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
        let (mut checks, metastore) = check_database(&config).await;
        let (found, profiles) = check_profiles(&config, metastore.as_deref()).await;
        checks.extend(found);
        checks.extend(check_buckets(&config, &profiles).await);
        Ok(checks)
    })?;
    checks.push(check_disk(&config));
    checks.extend(check_tls(&config));
    checks.extend(check_ports(&config));
    let bad = checks.iter().filter(|check| !check.is_good).count();
    print(global.output, &checks, |checks| table(checks))?;
    match bad {
        0 => Ok(()),
        _ => Err(Error::new(ErrorKind::Unavailable, format!("{bad} of {} checks failed", checks.len()))),
    }
}

async fn check_database(config: &Config) -> (Vec<Check>, Option<Arc<dyn Metastore>>) {
    let started = Instant::now();
    let is_embedded = config.optional("metastore.url").is_none();
    let fix = if is_embedded {
        "check that this user may write to data_dir, and that it is on a disk of this machine; docs/backup.md restores one"
    } else {
        "check metastore.url, the network, and that the server is PostgreSQL 16 or later"
    };
    let metastore = match open_existing_metastore(config).await {
        Ok(metastore) => metastore,
        Err(error) if error.kind() == ErrorKind::NotFound && is_embedded => {
            return (vec![Check::good("database", "embedded, will be made at the first start")], None);
        }
        Err(error) => return (vec![Check::bad("database", error.full_message(), error.hint().unwrap_or(fix))], None),
    };
    match metastore.now().await {
        Ok(now) => {
            let described = format!("{}, answered in {} ms", metastore.describe(), started.elapsed().as_millis());
            let skew_ms = (now.0 - SystemClock.now().0) / 1_000_000;
            let found = format!("{skew_ms} ms from the database's");
            let clock = if skew_ms.abs() < 5_000 {
                Check::good("clock", found)
            } else {
                Check::bad("clock", found, "synchronize both machines by NTP (chronyc tracking; timedatectl)")
            };
            (vec![Check::good("database", described), clock], Some(metastore))
        }
        Err(error) => (vec![Check::bad("database", error.to_string(), fix)], None),
    }
}

async fn check_profiles(config: &Config, metastore: Option<&dyn Metastore>) -> (Option<Check>, Vec<StorageProfile>) {
    let Some(metastore) = metastore else { return (None, Vec::new()) };
    match read_profiles(config, metastore).await {
        Ok(profiles) if profiles.is_empty() => (None, profiles),
        Ok(profiles) => (Some(Check::good("profiles", format!("{} storage profiles", profiles.len()))), profiles),
        Err(error) => {
            let fix = "correct these lines; docs/notifications.md shows every field";
            (Some(Check::bad("profiles", error.full_message(), fix)), Vec::new())
        }
    }
}

async fn check_buckets(config: &Config, profiles: &[StorageProfile]) -> Vec<Check> {
    let mut checks = Vec::new();
    let buckets = Buckets::new();
    // A question makes no folder.
    if config.optional("storage.url").is_none() && !DataFolder::new(config.data_dir()).objects().exists() {
        checks.push(Check::good("bucket", "embedded, will be made at the first start"));
    } else if let Err(error) = open_default_bucket(config, &buckets).await {
        let fix = error.hint().unwrap_or("check storage.url and the credentials").to_owned();
        checks.push(Check::bad("bucket", error.full_message(), fix));
    }
    let named = buckets.names();
    for profile in profiles.iter().filter(|profile| !named.contains(&profile.bucket)) {
        match open_profile_bucket(profile) {
            Ok(store) => buckets.set(profile.bucket.clone(), store),
            Err(error) => {
                let fix = "correct the storage profile, or give the credentials of its cloud";
                checks.push(Check::bad("bucket", format!("{}: {}", profile.bucket, error.full_message()), fix));
            }
        }
    }
    for name in buckets.names() {
        checks.push(match check_bucket(&buckets, &name).await {
            Ok(()) => Check::good("bucket", format!("{name}: written, read and deleted")),
            Err(error) => {
                let fix = match error.kind() {
                    ErrorKind::NotFound => "make the bucket, or correct its name, region or endpoint",
                    ErrorKind::Unavailable => "check endpoint, region, path style and the network",
                    _ => "the credentials need to list, read, write and delete there",
                };
                Check::bad("bucket", format!("{name}: {}", error.full_message()), fix)
            }
        });
    }
    checks
}

async fn check_bucket(buckets: &Buckets, name: &str) -> Result<()> {
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
    if let Err(error) = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK) {
        let found = format!("{} cannot be written by this user: {error}", existing.display());
        return Check::bad("disk", found, "give the folder to the user that runs tidemill, or choose another data_dir");
    }
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

fn check_tls(config: &Config) -> Option<Check> {
    let (certificate, key) = (config.path("tls.cert")?, config.path("tls.key")?);
    let shown = certificate.display().to_string();
    Some(match ServerTls::load(certificate, key) {
        Ok(_) => Check::good("tls", format!("{shown} and its key can be used")),
        Err(error) => {
            let fix = error.hint().unwrap_or("set tls.cert and tls.key to a certificate and its own key");
            Check::bad("tls", error.full_message(), fix)
        }
    })
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
            Ok(_) if address.port() == 0 => Check::good("ports", format!("any free port ({key})")),
            Ok(_) => Check::good("ports", format!("{address} is free ({key})")),
            Err(error) => Check::bad("ports", format!("{address}: {error}"), bind_hint(&error, key)),
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
