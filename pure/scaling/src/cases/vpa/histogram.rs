//! Cases of histograms and their checkpoints.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{Mismatches, field, ms};
use crate::decision::TimeMs;
use crate::vpa::{Checkpoint, DecayingHistogram, Histogram, Layout, Options};

/// The least weight of cases that name none.
const EPSILON: f64 = 1e-15;

fn options(input: &Value) -> Result<Options, String> {
    let options = input.get("options").ok_or("input.options is missing")?;
    let (max, first) = (field(options, "max")?, field(options, "first")?);
    let layout = match options["kind"].as_str() {
        Some("linear") => Layout::Linear { max, first },
        Some("exponential") => Layout::Exponential { max, first, ratio: field(options, "ratio")? },
        other => return Err(format!("unknown kind of buckets {other:?}")),
    };
    Ok(Options { layout, epsilon: field::<Option<f64>>(options, "epsilon")?.unwrap_or(EPSILON) })
}

#[derive(Deserialize)]
struct Operation {
    op: String,
    v: f64,
    w: f64,
    #[serde(default)]
    t: f64,
}

/// With a half life, or without.
enum Either {
    Plain(Histogram),
    Decaying(DecayingHistogram),
}

fn build(input: &Value) -> Result<Either, String> {
    let options = options(input)?;
    let mut histogram = match field::<Option<f64>>(input, "half_life_s")? {
        Some(seconds) => Either::Decaying(DecayingHistogram::new(options, ms(seconds))),
        None => Either::Plain(Histogram::new(options)),
    };
    for operation in field::<Vec<Operation>>(input, "ops")? {
        let Operation { op, v, w, t } = operation;
        let at = TimeMs(ms(t));
        match (&mut histogram, op.as_str()) {
            (Either::Plain(histogram), "add") => histogram.add(v, w),
            (Either::Plain(histogram), "sub") => histogram.subtract(v, w),
            (Either::Decaying(histogram), "add") => histogram.add(v, w, at),
            (Either::Decaying(histogram), "sub") => histogram.subtract(v, w, at),
            (_, other) => return Err(format!("unknown operation {other:?}")),
        }
    }
    Ok(histogram)
}

pub(super) fn percentiles(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let histogram = build(input)?;
    let mut percentiles = serde_json::Map::new();
    for asked in field::<Vec<String>>(input, "ask")? {
        let fraction: f64 = asked.parse().map_err(|_| format!("{asked:?} is no fraction"))?;
        let value = match &histogram {
            Either::Plain(histogram) => histogram.percentile(fraction),
            Either::Decaying(histogram) => histogram.percentile(fraction),
        };
        percentiles.insert(asked, json!(value));
    }
    found.check("percentiles", percentiles);
    found.check(
        "empty",
        match &histogram {
            Either::Plain(histogram) => histogram.is_empty(),
            Either::Decaying(histogram) => histogram.is_empty(),
        },
    );
    Ok(())
}

pub(super) fn buckets(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let options = options(input)?;
    found.check("num_buckets", options.buckets());
    let mut starts = serde_json::Map::new();
    for asked in field::<Option<Vec<String>>>(input, "starts")?.unwrap_or_default() {
        let index = asked.parse().map_err(|_| format!("{asked:?} is no bucket"))?;
        starts.insert(asked, json!(options.start(index)));
    }
    found.check("starts", starts);
    let mut buckets = serde_json::Map::new();
    for asked in field::<Option<Vec<String>>>(input, "find")?.unwrap_or_default() {
        let value = asked.parse().map_err(|_| format!("{asked:?} is no number"))?;
        buckets.insert(asked, json!(options.find(value)));
    }
    found.check("find", buckets);
    Ok(())
}

pub(super) fn save(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let checkpoint = match build(input)? {
        Either::Plain(histogram) => histogram.save(),
        Either::Decaying(histogram) => histogram.save(),
    };
    found.check("total", checkpoint.total);
    found.check("buckets", json!(checkpoint.buckets));
    found.check("reference_s", checkpoint.reference.0 / 1000);
    Ok(())
}

#[derive(Deserialize)]
struct Stored {
    total: Option<f64>,
    #[serde(default)]
    buckets: BTreeMap<i64, u32>,
}

pub(super) fn load(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    // No checkpoint at all has no total either.
    let stored: Option<Stored> = field(input, "checkpoint")?;
    let stored = stored.unwrap_or(Stored { total: None, buckets: BTreeMap::new() });
    let checkpoint = Checkpoint { buckets: stored.buckets, total: stored.total, reference: TimeMs(0) };
    match Histogram::load(options(input)?, &checkpoint) {
        Err(error) => found.check_error(&error.to_string()),
        Ok(histogram) => {
            found.check("error", false);
            found.check("total", histogram.total());
            found.check("empty", histogram.is_empty());
            let weights: BTreeMap<String, f64> = (0..histogram.options().buckets())
                .filter(|bucket| histogram.weight(*bucket) > 0.0)
                .map(|bucket| (bucket.to_string(), histogram.weight(bucket)))
                .collect();
            found.check("weights", json!(weights));
        }
    }
    Ok(())
}

pub(super) fn round_trip(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let (before, after) = match build(input)? {
        Either::Plain(histogram) => {
            let loaded = Histogram::load(options(input)?, &histogram.save()).map_err(|error| error.to_string())?;
            (histogram.is_empty(), loaded.is_empty())
        }
        Either::Decaying(histogram) => {
            let half_life = ms(field(input, "half_life_s")?);
            let loaded = DecayingHistogram::load(options(input)?, half_life, &histogram.save());
            (histogram.is_empty(), loaded.map_err(|error| error.to_string())?.is_empty())
        }
    };
    found.check("empty_before", before);
    found.check("empty_after", after);
    Ok(())
}
