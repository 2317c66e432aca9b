//! One long poll after the other.

use std::time::Duration;

use http::HeaderMap;
use rand::Rng as _;
use tokio_util::sync::CancellationToken;

use super::client::{Message, SqsClient};
use crate::notify::{Admitter, Authority, Content, ObjectEvent, parse, reasons};

/// After the first failed poll, and after many.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

pub(super) async fn run(client: &SqsClient, admitter: &Admitter, stop: &CancellationToken) {
    let mut backoff = Backoff::default();
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = client.receive() => received,
        };
        let outcome = match received {
            Ok(messages) if messages.is_empty() => Ok(()),
            Ok(messages) => take(client, admitter, messages).await,
            Err(error) => Err(error.to_string()),
        };
        let Err(error) = outcome else {
            backoff = Backoff::default();
            continue;
        };
        let pause = backoff.next();
        tracing::warn!(
            queue = client.queue_name(),
            error,
            pause_ms = pause.as_millis(),
            "the queue is polled again later"
        );
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Admits what the messages announce, then deletes them; the `Err` is for people, and the messages not deleted come back.
async fn take(client: &SqsClient, admitter: &Admitter, messages: Vec<Message>) -> Result<(), String> {
    let mut readable: Vec<(Message, Vec<ObjectEvent>)> = Vec::with_capacity(messages.len());
    let mut done = Vec::with_capacity(messages.len());
    let mut problem = None;
    for message in messages {
        let (events, reason) = read(&message);
        if let Some(reason) = reason {
            let place = format!("sqs {} message {}", client.queue_name(), message.message_id);
            if let Err(error) = admitter.refuse(Authority::Operator, &place, reason).await {
                problem = Some(error.to_string());
                continue;
            }
        }
        readable.push((message, events));
    }
    let all: Vec<ObjectEvent> = readable.iter().flat_map(|(_, events)| events.iter().cloned()).collect();
    match admitter.admit(&all, Authority::Operator).await {
        Ok(_) => done.extend(readable.into_iter().map(|(message, _)| message)),
        // One unreachable bucket must not keep the others' messages.
        Err(_) => {
            for (message, events) in readable {
                match admitter.admit(&events, Authority::Operator).await {
                    Ok(_) => done.push(message),
                    Err(error) => problem = Some(error.to_string()),
                }
            }
        }
    }
    if !done.is_empty()
        && let Err(error) = client.delete(&done).await
    {
        problem = Some(error.to_string());
    }
    problem.map_or(Ok(()), Err)
}

/// The objects that a message announces, and why it, or a part of it, is refused.
fn read(message: &Message) -> (Vec<ObjectEvent>, Option<String>) {
    match parse(&HeaderMap::new(), message.body.as_bytes()).map(|notification| notification.content) {
        Ok(Content::Objects { events, malformed, .. }) => {
            (events, (!malformed.is_empty()).then(|| reasons(&malformed)))
        }
        Ok(Content::ConfirmSubscription { topic, .. }) => {
            let reason = format!("asks to confirm a subscription to {topic}; a queue's subscription needs none");
            (Vec::new(), Some(reason))
        }
        Ok(Content::ValidateSubscription { .. }) => {
            (Vec::new(), Some("asks to validate a subscription, which only a webhook can".to_owned()))
        }
        Err(malformed) => (Vec::new(), Some(malformed.to_string())),
    }
}

/// Pauses that double, with jitter.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let longest = BACKOFF.0.saturating_mul(1 << self.failures.min(10)).min(BACKOFF.1);
        self.failures += 1;
        longest.mul_f64(rand::rng().random_range(0.5..1.0))
    }
}
