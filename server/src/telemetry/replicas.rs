//! What the fleet tells of its replicas, into this process's own lake.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::CONTENT_TYPE;
use opentelemetry_http::{Bytes, Request};
use tidemill_fleet::Fleet;
use tidemill_fleet::export::{Sink, SinkError};
use tidemill_lake::otlp_http::{COLLECTOR_HEADER, IDEMPOTENCY_HEADER};
use tidemill_lake::receive::Receiver;
use tidemill_types::{OrganizationId, Signal};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use super::OwnDoor;
use crate::admin::Admin;

/// The collector of what the fleet tells.
const COLLECTOR: &str = "tidemill-fleet";
/// How often an organization is looked for that is not there.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Tells of the fleet's replicas to the organization of that name until `stop`; waits while there is none of the name.
pub async fn tell(fleet: Fleet, receiver: Receiver, admin: Admin, organization: String, stop: CancellationToken) {
    let Some(exporter) = fleet.exporter() else { return };
    let found = tokio::select! {
        found = find(&admin, &organization) => found,
        () = stop.cancelled() => return,
    };
    let door = OwnDoor::new(Handle::current());
    door.open(receiver, found);
    exporter.run(Arc::new(OwnLake(door.clone())), stop).await;
    door.close();
}

async fn find(admin: &Admin, name: &str) -> OrganizationId {
    let mut is_told = false;
    loop {
        match admin.organizations().await {
            Ok(all) => {
                if let Some(found) = all.into_iter().find(|organization| organization.name == name) {
                    return found.id;
                }
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(
                        name,
                        "there is no organization of this name (fleet.organization); what replicas print waits in their folders"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "the organization of the fleet's replicas cannot be looked up"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[derive(Debug)]
struct OwnLake(OwnDoor);

#[async_trait]
impl Sink for OwnLake {
    async fn take(&self, signal: Signal, key: Option<&str>, body: Bytes) -> Result<(), SinkError> {
        let mut request = Request::post(format!("/v1/{signal}"))
            .header(CONTENT_TYPE, "application/json")
            .header(COLLECTOR_HEADER, COLLECTOR);
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_HEADER, key);
        }
        let request = request.body(body).map_err(|error| SinkError::Never(error.to_string()))?;
        // Never traced: a server that tells itself of itself would never come to rest.
        let answer = self.0.deliver(request).with_subscriber(NoSubscriber::default()).await;
        let answer = answer.map_err(|error| SinkError::Later(error.to_string()))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let why = format!("{status}: {}", String::from_utf8_lossy(answer.body()));
        let may_pass = status.is_server_error() || matches!(status.as_u16(), 401 | 403 | 408 | 429);
        Err(if may_pass { SinkError::Later(why) } else { SinkError::Never(why) })
    }
}
