//! `GET /loki/api/v1/tail`: lines as they come, over a websocket.
//!
//! What arrives is visible once its segment is published, within about a second. Lines are asked for again and again, always from a little
//! before the newest seen, so that a line which is published late is not missed; what was sent is not sent again.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tidemill_eval::logql::{Direction, LogParams, Stream};
use tidemill_lake::clock::{Clock as _, SystemClock};
use tidemill_lang::logql::ast::{LogQuery, Query};
use tidemill_lang::logql::parse;
use tidemill_types::{ErrorKind, OrganizationId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::Refusal;
use super::params::Params;
use super::queries;
use crate::error::Error;
use crate::http::ApiState;
use crate::http::caller::Member;
use crate::query::Queries;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// A reader that takes nothing for this long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection on which nothing was sent is told that it lives.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How far behind the newest line a line may be published and still be sent.
const LATE_NS: i64 = 60_000_000_000;
/// Lines of one look.
const LINES: usize = 2_000;
/// The longest `delay_for`, in seconds; Loki's.
const MOST_DELAY_S: i64 = 5;
/// What close frames say of an error.
const CLOSE_ERROR: u16 = 1011;

/// What is tailed.
struct Tail {
    queries: Queries,
    organization: OrganizationId,
    query: LogQuery,
    /// The first lines are at most so many, the newest.
    limit: usize,
    start_ns: i64,
    delay_ns: i64,
    _slot: OwnedSemaphorePermit,
}

/// Begins a tail, or says why not before the connection becomes a websocket.
pub(super) async fn tail(
    State(state): State<ApiState>,
    Member(organization): Member,
    params: TailParams,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
    tails: Arc<Semaphore>,
) -> Response {
    let began = begin(&state, organization, &params.0, tails);
    match (began, upgrade) {
        (Err(refusal), _) => refusal.into_response(),
        (Ok(_), Err(rejection)) => Refusal::invalid(rejection.body_text()).into_response(),
        (Ok(tail), Ok(upgrade)) => upgrade.on_upgrade(move |socket| tail.run(socket)),
    }
}

/// The parameters, without the body that a websocket has not.
pub(super) struct TailParams(Params);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for TailParams {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut http::request::Parts, state: &S) -> Result<Self, Response> {
        let mut request = http::Request::new(axum::body::Body::empty());
        *request.uri_mut() = parts.uri.clone();
        *request.headers_mut() = parts.headers.clone();
        let params = <Params as axum::extract::FromRequest<S>>::from_request(request, state).await;
        params.map(Self)
    }
}

fn begin(
    state: &ApiState,
    organization: OrganizationId,
    params: &Params,
    tails: Arc<Semaphore>,
) -> Result<Tail, Refusal> {
    let Query::Log(query) = parse(params.query())? else {
        return Err(Refusal::invalid("only lines can be tailed, not numbers"));
    };
    let limit = params.lines(queries(state)?.most_lines())?;
    let delay_ns = params.duration("delay_for")?.unwrap_or(0);
    if !(0..=MOST_DELAY_S * 1_000_000_000).contains(&delay_ns) {
        return Err(Refusal::invalid(format!("delay_for can't be greater than {MOST_DELAY_S}")));
    }
    let start_ns = params.time("start")?.unwrap_or(params.now_ns - 3_600_000_000_000);
    let busy = |_| {
        Refusal::of(&Error::new(
            ErrorKind::Busy,
            "too many live tails, the limit of this process; end one and try again",
        ))
    };
    let slot = tails.try_acquire_owned().map_err(busy)?;
    let queries = queries(state)?.clone();
    Ok(Tail { queries, organization, query, limit, start_ns, delay_ns, _slot: slot })
}

impl Tail {
    async fn run(self, mut socket: WebSocket) {
        if let Err(problem) = self.follow(&mut socket).await {
            let reason = problem.message().chars().filter(char::is_ascii).take(100).collect::<String>();
            let close = Message::Close(Some(CloseFrame { code: CLOSE_ERROR, reason: reason.into() }));
            // Whoever is gone needs no reason.
            drop(tokio::time::timeout(SEND_TIMEOUT, socket.send(close)).await);
        }
    }

