//! Admission: identities, inbox rows, refusals.

use std::collections::HashSet;

use deadpool_postgres::GenericClient;
use tidemill_types::{OrganizationId, Signal, TimestampNs, WorkId};
use uuid::Uuid;

use super::connection::{execute, query};
use super::organizations::check_open;
use crate::encoding::{InputPayload, bounded_reason, to_json};
use crate::metastore::{Admission, InboxEntry, InputIdentity, NewInput, Refusal, RememberedInput};
use crate::{MetastoreOptions, Result};

pub(super) async fn known_identities(client: &impl GenericClient, identities: &[InputIdentity]) -> Result<Vec<bool>> {
    let hashes: Vec<&[u8]> = identities.iter().map(|identity| identity.0.as_slice()).collect();
    let sql = "SELECT hash FROM identities WHERE hash = ANY($1) AND forget_at > now_ns()";
    let rows = query(client, "look up identity", sql, &[&hashes]).await?;
    let known: HashSet<&[u8]> = rows.iter().map(|row| row.get(0)).collect();
    Ok(hashes.iter().map(|hash| known.contains(hash)).collect())
}

/// One statement, in order of the hashes as [`remember`].
pub(super) async fn remember_inputs(
    client: &impl GenericClient,
    inputs: &[RememberedInput],
    options: &MetastoreOptions,
) -> Result<()> {
    let (hashes, times): (Vec<&[u8]>, Vec<i64>) =
        inputs.iter().map(|input| (input.identity.0.as_slice(), options.forget_at(input))).unzip();
    let sql = "INSERT INTO identities (hash, forget_at) \
               SELECT DISTINCT ON (hash) hash, forget_at FROM unnest($1::bytea[], $2::bigint[]) AS given (hash, forget_at) \
               WHERE forget_at > now_ns() ORDER BY hash, forget_at DESC \
               ON CONFLICT (hash) DO UPDATE SET forget_at = greatest(identities.forget_at, excluded.forget_at)";
    execute(client, "remember inputs", sql, &[&hashes, &times]).await?;
    Ok(())
}

/// Remembers all identities at once and sees which were new (a concurrent sender of the same one is waited for), then decides
/// per input and forgets those of inputs that are not admitted. Returns the rows' `runnable_at` as well.
pub(super) async fn admit(
    client: &impl GenericClient,
    inputs: &[NewInput],
    options: &MetastoreOptions,
) -> Result<(Vec<Admission>, i64)> {
    check_open(client, "admit", inputs.iter().map(|input| input.organization)).await?;
    let mut fresh = remember(client, inputs, options).await?;
    let mut admissions = Vec::with_capacity(inputs.len());
    let mut admitted = Vec::new();
    for input in inputs {
        let mut own = HashSet::new();
        let known: Vec<usize> = (0..input.identities.len())
            .filter(|&place| {
                let hash = input.identities[place].0;
                !fresh.contains(&hash) || !own.insert(hash)
            })
            .collect();
        if known.is_empty() {
            fresh.retain(|hash| !own.contains(hash));
            admitted.push(input);
            admissions.push(Admission::Admitted(WorkId(0)));
        } else {
            admissions.push(Admission::Known(known));
        }
    }
    if !fresh.is_empty() {
        let unused: Vec<&[u8]> = fresh.iter().map(<[u8; 32]>::as_slice).collect();
        execute(client, "admit", "DELETE FROM identities WHERE hash = ANY($1)", &[&unused]).await?;
    }
    let (ids, at) = insert_work(client, &admitted).await?;
    let mut ids = ids.into_iter();
    for admission in &mut admissions {
        if let Admission::Admitted(id) = admission {
            *id = WorkId(ids.next().expect("each admitted input has a row"));
        }
    }
    Ok((admissions, at))
}

/// Inserts the identities that are not known, in order of their hashes so that two senders never wait for each other in a ring.
async fn remember(
    client: &impl GenericClient,
    inputs: &[NewInput],
    options: &MetastoreOptions,
) -> Result<HashSet<[u8; 32]>> {
    let nanos = |memory: std::time::Duration| i64::try_from(memory.as_nanos()).unwrap_or(i64::MAX / 4);
    let mut identities: Vec<(&[u8], i64)> = inputs
        .iter()
        .flat_map(|input| {
            let memory = nanos(if input.owned { options.push_memory } else { options.object_memory });
            input.identities.iter().map(move |identity| (identity.0.as_slice(), memory))
        })
        .collect();
    identities.sort_unstable();
    identities.dedup_by_key(|(hash, _)| *hash);
    if identities.is_empty() {
        return Ok(HashSet::new());
    }
    let (hashes, memories): (Vec<&[u8]>, Vec<i64>) = identities.into_iter().unzip();
    let rows = query(
        client,
        "admit",
        "INSERT INTO identities (hash, forget_at) \
         SELECT hash, now_ns() + memory FROM unnest($1::bytea[], $2::bigint[]) AS given (hash, memory) ORDER BY hash \
         ON CONFLICT (hash) DO UPDATE SET forget_at = excluded.forget_at WHERE identities.forget_at <= now_ns() \
         RETURNING hash",
        &[&hashes, &memories],
    )
    .await?;
    Ok(rows.iter().filter_map(|row| row.get::<_, &[u8]>(0).try_into().ok()).collect())
}

