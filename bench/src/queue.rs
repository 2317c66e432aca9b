//! Jobs that do nothing, through the metastore's own queue: enqueue, claim, complete.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;
use tidemill_store::Metastore;
use tidemill_store::metastore::{ClaimRequest, NewWork};
use tidemill_store::postgres::{PostgresMetastore, PostgresOptions};
use tidemill_types::{Action, OrganizationId, Signal, Tier, WorkQueue};

/// Completions of the latency run are sent this often.
const COMPLETED_EVERY: Duration = Duration::from_millis(10);

const QUEUE: WorkQueue = WorkQueue { signal: Signal::Logs, action: Action::Compact };

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A database of its own on PostgreSQL.
    #[arg(long)]
    postgres: String,
    /// Jobs to burn down.
    #[arg(long, default_value_t = 200_000)]
    jobs: usize,
    /// Claimants at the same time.
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// Items a claim takes at most.
    #[arg(long, default_value_t = 500)]
    batch: usize,
    /// Instead of a burn-down: enqueue this many a second for `seconds`, and time how soon each starts.
    #[arg(long)]
    rate: Option<usize>,
    #[arg(long, default_value_t = 20)]
    seconds: usize,
}

/// Runs and describes the times.
pub async fn run(options: &Options) -> anyhow::Result<String> {
    let metastore: Arc<dyn Metastore> =
        Arc::new(PostgresMetastore::connect(&PostgresOptions::new(&options.postgres)).await?);
    let organization = OrganizationId(uuid::Uuid::from_u128(1));
    if metastore.organizations().await?.iter().all(|known| known.id != organization) {
        metastore.create_organization(organization, "bench").await?;
    }
    match options.rate {
        None => burn_down(&metastore, organization, options).await,
        Some(rate) => start_latency(&metastore, organization, options, rate).await,
    }
}

fn job(organization: OrganizationId, payload: serde_json::Value) -> NewWork {
    NewWork {
        queue: QUEUE,
        organization,
        instance_num: 1,
        priority: 0,
        delay: Duration::ZERO,
        dedupe_key: None,
        range: None,
        tier: Tier::RAW,
        size_bytes: 0,
        payload,
    }
}

fn claim(batch: usize) -> ClaimRequest {
    ClaimRequest {
        queues: vec![QUEUE],
        max_items: batch,
        max_bytes: u64::MAX >> 1,
        lease: Duration::from_secs(60),
        worker: "bench".to_owned(),
        after: None,
    }
}

async fn burn_down(
    metastore: &Arc<dyn Metastore>,
    organization: OrganizationId,
    options: &Options,
) -> anyhow::Result<String> {
    let began = Instant::now();
    for first in (0..options.jobs).step_by(1_000) {
        let count = (options.jobs - first).min(1_000);
        let work: Vec<NewWork> =
            (first..first + count).map(|number| job(organization, json!({"id": number}))).collect();
        metastore.enqueue(&work).await?;
    }
    let enqueued_s = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..options.workers {
        let (metastore, request) = (Arc::clone(metastore), claim(options.batch));
        workers.spawn(async move {
            let mut done = 0;
            while let Some(bundle) = metastore.claim(&request).await? {
                let lost = metastore.complete(&[bundle.token]).await?;
                anyhow::ensure!(lost.is_empty(), "a lease of 60 s ran out");
                done += bundle.items.len();
            }
            Ok(done)
        });
    }
    let mut done = 0;
    while let Some(worker) = workers.join_next().await {
        done += worker.context("a worker died")??;
    }
    let seconds = began.elapsed().as_secs_f64();
    anyhow::ensure!(done == options.jobs, "{done} of {} jobs ran", options.jobs);
    Ok(json!({"jobs": done, "seconds": seconds, "jobs_per_s": done as f64 / seconds, "enqueue_s": enqueued_s})
        .to_string())
}

async fn start_latency(
    metastore: &Arc<dyn Metastore>,
    organization: OrganizationId,
    options: &Options,
    rate: usize,
) -> anyhow::Result<String> {
    let total = rate * options.seconds;
    let began = Instant::now();
    let consumer = {
        let (metastore, request) = (Arc::clone(metastore), claim(options.batch));
        tokio::spawn(async move {
            let mut delays_ms: Vec<f64> = Vec::with_capacity(total);
            let mut completing = tokio::task::JoinSet::new();
            let (mut ended, mut batched) = (Vec::new(), Instant::now());
            while delays_ms.len() < total {
                let Some(bundle) = metastore.claim(&request).await? else {
                    metastore.wait_for_work(&[QUEUE], Duration::from_secs(1)).await;
                    continue;
                };
                let now = began.elapsed().as_secs_f64();
                let sent = bundle.items.iter().filter_map(|item| item.payload["sent"].as_f64());
                delays_ms.extend(sent.map(|sent| (now - sent) * 1_000.0));
                ended.push(bundle.token);
                // In batches, as the peer does, and beside the next claim.
                if batched.elapsed() >= COMPLETED_EVERY {
                    let (metastore, tokens) = (Arc::clone(&metastore), std::mem::take(&mut ended));
                    batched = Instant::now();
                    completing.spawn(async move { metastore.complete(&tokens).await });
                    while let Some(completed) = completing.try_join_next() {
                        completed.context("a completion died")??;
                    }
                }
            }
            while let Some(completed) = completing.join_next().await {
                completed.context("a completion died")??;
            }
            metastore.complete(&ended).await?;
            anyhow::Ok(delays_ms)
        })
    };
    // Senders do not wait for each other: a commit may take longer than the time to the next one.
    let mut sending = tokio::task::JoinSet::new();
    for number in 0..total {
        let due = Duration::from_secs_f64(number as f64 / rate as f64);
        tokio::time::sleep_until((began + due).into()).await;
        let (metastore, sent) = (Arc::clone(metastore), began.elapsed().as_secs_f64());
        sending.spawn(async move { metastore.enqueue(&[job(organization, json!({"sent": sent}))]).await });
        while let Some(enqueued) = sending.try_join_next() {
            enqueued.context("a sender died")??;
        }
    }
    while let Some(enqueued) = sending.join_next().await {
        enqueued.context("a sender died")??;
    }
    let mut delays_ms = consumer.await.context("the consumer died")??;
    delays_ms.sort_by(f64::total_cmp);
    let at = |share: f64| delays_ms[((delays_ms.len() - 1) as f64 * share) as usize];
    Ok(json!({"rate": rate, "jobs": total, "p50_ms": at(0.5), "p99_ms": at(0.99)}).to_string())
}
