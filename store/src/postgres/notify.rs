//! NOTIFY after commit, at most one per 5 ms and queue; LISTEN on a connection of its own.
//!
//! Never the only way: a lost notification costs at most a worker's polling interval.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use futures::StreamExt;
use parking_lot::Mutex;
use tidemill_types::{OrganizationId, WorkQueue};
use tokio::sync::Notify;
use tokio_postgres::AsyncMessage;
use uuid::Uuid;

use super::connection::{Address, failed, query};
use super::due::Dues;
use super::ring::{Arrival, Arrivals, Rings};
use crate::Result;
use crate::bells::Bells;

const CHANNEL: &str = "tidemill_work";
const AT_MOST_EVERY: Duration = Duration::from_millis(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// More kinds of arrivals in one queue are told as "something".
const TOLD_ARRIVALS: usize = 8;

/// What is told of one queue: these arrivals, or that something is claimable.
type Told = Option<Arrivals>;

/// Tells other processes in which queues work arrived.
#[derive(Debug)]
pub(super) struct Notifier {
    /// This process, so that it does not listen to itself.
    holder: Uuid,
    pending: Mutex<BTreeMap<WorkQueue, Told>>,
    wake: Notify,
}

impl Notifier {
    pub(super) fn new(holder: Uuid) -> Self {
        Self { holder, pending: Mutex::default(), wake: Notify::new() }
    }

    pub(super) fn tell_arrivals(&self, arrivals: &Arrivals) {
        let mut pending = self.pending.lock();
        for arrival in arrivals.iter() {
            let told = pending.entry(arrival.queue).or_insert_with(|| Some(Arrivals::default()));
            if let Some(arrivals) = told {
                arrivals.add(arrival);
                if arrivals.len() > TOLD_ARRIVALS {
                    *told = None;
                }
            }
        }
        self.wake.notify_one();
    }

    pub(super) fn tell_queues(&self, queues: &[WorkQueue]) {
        self.pending.lock().extend(queues.iter().map(|queue| (*queue, None)));
        self.wake.notify_one();
    }

    fn take_messages(&self) -> Vec<String> {
        let pending = std::mem::take(&mut *self.pending.lock());
        let holder = self.holder;
        let messages = pending.into_iter().flat_map(|(queue, told)| match told {
            None => vec![Message { holder, queue, arrival: None }],
            Some(arrivals) => {
                arrivals.iter().map(|arrival| Message { holder, queue, arrival: Some(arrival) }).collect()
            }
        });
        messages.map(|message| message.to_string()).collect()
    }
}

/// The payload of a notification: the queue's code, the process that sends it, and perhaps what arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    holder: Uuid,
    queue: WorkQueue,
    arrival: Option<Arrival>,
}

impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.queue.code(), self.holder.simple())?;
        match &self.arrival {
            None => Ok(()),
            Some(Arrival { priority, organization, since, .. }) => {
                write!(f, " {priority} {} {since}", organization.0.simple())
            }
        }
    }
}

impl Message {
    fn parse(payload: &str) -> Option<Self> {
        let mut words = payload.split(' ');
        let queue = WorkQueue::from_code(words.next()?.parse().ok()?)?;
        let holder = words.next()?.parse().ok()?;
        let arrival = match words.next() {
            None => None,
            Some(priority) => Some(Arrival {
                queue,
                priority: priority.parse().ok()?,
                organization: OrganizationId(words.next()?.parse().ok()?),
                since: words.next()?.parse().ok()?,
            }),
        };
        Some(Self { holder, queue, arrival })
    }
}

/// Runs until it is aborted.
pub(super) async fn run_notify(notifier: Arc<Notifier>, pool: Pool) {
    loop {
        notifier.wake.notified().await;
        let messages = notifier.take_messages();
        let sent = async {
            let client = pool.get().await.ok()?;
            // What a crash of the server loses here is found by polling.
            let sql = "SELECT pg_notify($1, message), set_config('synchronous_commit', 'off', true) \
                       FROM unnest($2::text[]) AS messages (message)";
            query(&client, "notify", sql, &[&CHANNEL, &messages]).await.ok()
        };
        if sent.await.is_none() {
            tracing::debug!("a notification was not sent; workers find the work by polling");
        }
        tokio::time::sleep(AT_MOST_EVERY).await;
    }
}

