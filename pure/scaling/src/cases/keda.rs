//! Cases of `ScaledJob`. They are KEDA's own, so the profile is the strict one.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Mismatches, field, only};
use crate::decision::{FactValue, Outcome, TimeMs};
use crate::hpa::Phase;
use crate::keda::job::{self, Job, Observation, Policy, State};
use crate::keda::{
    Calculation, Combined, JobBounds, Profile, Strategy, StrategyKind, Target, Trigger, TriggerReading, TriggerValue,
    decide,
};

const NOW: TimeMs = TimeMs(1_000_000_000);

/// The expectations of a case whose list does not put them under `expect`.
pub(super) fn expected(kind: &str, case: &Value) -> Value {
    let names: &[(&str, &str)] = match kind {
        "effective_max_scale" => &[("effectiveMaxScale", "effectiveMaxScale"), ("scaleToOut", "scaleToOut")],
        "min_max" => &[("expectedMin", "expectedMin"), ("expectedMax", "expectedMax")],
        "docs_table" | "derived_edge_cases" => &[("created", "created")],
        _ => return case.get("expected").cloned().unwrap_or(Value::Null),
    };
    let found = names.iter().filter_map(|(from, to)| Some(((*to).to_owned(), case.get(*from)?.clone())));
    Value::Object(found.collect())
}

/// Runs a case; `None` where the kind is not one of these.
pub(super) fn run(kind: &str, case: &Value, found: &mut Mismatches) -> Option<Result<(), String>> {
    let input = case.get("input").unwrap_or(case);
    Some(match kind {
        "effective_max_scale" => effective(input, found),
        "min_max" => bounds(input, found),
        "decision" => decision(input, found),
        "multi_scaler" => combined(input, found),
        "docs_table" => documented(input, found),
        "derived_edge_cases" => derived(input, found),
        _ => return None,
    })
}

fn strategy(input: &Value, names: [&str; 2]) -> Result<Strategy, String> {
    let kind: Option<StrategyKind> = match input.get("strategy").and_then(Value::as_str) {
        Some("") | None => None,
        Some(_) => Some(field(input, "strategy")?),
    };
    // A share is text in a manifest; a number means the same.
    let custom_percentage = match input.get(names[1]) {
        Some(Value::Number(share)) => Some(share.to_string()),
        _ => field(input, names[1])?,
    };
    Ok(Strategy { kind: kind.unwrap_or_default(), custom_deduction: field(input, names[0])?, custom_percentage })
}

fn effective(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    only(
        input,
        &[
            "strategy",
            "custom_deduction",
            "custom_pct",
            "maxScale",
            "running",
            "pending",
            "maxReplica",
            "scaleTo",
            "effectiveMaxScale",
            "scaleToOut",
            "kind",
            "expect",
        ],
    )?;
    let outcome = strategy(input, ["custom_deduction", "custom_pct"])?.effective_max_scale(
        field(input, "maxScale")?,
        field(input, "running")?,
        field(input, "pending")?,
        field(input, "maxReplica")?,
        field(input, "scaleTo")?,
        Profile::Strict,
    );
    found.check("effectiveMaxScale", outcome.effective);
    found.check("scaleToOut", outcome.scale_to);
    Ok(())
}

fn bounds(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    only(input, &["min", "max", "expectedMin", "expectedMax", "kind", "expect"])?;
    let bounds = JobBounds::new(field(input, "min")?, field(input, "max")?);
    found.check("expectedMin", bounds.min);
    found.check("expectedMax", bounds.max);
    Ok(())
}

fn decision(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    only(
        input,
        &[
            "strategy",
            "custom_deduction",
            "custom_pct",
            "min",
            "max",
            "maxScale",
            "running",
            "pending",
            "scaleTo",
            "expected",
            "kind",
            "expect",
        ],
    )?;
    let combined =
        Combined { is_active: true, queue_length: field(input, "scaleTo")?, max_value: field(input, "maxScale")? };
    let bounds = JobBounds::new(field(input, "min")?, field(input, "max")?);
    let strategy = strategy(input, ["custom_deduction", "custom_pct"])?;
    let (running, pending) = (field(input, "running")?, field(input, "pending")?);
    let outcome = decide(&strategy, bounds, combined, running, pending, Profile::Strict);
    found.check("effectiveMaxScale", outcome.effective);
    found.check("scaleTo", outcome.scale_to);
    Ok(())
}