async fn insert_work(client: &impl GenericClient, inputs: &[&NewInput]) -> Result<(Vec<i64>, i64)> {
    if inputs.is_empty() {
        return Ok((Vec::new(), i64::MAX));
    }
    let queues: Vec<i16> = inputs.iter().map(|input| input.queue().code()).collect();
    let organizations: Vec<Uuid> = inputs.iter().map(|input| input.organization.0).collect();
    let instances: Vec<i32> = inputs.iter().map(|input| input.instance_num).collect();
    let priorities: Vec<i16> = inputs.iter().map(|input| input.priority).collect();
    let sizes: Vec<i64> = inputs.iter().map(|input| i64::try_from(input.size_bytes).unwrap_or(i64::MAX)).collect();
    let keys: Vec<&str> = inputs.iter().map(|input| input.object_key.as_str()).collect();
    let payloads: Vec<String> =
        inputs.iter().map(|input| to_json("admit", &InputPayload::of(input))).collect::<Result<_>>()?;
    let rows = query(
        client,
        "admit",
        "INSERT INTO work (queue, organization, instance_num, priority, runnable_at, created_at, size_bytes, object_key, payload) \
         SELECT queue, organization, instance_num, priority, now_ns(), now_ns(), size_bytes, object_key, payload \
         FROM unnest($1::smallint[], $2::uuid[], $3::integer[], $4::smallint[], $5::bigint[], $6::text[], $7::text[]) \
           WITH ORDINALITY AS given (queue, organization, instance_num, priority, size_bytes, object_key, payload, place) \
         ORDER BY place RETURNING id, runnable_at",
        &[&queues, &organizations, &instances, &priorities, &sizes, &keys, &payloads],
    )
    .await?;
    // Ids are given in the order of the rows.
    let mut ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    ids.sort_unstable();
    Ok((ids, rows.first().map_or(i64::MAX, |row| row.get(1))))
}

pub(super) async fn record_refusals(client: &impl GenericClient, refusals: &[Refusal]) -> Result<()> {
    for refusal in refusals {
        execute(
            client,
            "record refusals",
            "INSERT INTO refusals (organization, signal, bucket, object_key, records_refused, records_kept, reason, at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            &[
                &refusal.organization.map(|id| id.0),
                &refusal.signal.map(Signal::code),
                &without_zero(&refusal.bucket),
                &without_zero(&refusal.object_key),
                &i64::try_from(refusal.records_refused).unwrap_or(i64::MAX),
                &i64::try_from(refusal.records_kept).unwrap_or(i64::MAX),
                &without_zero(bounded_reason(&refusal.reason)),
                &refusal.at.0,
            ],
        )
        .await?;
    }
    Ok(())
}

/// PostgreSQL's text holds no zero byte; a reason that quotes bad input may.
pub(super) fn without_zero(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

const INBOX: &str = "
    SELECT w.id, CASE WHEN l.token IS NULL THEN 'waiting' ELSE 'leased' END, w.organization, (w.queue % 16)::smallint,
           w.payload::json ->> 'bucket', w.object_key, w.size_bytes, w.created_at AS at, w.failures, w.crashes, e.reason
    FROM (SELECT * FROM work WHERE queue / 16 = 1 AND ($1::uuid IS NULL OR organization = $1) ORDER BY id DESC LIMIT $2) w
    LEFT JOIN leases l ON l.token = w.token AND l.lease_until > now_ns()
    LEFT JOIN work_errors e ON e.work = w.id
    UNION ALL
    (SELECT id, 'dead', organization, (queue % 16)::smallint, payload::json ->> 'bucket', object_key, size_bytes, died_at,
            failures, crashes, reason
     FROM dead_letters WHERE queue / 16 = 1 AND ($1::uuid IS NULL OR organization = $1) ORDER BY died_at DESC LIMIT $2)
    UNION ALL
    (SELECT NULL, 'refused', organization, signal, bucket, object_key, 0, at, 0, 0,
            CASE WHEN records_refused > 0
              THEN records_refused || ' records refused, ' || records_kept || ' kept: ' || reason ELSE reason END
     FROM refusals WHERE $1::uuid IS NULL OR organization = $1 ORDER BY at DESC LIMIT $2)
    ORDER BY at DESC LIMIT $2";

pub(super) async fn inbox(
    client: &impl GenericClient,
    organization: Option<OrganizationId>,
    limit: usize,
) -> Result<Vec<InboxEntry>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query(client, "list inbox", INBOX, &[&organization.map(|id| id.0), &limit]).await?;
    let entry = |row: &tokio_postgres::Row| InboxEntry {
        work: row.get::<_, Option<i64>>(0).map(WorkId),
        state: row.get(1),
        organization: row.get::<_, Option<Uuid>>(2).map(OrganizationId),
        signal: row.get::<_, Option<i16>>(3).and_then(Signal::from_code),
        bucket: row.get(4),
        object_key: row.get(5),
        size_bytes: row.get::<_, i64>(6).cast_unsigned(),
        at: TimestampNs(row.get(7)),
        failures: row.get::<_, i32>(8).cast_unsigned(),
        crashes: row.get::<_, i32>(9).cast_unsigned(),
        reason: row.get(10),
    };
    Ok(rows.iter().map(entry).collect())
}
