//! A watch: what is there, then every change, as lines of JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde_json::json;
use tidemill_fleet::objects::{Object, ObjectKey};
use tokio::sync::mpsc;

use super::Shown;

/// Changes of one object that follow each other faster are told as one.
const GATHER: Duration = Duration::from_millis(20);
/// A watch ends after so long; clients begin another one.
const LONGEST: Duration = Duration::from_secs(3600);

/// Streams what `shown` shows, object by object as each becomes another.
pub(super) fn stream(shown: Shown, timeout: Option<Duration>) -> Response {
    let (lines, mut receiver) = mpsc::channel::<Bytes>(64);
    tokio::spawn(async move {
        let limit = timeout.unwrap_or(LONGEST).min(LONGEST);
        // Its end is the end of the stream.
        let _ = tokio::time::timeout(limit, tell(shown, lines)).await;
    });
    let body = Body::from_stream(futures::stream::poll_fn(move |context| {
        receiver.poll_recv(context).map(|line| line.map(Ok::<_, std::io::Error>))
    }));
    ([(header::CONTENT_TYPE, "application/json;stream=watch")], body).into_response()
}

async fn tell(shown: Shown, lines: mpsc::Sender<Bytes>) {
    let (mut stored, mut running) = shown.fleet.changes();
    let mut known: BTreeMap<ObjectKey, std::sync::Arc<Object>> = BTreeMap::new();
    loop {
        stored.borrow_and_update();
        running.borrow_and_update();
        let (objects, _) = shown.objects();
        let mut present = BTreeMap::new();
        for object in objects {
            let key = object.key();
            let word = match known.get(&key) {
                None => Some("ADDED"),
                Some(before) if before.metadata.uid != object.metadata.uid => Some("ADDED"),
                Some(before) if before.metadata.resource_version != object.metadata.resource_version => {
                    Some("MODIFIED")
                }
                Some(_) => None,
            };
            if let Some(word) = word
                && lines.send(line(word, &object)).await.is_err()
            {
                return;
            }
            present.insert(key, object);
        }
        for (key, object) in &known {
            if !present.contains_key(key) && lines.send(line("DELETED", object)).await.is_err() {
                return;
            }
        }
        known = present;
        tokio::select! {
            changed = stored.changed() => if changed.is_err() { return },
            changed = running.changed() => if changed.is_err() { return },
            () = lines.closed() => return,
        }
        tokio::time::sleep(GATHER).await;
    }
}

fn line(word: &str, object: &Object) -> Bytes {
    let mut text = json!({"type": word, "object": object}).to_string();
    text.push('\n');
    Bytes::from(text)
}
