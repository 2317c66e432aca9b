//! What `tidemill demo` adds to `up`: an organization for the process's own telemetry, a bundled capture, queries to try.
//!
//! Start with [`Demo::prepare`].

mod capture;
mod tour;

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill_types::{OrganizationId, Signal, TimestampNs};

use crate::admin::{Admin, InboxRequest, MAX_ROWS, OrganizationChange};
use crate::bootstrap::FIRST_ORGANIZATION;
use crate::error::Result;
use crate::invocation::Invocation;
use crate::output::say;
use crate::progress::Progress;
use crate::query::Queries;
use crate::telemetry::OwnDoor;

/// The organization of the process's own telemetry.
pub const OWN_ORGANIZATION: &str = "tidemill";
/// Its own telemetry is kept this long.
const OWN_RETENTION_DAYS: u32 = 1;
/// The metastore's note that the capture was loaded, so that a second start does not load it again.
const LOADED_DOCUMENT: &str = "demo-capture";

/// The metastore's note of the time, in nanoseconds, that the capture's end was moved to when its loading began.
const BEGUN_DOCUMENT: &str = "demo-capture-begun";

/// The organizations of a demo.
#[derive(Debug, Clone, Copy)]
pub struct Demo {
    /// Whose the process's own telemetry is.
    pub own: OrganizationId,
    /// Whose the capture and the machine's metrics are.
    pub shown: OrganizationId,
}

impl Demo {
    /// Makes sure that both organizations are there.
    ///
    /// # Errors
    /// Those of the metastore.
    pub async fn prepare(admin: &Admin) -> Result<Self> {
        let all = admin.organizations().await?;
        let find = |name: &str| all.iter().find(|it| it.name == name && !it.deleting).map(|it| it.id);
        let own = match find(OWN_ORGANIZATION) {
            Some(found) => found,
            None => {
                let made = admin.create_organization(OWN_ORGANIZATION, None).await?;
                let retention_days: BTreeMap<Signal, u32> =
                    Signal::ALL.map(|signal| (signal, OWN_RETENTION_DAYS)).into_iter().collect();
                let change = OrganizationChange { retention_days, ..OrganizationChange::default() };
                admin.change_organization(OWN_ORGANIZATION, &change).await?;
                made.id
            }
        };
        let shown = match find(FIRST_ORGANIZATION) {
            Some(found) => found,
            None => admin.create_organization(FIRST_ORGANIZATION, None).await?.id,
        };
        Ok(Self { own, shown })
    }

    /// Loads the capture, once in the life of a data folder, through the door by which everything pushed comes, and waits until
    /// it is queryable.
    ///
    /// # Errors
    /// Those of pushing; `Invalid` when a part was refused.
    pub async fn load_capture(&self, admin: &Admin, door: &OwnDoor) -> Result<()> {
        let loaded = format!("{LOADED_DOCUMENT}-{}", self.shown);
        if let Some(when) = admin.metastore.document(&loaded).await? {
            say!("The capture was loaded at the first start ({when}).");
            return Ok(());
        }
        let now = self.capture_time(admin).await?;
        let requests = tokio::task::spawn_blocking(move || capture::requests(now)).await;
        let requests = requests.map_err(|error| {
            crate::error::Error::caused(tidemill_types::ErrorKind::Internal, "reading the capture", error)
        })??;
        let total = requests.iter().map(|request| request.body.len() as u64).sum();
        let progress = Progress::bytes("loading the capture", total);
        for request in requests {
            let bytes = request.body.len() as u64;
            request.push(door).await?;
            progress.add(bytes);
        }
        progress.finish();
        self.wait_until_queryable(admin).await?;
        admin.metastore.store_document(&loaded, &crate::present::when(now)).await?;
        Ok(())
    }

    /// The time that the capture's end is moved to. A start after one that was cut off takes the same, so that what was loaded
    /// already is known again and not stored twice.
    async fn capture_time(&self, admin: &Admin) -> Result<TimestampNs> {
        let note = format!("{BEGUN_DOCUMENT}-{}", self.shown);
        let begun = admin.metastore.document(&note).await?;
        if let Some(begun) = begun.and_then(|text| text.parse().ok()) {
            return Ok(TimestampNs(begun));
        }
        let now = admin.metastore.now().await?;
        admin.metastore.store_document(&note, &now.0.to_string()).await?;
        Ok(now)
    }

    async fn wait_until_queryable(&self, admin: &Admin) -> Result<()> {
        let request = InboxRequest { limit: Some(MAX_ROWS), ..InboxRequest::default() };
        let open = async || -> Result<u64> {
            let entries = admin.inbox(Some(self.shown), &request).await?.rows;
            Ok(entries.iter().filter(|entry| matches!(entry.state.as_str(), "waiting" | "leased")).count() as u64)
        };
        let total = open().await?;
        let progress = Progress::items("making queryable", total);
        loop {
            let left = open().await?;
            progress.set(total.saturating_sub(left));
            if left == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        progress.finish();
        Ok(())
    }

    /// Prints queries to paste, with their first results.
    ///
    /// # Errors
    /// Those of the queries.
    pub async fn show(&self, queries: &Queries, typed: &Invocation) -> Result<()> {
        tour::show(queries, self.shown, typed).await
    }
}