/// What hears of work in other processes.
pub(super) struct Heard {
    pub(super) holder: Uuid,
    pub(super) bells: Arc<Bells>,
    pub(super) rings: Arc<Rings>,
    pub(super) dues: Arc<Dues>,
}

impl Heard {
    fn hear(&self, payload: &str) {
        match Message::parse(payload) {
            Some(message) if message.holder == self.holder => {}
            Some(Message { queue, arrival, .. }) => {
                match arrival {
                    Some(arrival) => self.rings.offer(&[arrival].into_iter().collect()),
                    None => {
                        self.rings.forget([queue]);
                        self.dues.forget();
                    }
                }
                self.bells.ring([queue]);
            }
            // Of another version, perhaps.
            None => self.hear_anything(),
        }
    }

    fn hear_anything(&self) {
        self.rings.forget(WorkQueue::all());
        self.dues.forget();
        self.bells.ring_all();
    }
}

/// Tells what other processes tell; connects again for ever. Runs until it is aborted.
pub(super) async fn run_listen(address: Address, heard: Heard) {
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = tokio::time::Instant::now();
        if let Err(error) = listen(&address, &heard).await {
            tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "listening for work failed; polling meanwhile");
        }
        pause = if begun.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tokio::time::sleep(pause).await;
    }
}

async fn listen(address: &Address, heard: &Heard) -> Result<()> {
    let fail = failed("listen");
    let (client, mut connection) = address.config.connect(address.tls.clone()).await.map_err(&fail)?;
    let mut messages = futures::stream::poll_fn(move |context| connection.poll_message(context));
    let pump = async {
        while let Some(message) = messages.next().await {
            if let AsyncMessage::Notification(notification) = message.map_err(&fail)? {
                heard.hear(notification.payload());
            }
        }
        Ok(())
    };
    let begin = async {
        client.batch_execute(&format!("LISTEN {CHANNEL}")).await.map_err(&fail)?;
        // What was told before we listened.
        heard.hear_anything();
        std::future::pending::<Result<()>>().await
    };
    tokio::select! {
        ended = pump => ended,
        failed = begin => failed,
    }
}

#[cfg(test)]
mod tests {
    use tidemill_types::{Action, Signal};

    use super::*;

    const QUEUE: WorkQueue = WorkQueue { signal: Signal::Traces, action: Action::Job };

    fn arrival(organization: u128) -> Arrival {
        let organization = OrganizationId(Uuid::from_u128(organization));
        Arrival { queue: QUEUE, priority: -3, organization, since: 1_795_655_267_258_932_000 }
    }

    #[test]
    fn messages_are_read_as_they_are_written() {
        let holder = Uuid::from_u128(77);
        for arrival in [None, Some(arrival(1)), Some(arrival(2))] {
            let message = Message { holder, queue: QUEUE, arrival };
            assert_eq!(Message::parse(&message.to_string()), Some(message));
        }
        for broken in ["", "17", "x y", "17 nobody", &format!("{} {holder} 5 {holder} last", QUEUE.code())] {
            assert_eq!(Message::parse(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn many_arrivals_are_told_as_something() {
        let notifier = Notifier::new(Uuid::nil());
        notifier.tell_arrivals(&[arrival(1), arrival(1), arrival(2)].into_iter().collect());
        assert_eq!(notifier.take_messages().len(), 2);
        notifier.tell_arrivals(&(0..100).map(arrival).collect());
        assert_eq!(notifier.take_messages().len(), 1);
        notifier.tell_arrivals(&[arrival(1)].into_iter().collect());
        notifier.tell_queues(&[QUEUE]);
        notifier.tell_arrivals(&[arrival(2)].into_iter().collect());
        assert_eq!(
            notifier.take_messages(),
            [Message { holder: Uuid::nil(), queue: QUEUE, arrival: None }.to_string()]
        );
    }
}
