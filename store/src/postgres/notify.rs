//! NOTIFY after commit, at most one per 5 ms and queue; LISTEN on a connection of its own.
//!
//! Never the only way: a lost notification costs at most a worker's polling interval.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use futures::StreamExt;
use parking_lot::Mutex;
use tidemill_types::WorkQueue;
use tokio::sync::Notify;
use tokio_postgres::AsyncMessage;

use super::connection::{Address, failed, query};
use super::ring::Rings;
use crate::Result;
use crate::bells::Bells;

const CHANNEL: &str = "tidemill_work";
const AT_MOST_EVERY: Duration = Duration::from_millis(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Tells other processes in which queues work arrived.
#[derive(Debug, Default)]
pub(super) struct Notifier {
    pending: Mutex<BTreeSet<i16>>,
    wake: Notify,
}

impl Notifier {
    pub(super) fn notify(&self, queues: &[WorkQueue]) {
        if queues.is_empty() {
            return;
        }
        self.pending.lock().extend(queues.iter().map(|queue| queue.code()));
        self.wake.notify_one();
    }
}

/// Runs until it is aborted.
pub(super) async fn run_notify(notifier: Arc<Notifier>, pool: Pool) {
    loop {
        notifier.wake.notified().await;
        let codes: Vec<i16> = std::mem::take(&mut *notifier.pending.lock()).into_iter().collect();
        let sent = async {
            let client = pool.get().await.ok()?;
            let sql = "SELECT pg_notify($1, code::text) FROM unnest($2::smallint[]) AS codes (code)";
            query(&client, "notify", sql, &[&CHANNEL, &codes]).await.ok()
        };
        if sent.await.is_none() {
            tracing::debug!("a notification was not sent; workers find the work by polling");
        }
        tokio::time::sleep(AT_MOST_EVERY).await;
    }
}

/// Rings `bells` for what other processes tell; connects again for ever. Runs until it is aborted.
pub(super) async fn run_listen(address: Address, bells: Arc<Bells>, rings: Arc<Rings>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = tokio::time::Instant::now();
        if let Err(error) = listen(&address, &bells, &rings).await {
            tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "listening for work failed; polling meanwhile");
        }
        pause = if begun.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tokio::time::sleep(pause).await;
    }
}

async fn listen(address: &Address, bells: &Bells, rings: &Rings) -> Result<()> {
    let fail = failed("listen");
    let (client, mut connection) = address.config.connect(address.tls.clone()).await.map_err(&fail)?;
    let mut messages = futures::stream::poll_fn(move |context| connection.poll_message(context));
    let pump = async {
        while let Some(message) = messages.next().await {
            if let AsyncMessage::Notification(notification) = message.map_err(&fail)? {
                let queue = notification.payload().parse().ok().and_then(WorkQueue::from_code);
                rings.forget(queue);
                bells.ring(queue);
            }
        }
        Ok(())
    };
    let begin = async {
        client.batch_execute(&format!("LISTEN {CHANNEL}")).await.map_err(&fail)?;
        // What was told before we listened.
        rings.forget(WorkQueue::all());
        bells.ring_all();
        std::future::pending::<Result<()>>().await
    };
    tokio::select! {
        ended = pump => ended,
        failed = begin => failed,
    }
}