#[derive(Deserialize)]
struct CaseScaler {
    #[serde(rename = "queueLength")]
    queue_length: f64,
    target: f64,
    active: bool,
}

/// A whole decision through `step`.
fn decide_all(policy: &Policy, scalers: &[CaseScaler], running: usize, pending: usize) -> Outcome<State> {
    let phase = |index: usize| if index < pending { Phase::Pending } else { Phase::Running };
    let jobs = (0..running).map(|index| Job::active(format!("job-{index}"), phase(index))).collect();
    let reading = |scaler: &CaseScaler| {
        let value = scaler.queue_length;
        TriggerReading::Value(TriggerValue { value, in_flight: None, is_active: Some(scaler.active), observed_at: NOW })
    };
    let observation = Observation { jobs: Ok(jobs), triggers: scalers.iter().map(reading).collect() };
    job::step(policy, State::default(), &observation, NOW)
}

fn policy(scalers: &[CaseScaler], min: Option<i32>, max: Option<i32>) -> Policy {
    let trigger = |(index, scaler): (usize, &CaseScaler)| Trigger {
        metric: format!("s{index}-case"),
        name: String::new(),
        target: Target::AverageValue { value: scaler.target, activation: 0.0, is_cached: false },
    };
    Policy {
        profile: Profile::Strict,
        min_replicas: min,
        max_replicas: max,
        ..Policy::with_defaults(scalers.iter().enumerate().map(trigger).collect())
    }
}

fn calculation(input: &Value, name: &str) -> Result<Calculation, String> {
    match input.get(name).and_then(Value::as_str) {
        Some("") | None => Ok(Calculation::default()),
        Some(_) => field(input, name),
    }
}

fn combined(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    only(input, &["scalers", "calc", "min", "max", "expected", "kind", "expect"])?;
    let scalers: Vec<CaseScaler> = field(input, "scalers")?;
    let policy = Policy {
        calculation: calculation(input, "calc")?,
        ..policy(&scalers, field(input, "min")?, field(input, "max")?)
    };
    let outcome = decide_all(&policy, &scalers, 0, 0);
    let reason = outcome.reason("TriggersCombined").ok_or("the triggers were not combined")?;
    let whole = |name: &str| match reason.fact(name) {
        Some(FactValue::Whole(value)) => json!(value),
        _ => Value::Null,
    };
    found.check("active", reason.fact("active") == Some(&FactValue::Text("true".to_owned())));
    found.check("queueLength", whole("queue_length"));
    found.check("maxValue", whole("max_value"));
    Ok(())
}

fn documented(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    only(
        input,
        &[
            "queue",
            "target",
            "maxReplica",
            "running",
            "pending",
            "strategy",
            "custom_deduction",
            "custom_pct",
            "created",
            "kind",
            "expect",
        ],
    )?;
    let scalers = [CaseScaler { queue_length: field(input, "queue")?, target: field(input, "target")?, active: true }];
    let policy = Policy {
        strategy: strategy(input, ["custom_deduction", "custom_pct"])?,
        ..policy(&scalers, None, field(input, "maxReplica")?)
    };
    let pending = field::<Option<usize>>(input, "pending")?.unwrap_or(0);
    found.check("created", decide_all(&policy, &scalers, field(input, "running")?, pending).created_jobs());
    Ok(())
}

fn derived(case: &Value, found: &mut Mismatches) -> Result<(), String> {
    let input = case.get("inputs").unwrap_or(case);
    only(
        input,
        &["rows", "how", "strategy", "ded", "pct", "mn", "mx", "running", "pending", "created", "kind", "expect"],
    )?;
    let rows: Vec<(f64, f64, bool)> = field(input, "rows")?;
    let scalers: Vec<CaseScaler> =
        rows.into_iter().map(|(queue_length, target, active)| CaseScaler { queue_length, target, active }).collect();
    let policy = Policy {
        calculation: calculation(input, "how")?,
        strategy: strategy(input, ["ded", "pct"])?,
        ..policy(&scalers, field(input, "mn")?, field(input, "mx")?)
    };
    let outcome = decide_all(&policy, &scalers, field(input, "running")?, field(input, "pending")?);
    found.check("created", outcome.created_jobs());
    Ok(())
}
