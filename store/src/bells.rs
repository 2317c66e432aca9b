//! Waking workers of this process, queue by queue.

use futures::future::{FutureExt, select_all};
use tidemill_types::WorkQueue;
use tokio::sync::watch;

/// One bell per queue.
#[derive(Debug)]
pub(crate) struct Bells {
    bells: Vec<(WorkQueue, watch::Sender<u64>)>,
}

/// Remembers what rang since it was made.
pub(crate) struct Listening {
    receivers: Vec<watch::Receiver<u64>>,
}

impl Bells {
    pub(crate) fn new() -> Self {
        Self { bells: WorkQueue::all().into_iter().map(|queue| (queue, watch::Sender::new(0))).collect() }
    }

    /// Wakes who listens to one of `queues`.
    pub(crate) fn ring(&self, queues: impl IntoIterator<Item = WorkQueue>) {
        for queue in queues {
            for (_, bell) in self.bells.iter().filter(|(known, _)| *known == queue) {
                bell.send_modify(|rung| *rung = rung.wrapping_add(1));
            }
        }
    }

    /// Wakes everybody.
    pub(crate) fn ring_all(&self) {
        self.ring(WorkQueue::all());
    }

    /// Whether anybody listens.
    pub(crate) fn has_listeners(&self) -> bool {
        self.bells.iter().any(|(_, bell)| bell.receiver_count() > 0)
    }

    pub(crate) fn listen(&self, queues: &[WorkQueue]) -> Listening {
        let heard = self.bells.iter().filter(|(queue, _)| queues.contains(queue));
        Listening { receivers: heard.map(|(_, bell)| bell.subscribe()).collect() }
    }
}

impl Listening {
    /// Resolves when a bell rang since the start; never without queues.
    pub(crate) async fn rung(&mut self) {
        if self.receivers.is_empty() {
            return std::future::pending().await;
        }
        // An error says that the metastore is gone, which ends the wait as well.
        let _ = select_all(self.receivers.iter_mut().map(|receiver| receiver.changed().boxed())).await;
    }
}
