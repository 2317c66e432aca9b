//! Keeps a lease alive while its bundle is worked on, and tells when it is lost.

use std::sync::Arc;
use std::time::Duration;

use tidemill_store::Metastore;
use tidemill_types::{ErrorKind, LeaseToken};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Extends a lease until dropped.
#[derive(Debug)]
pub(super) struct LeaseKeeper {
    lost: CancellationToken,
    task: JoinHandle<()>,
}

/// Extends `token` by `lease` at every third of it.
///
/// A database that does not answer is no reason to give up: the lease may outlive the outage, and if it does not, publishing
/// is refused.
pub(super) fn keep(metastore: Arc<dyn Metastore>, token: LeaseToken, lease: Duration) -> LeaseKeeper {
    let lost = CancellationToken::new();
    let signal = lost.clone();
    let task = tokio::spawn(async move {
        loop {
            tokio::time::sleep(lease / 3).await;
            match metastore.extend_lease(token, lease).await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    signal.cancel();
                    return;
                }
                Err(error) => tracing::warn!(%token, %error, "a lease could not be extended yet"),
            }
        }
    });
    LeaseKeeper { lost, task }
}

impl LeaseKeeper {
    /// Resolves when the lease is no longer ours.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}