    /// Sends until the reader goes away.
    async fn follow(&self, socket: &mut WebSocket) -> Result<(), Refusal> {
        let mut sent = Sent::default();
        let now = SystemClock.now().0;
        // The newest lines first, so that the reader sees where it begins.
        let newest = self.ask(self.start_ns, now - self.delay_ns, Direction::Backward, self.limit).await?;
        let is_cut = newest.iter().map(|stream| stream.entries.len()).sum::<usize>() >= self.limit;
        let first_ns = newest.iter().flat_map(|stream| &stream.entries).map(|entry| entry.time_ns).min();
        if !self.send(socket, sent.without_known(newest)).await {
            return Ok(());
        }
        // Of what was cut off at the limit nothing is sent later.
        let mut cursor = first_ns.filter(|_| is_cut).unwrap_or(self.start_ns).max(now - LATE_NS);
        let mut quiet = Duration::ZERO;
        loop {
            tokio::select! {
                message = socket.recv() => match message {
                    None | Some(Err(_) | Ok(Message::Close(_))) => return Ok(()),
                    Some(Ok(_)) => continue,
                },
                () = tokio::time::sleep(EVERY) => {}
            }
            let until = SystemClock.now().0 - self.delay_ns;
            let found = match self.ask(cursor, until, Direction::Forward, LINES).await {
                Ok(found) => found,
                Err(refusal) if refusal.is_busy() => continue,
                Err(refusal) => return Err(refusal),
            };
            let times = || found.iter().flat_map(|stream| &stream.entries).map(|entry| entry.time_ns);
            let (is_full, last) = (times().count() == LINES, times().max());
            let fresh = sent.without_known(found);
            cursor = match last {
                // More wait behind it; they come with the next look.
                Some(last) if is_full => last + i64::from(fresh.is_empty()),
                _ => cursor.max(until - LATE_NS),
            };
            sent.forget_before(cursor);
            quiet = if fresh.is_empty() { quiet + EVERY } else { Duration::ZERO };
            if quiet >= PING_EVERY {
                quiet = Duration::ZERO;
                let ping = socket.send(Message::Ping(bytes::Bytes::new()));
                if !matches!(tokio::time::timeout(SEND_TIMEOUT, ping).await, Ok(Ok(()))) {
                    return Ok(());
                }
            }
            if !self.send(socket, fresh).await {
                return Ok(());
            }
        }
    }

    async fn ask(
        &self,
        start_ns: i64,
        end_ns: i64,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Stream>, Refusal> {
        let now_ns = SystemClock.now().0;
        let asked = LogParams { start_ns, end_ns: end_ns.max(start_ns), limit, direction, interval_ns: 0, now_ns };
        let (engine, limits) = self.queries.open_engine().await?;
        let answer = engine.logql_lines(self.organization, &self.query, asked, limits).await?;
        Ok(answer.streams)
    }

    /// Whether the reader is still there.
    async fn send(&self, socket: &mut WebSocket, streams: Vec<Value>) -> bool {
        if streams.is_empty() {
            return true;
        }
        let text = json!({ "streams": streams, "dropped_entries": Value::Null }).to_string();
        let sending = socket.send(Message::Text(text.into()));
        matches!(tokio::time::timeout(SEND_TIMEOUT, sending).await, Ok(Ok(())))
    }
}

/// What was sent lately: how often each line of each time.
#[derive(Default)]
struct Sent {
    by_time: BTreeMap<i64, HashMap<u64, usize>>,
}

impl Sent {
    /// The streams with those lines that were not sent before, oldest first.
    fn without_known(&mut self, streams: Vec<Stream>) -> Vec<Value> {
        let mut fresh = Vec::new();
        let mut met: HashMap<(i64, u64), usize> = HashMap::new();
        for mut stream in streams {
            stream.entries.sort_by_key(|entry| entry.time_ns);
            stream.entries.retain(|entry| {
                let mut hasher = DefaultHasher::new();
                (&stream.labels, &entry.line).hash(&mut hasher);
                let key = hasher.finish();
                let times = met.entry((entry.time_ns, key)).or_default();
                *times += 1;
                let known = self.by_time.entry(entry.time_ns).or_default().entry(key).or_default();
                let is_new = *times > *known;
                *known = (*known).max(*times);
                is_new
            });
            if !stream.entries.is_empty() {
                fresh.push(stream.to_json(false));
            }
        }
        fresh
    }

    fn forget_before(&mut self, time_ns: i64) {
        self.by_time = self.by_time.split_off(&time_ns);
    }
}
