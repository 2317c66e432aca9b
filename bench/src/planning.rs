//! Planning one hour over a catalog of many live segments, all of them synthetic.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::json;
use tidemill_plan::prune::SegmentQuery;
use tidemill_plan::snapshot::{CatalogChanges, CatalogSnapshot};
use tidemill_types::{
    ByteRange, Hour, Level, OrganizationId, SegmentId, SegmentMeta, ServiceSet, Signal, Tier, TimeRange, TimestampNs,
};

use crate::templates::SERVICES;

/// How large a catalog.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Live segments of one organization and signal.
    #[arg(long, default_value_t = 1_000_000)]
    segments: u64,
    /// Over how many hours they are spread.
    #[arg(long, default_value_t = 720)]
    hours: i32,
    /// Hours to plan.
    #[arg(long, default_value_t = 200)]
    plans: usize,
}

/// Times planning and describes the times.
pub fn run(options: &Options) -> String {
    let organization = OrganizationId(uuid::Uuid::from_u128(1));
    let first = Hour(480_000);
    let added: Vec<SegmentMeta> =
        (0..options.segments).map(|number| segment(organization, first, number, options.hours)).collect();
    let mut snapshot = CatalogSnapshot::new();
    let began = Instant::now();
    snapshot.apply(CatalogChanges { added, ..CatalogChanges::default() });
    let applied_s = began.elapsed().as_secs_f64();

    let mut times_ms: Vec<f64> = Vec::new();
    let mut chosen = 0;
    for place in 0..options.plans {
        let hour = Hour(first.0 + (place as i32 * 37) % options.hours);
        let services = (place % 2 == 1).then(|| BTreeSet::from([SERVICES[place % SERVICES.len()].to_owned()]));
        let query = SegmentQuery { signal: Signal::Logs, tier: Tier::RAW, time: hour.range(), services };
        let began = Instant::now();
        let plan = snapshot.plan_segments(organization, &query);
        times_ms.push(began.elapsed().as_secs_f64() * 1_000.0);
        chosen += plan.segments.len();
    }
    times_ms.sort_by(f64::total_cmp);
    let at = |share: f64| times_ms[((times_ms.len() - 1) as f64 * share) as usize];
    json!({"segments": snapshot.len(), "apply_s": applied_s, "plans": options.plans, "segments_chosen": chosen,
        "median_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)})
    .to_string()
}

fn segment(organization: OrganizationId, first: Hour, number: u64, hours: i32) -> SegmentMeta {
    let hour = Hour(first.0 + (number % u64::from(hours.unsigned_abs())) as i32);
    let start = TimestampNs(hour.range().start.0 + (number as i64 * 7_919_000_000) % 3_000_000_000_000);
    let names = vec![
        SERVICES[number as usize % SERVICES.len()].to_owned(),
        SERVICES[(number as usize + 1) % SERVICES.len()].to_owned(),
    ];
    let object_key = format!("db/{organization}/logs/{}/t0/l2/{number}-{:032x}-0.parquet", hour.day(), number);
    SegmentMeta {
        id: SegmentId(uuid::Uuid::from_u128(u128::from(number))),
        organization,
        signal: Signal::Logs,
        tier: Tier::RAW,
        level: Level(2),
        day: hour.day(),
        time: TimeRange { start, end: TimestampNs(start.0 + 300_000_000_000) },
        ingest_day: hour.day(),
        rows: 400_000,
        bytes: 64 << 20,
        bucket: "telemetry".to_owned(),
        instance_num: 1,
        object_key,
        etag: None,
        footer: ByteRange { offset: 66_000_000, len: 40_000 },
        footer_hash: [7; 32],
        index: ByteRange { offset: 60_000_000, len: 6_000_000 },
        services: ServiceSet::Names(names),
        covers_ingest_seq: 0,
    }
}
