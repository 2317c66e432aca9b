//! Cases of the vertical autoscaler. They are about parts of a decision, so they ask the parts that `step` calls.

mod histogram;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Mismatches, field, ms};
use crate::decision::TimeMs;
use crate::vpa::{
    ContainerPolicy, ContainerState, ControlledValues, EvictionBudget, HistogramCall, MemoryWindow, OomBump,
    PriorityInput, ProportionalLimit, Rejection, Resources, UpdateQuestion, amount_from_float, cap, estimate,
    evictable_running, priority_of, proportional_limit, round_up, scale_amount, should_update,
};

/// Runs a case; `None` where the kind is not one of these.
pub(super) fn run(kind: &str, input: &Value, found: &mut Mismatches) -> Option<Result<(), String>> {
    Some(match kind {
        "histogram" => histogram::percentiles(input, found),
        "buckets" => histogram::buckets(input, found),
        "checkpoint_save" => histogram::save(input, found),
        "checkpoint_load" => histogram::load(input, found),
        "checkpoint_round_trip" => histogram::round_trip(input, found),
        "confidence" => confidence(input, found),
        "margin" | "min_resource" | "scale_resource" | "amount_from_float" | "round_up" => amount(kind, input, found),
        "pod_minimum_split" => minimum(input, found),
        "memory_window" => window(input, found),
        "update_priority" => priority(input, found),
        "update_decision" => update(input, found),
        "proportional_limit" => limit(input, found),
        "eviction_budget" => budget(input, found),
        "capping" => capping(input, found),
        "state_expiry" => expiry(input, found),
        _ => return None,
    })
}

fn confidence(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let (lifespan, interval): (f64, f64) = (field(input, "lifespan_s")?, field(input, "interval_s")?);
    let confidence = estimate::confidence(ms(lifespan), field(input, "samples")?, ms(interval));
    found.check("confidence", confidence);
    let (multiplier, exponent) = (field(input, "multiplier")?, field(input, "exponent")?);
    found.check("amount", estimate::with_confidence(field(input, "base")?, multiplier, exponent, confidence));
    Ok(())
}

fn amount(kind: &str, input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let amount = match kind {
        "margin" => estimate::with_margin(field(input, "base")?, field(input, "margin")?),
        "min_resource" => field::<i64>(input, "base")?.max(field(input, "min")?),
        "scale_resource" => scale_amount(field(input, "amount")?, field(input, "factor")?),
        "amount_from_float" => amount_from_float(field(input, "value")?),
        _ => match round_up(field(input, "amount")?, field(input, "scale")?) {
            Some(amount) => amount,
            None => {
                found.check_error("a multiple of nothing");
                return Ok(());
            }
        },
    };
    found.check("amount", amount);
    Ok(())
}

fn minimum(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let containers = field(input, "containers")?;
    let share = |minimum| estimate::pod_minimum_share(minimum, containers);
    let memory: i64 = field(input, "pod_min_memory_mib")?;
    found.check("cpu_milli", field::<i64>(input, "est_cpu_milli")?.max(share(field(input, "pod_min_cpu_milli")?)));
    found.check("memory", field::<i64>(input, "est_memory")?.max(share(memory << 20)));
    Ok(())
}

#[derive(Deserialize)]
struct MemoryEvent {
    kind: String,
    t: f64,
    v: Option<i64>,
    request: Option<i64>,
}

