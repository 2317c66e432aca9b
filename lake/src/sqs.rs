//! Notifications from an SQS queue, by long polling.
//!
//! Owns: receiving messages, handing them to [`crate::notify`], and deleting them once their inbox rows or refusals are committed.
//! A message that could not be admitted stays in the queue and comes back after its visibility timeout; one that cannot be read
//! is recorded as a refusal and deleted. Never: the AWS SDK; the JSON protocol of SQS is signed by `object_store`.
//! Start with [`run`].

mod client;
mod poller;

use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::notify::Admitter;

pub use client::{SqsClient, SqsError};

/// Which queue, and how it is polled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqsOptions {
    /// The queue's URL, as SQS gives it.
    pub queue_url: String,
    /// The queue's region; read from the URL's host unless given.
    pub region: Option<String>,
    /// Where requests go, for a queue that is not Amazon's; the URL's host unless given. Roles are assumed there too.
    pub endpoint: Option<String>,
    /// The role assumed before the queue is read.
    pub role: Option<String>,
    /// Long polls at the same time, 1 to 64.
    pub pollers: usize,
    /// How long a poll waits for messages, up to 20 s.
    pub wait: Duration,
    /// How long received messages are hidden from other pollers, up to 12 h.
    pub visibility: Duration,
}

impl SqsOptions {
    /// Options for a queue with the usual times: 2 pollers, 20 s, 2 min.
    pub fn new(queue_url: impl Into<String>) -> Self {
        Self {
            queue_url: queue_url.into(),
            region: None,
            endpoint: None,
            role: None,
            pollers: 2,
            wait: Duration::from_secs(20),
            visibility: Duration::from_secs(120),
        }
    }
}

/// Polls the queue until stopped. Messages in hand are finished first.
pub async fn run(client: SqsClient, admitter: Admitter, stop: CancellationToken) {
    let pollers = client.options().pollers.clamp(1, 64);
    join_all((0..pollers).map(|_| poller::run(&client, &admitter, &stop))).await;
}