fn window(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    // Times are relative to the first event; upstream's is far from zero.
    const START: TimeMs = TimeMs(1_000_000_000_000);
    let interval = ms(field(input, "interval_s")?);
    let events: Vec<MemoryEvent> = field(input, "events")?;
    let mut window = MemoryWindow::default();
    let (mut calls, mut results) = (Vec::new(), Vec::new());
    for event in events {
        let at = START.plus_ms(ms(event.t));
        let outcome = match (event.kind.as_str(), event.v, event.request) {
            ("sample", Some(bytes), _) => window.sample(at, bytes, interval),
            ("oom", _, Some(requested)) => window.out_of_memory(at, requested, interval, OomBump::default()),
            (other, ..) => return Err(format!("unknown event {other:?}")),
        };
        results.push(match &outcome {
            Ok(_) => "ok",
            Err(Rejection::Rejected) => "rejected",
            Err(Rejection::TooOld) => "too old",
        });
        for call in outcome.unwrap_or_default() {
            let seconds = |at: TimeMs| at.since_ms(START) as f64 / 1000.0;
            calls.push(match call {
                HistogramCall::Add(bytes, at) => json!(["add", bytes, seconds(at)]),
                HistogramCall::Subtract(bytes, at) => json!(["sub", bytes, seconds(at)]),
            });
        }
    }
    found.check("histogram_calls", calls);
    found.check("results", json!(results));
    Ok(())
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Amounts {
    cpu: Option<i64>,
    memory: Option<i64>,
}

impl From<Amounts> for Resources {
    fn from(amounts: Amounts) -> Self {
        Self { cpu_milli: amounts.cpu, memory_bytes: amounts.memory }
    }
}

fn amounts(input: &Value, name: &str) -> Result<Resources, String> {
    Ok(field::<Option<Amounts>>(input, name)?.unwrap_or_default().into())
}

fn priority(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let containers: Vec<Value> = field(input, "containers")?;
    let one = |container: &Value| {
        Ok::<_, String>(PriorityInput {
            requests: amounts(container, "request")?,
            target: amounts(container, "target")?,
            lower: amounts(container, "lower")?,
            upper: amounts(container, "upper")?,
        })
    };
    let containers: Result<Vec<PriorityInput>, String> = containers.iter().map(one).collect();
    let priority = priority_of(&containers?);
    found.check("resource_diff", priority.resource_diff);
    found.check("scale_up", priority.is_scale_up);
    found.check("outside_range", priority.is_outside_range);
    Ok(())
}

fn update(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let question = UpdateQuestion {
        resource_diff: field(input, "resource_diff")?,
        is_outside_range: field(input, "outside_range")?,
        age_ms: field::<Option<f64>>(input, "pod_age_s")?.map(ms),
        lifetime_ms: ms(field(input, "lifetime_threshold_s")?),
        min_change: field(input, "min_change")?,
        oom_after_ms: field::<Option<f64>>(input, "oom_ran_s")?.map(ms),
    };
    found.check("update", should_update(question));
    Ok(())
}

fn limit(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let limit = proportional_limit(ProportionalLimit {
        limit: field(input, "limit")?,
        request: field(input, "request")?,
        recommended: field(input, "recommended")?,
        default_limit: field(input, "default_limit")?,
    });
    found.check("limit", limit);
    Ok(())
}

fn budget(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let budget = EvictionBudget {
        replicas: field(input, "replicas")?,
        running: field(input, "running")?,
        pending: field(input, "pending")?,
        min_replicas: field(input, "min_replicas")?,
        tolerance: field(input, "tolerance")?,
    };
    found.check("evicted_running", evictable_running(budget));
    found.check("evicted_pending", crate::vpa::evictable_pending(budget));
    Ok(())
}

fn capping(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let policy = ContainerPolicy {
        min_allowed: amounts(input, "min_allowed")?,
        max_allowed: amounts(input, "max_allowed")?,
        controlled_values: field::<Option<ControlledValues>>(input, "controlled_values")?.unwrap_or_default(),
        ..ContainerPolicy::with_defaults("case")
    };
    let (global, limits) = (amounts(input, "global_max")?, amounts(input, "limit")?);
    for name in ["target", "lower", "upper"] {
        let capped = cap(amounts(input, name)?, &policy, global, limits);
        let mut shown = serde_json::Map::new();
        for (key, amount) in [("cpu", capped.cpu_milli), ("memory", capped.memory_bytes)] {
            if let Some(amount) = amount {
                shown.insert(key.to_owned(), json!(amount));
            }
        }
        found.check(name, shown);
    }
    Ok(())
}

fn expiry(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let days: f64 = field(input, "idle_days")?;
    let mut state = ContainerState::new(TimeMs(0));
    let sampled = state.add_cpu("replica", TimeMs(0), 1).is_ok();
    found.check("expired", sampled && state.is_expired(TimeMs(ms(days * 86_400.0))));
    Ok(())
}
