//! Cases of the horizontal autoscaler.

mod input;

use serde_json::{Value, json};

use super::{Mismatches, field, ms, only};
use crate::decision::{FactValue, Outcome, Reason, Truth};
use crate::hpa::{
    Behavior, History, Limits, Metric, Observation, Policy, Recommendation, Rules, Scale, ScaleEvent, ScaleUpLimit,
    ScalingPolicy, ScalingPolicyKind, Select, State, Tolerance, bound_by_behavior, bound_by_default, changes_within,
    plain_ratio, stabilize_by_behavior, stabilize_by_default, step, utilization_ratio,
};
use input::{Described, NOW, TIMING, describe, pods_of, reading_of};

/// Runs a case; `None` where the kind is not one of these.
pub(super) fn run(kind: &str, input: &Value, found: &mut Mismatches) -> Option<Result<(), String>> {
    if let Err(error) = only(input, known_fields(kind)?) {
        return Some(Err(error));
    }
    Some(match kind {
        "resource_utilization"
        | "pods_average"
        | "object_value"
        | "external_value"
        | "object_average"
        | "external_average" => calculate(kind, input, found),
        "group_pods" => group(input, found),
        "utilization_ratio" => ratio(input, true, found),
        "usage_ratio" => ratio(input, false, found),
        "clamp_default_rules" => clamp(input, found),
        "stabilize_default" => stabilize_default(input, found),
        "stabilize_behavior" => stabilize_behavior(input, found),
        "behavior_rate" => rate(input, found),
        "store_event" => store(input, found),
        "controller_tick" => tick(input, found),
        _ => return None,
    })
}

/// The fields of each kind of case.
fn known_fields(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "resource_utilization"
        | "pods_average"
        | "object_value"
        | "external_value"
        | "object_average"
        | "external_average" => &[
            "metrics",
            "resource",
            "container",
            "pods",
            "current",
            "status_replicas",
            "tolerance",
            "target_utilization",
            "target_average",
            "target_value",
            "values",
        ],
        "group_pods" => &["metrics", "pods", "resource"],
        "utilization_ratio" | "usage_ratio" => &["usage", "requests", "target"],
        "clamp_default_rules" => {
            &["current", "desired", "min", "max", "scale_up_limit_factor", "scale_up_limit_minimum"]
        }
        "stabilize_default" => &["desired", "recommendations", "window_s", "up_events", "down_events"],
        "stabilize_behavior" => {
            &["current", "desired", "recommendations", "up_window_s", "down_window_s", "up_events", "down_events"]
        }
        "behavior_rate" => &[
            "current",
            "desired",
            "min",
            "max",
            "scale_up",
            "scale_down",
            "up_events",
            "down_events",
            "recommendations",
        ],
        "store_event" => &["events", "policy_periods_s", "new_change", "sum_window_s"],
        "controller_tick" => &[
            "metrics",
            "behavior",
            "min",
            "max",
            "spec",
            "status",
            "recommendations",
            "up_events",
            "down_events",
            "tolerance",
            "scale_up_limit_factor",
            "scale_up_limit_minimum",
        ],
        _ => return None,
    })
}

/// One metric through `step`, with bounds that do not matter.
fn calculate(kind: &str, input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let Described { metric, reading } = describe(kind, input)?;
    let tolerance: Option<Tolerance> = field(input, "tolerance")?;
    let policy = Policy {
        tolerance: tolerance.unwrap_or_default(),
        timing: TIMING,
        ..Policy::strict(0, i32::MAX, vec![metric])
    };
    let status: Option<i32> = field(input, "status_replicas")?;
    let current = field::<Option<i32>>(input, "current")?.or(status).unwrap_or(0);
    let scale = Scale { spec_replicas: current, status_replicas: status.unwrap_or(current) };
    let observation =
        Observation { scale: Ok(scale), selector_problem: None, pods: pods_of(kind, input)?, readings: vec![reading] };
    let outcome = step(&policy, State::default(), &observation, NOW);
    let failure = policy.metrics.first().map_or("", Metric::failure_code);
    if let Some(reason) = outcome.reason(failure) {
        found.check_error(&reason.message);
        return Ok(());
    }
    let proposal = outcome.reason("MetricProposal").ok_or("the metric proposed nothing")?;
    found.check("replicas", fact(proposal, "proposed"));
    found.check("utilization", fact(proposal, "utilization_percent"));
    found.check("raw", fact(proposal, "usage"));
    found.check("usage", fact(proposal, "usage"));
    found.check("ratio", fact(proposal, "ratio"));
    Ok(())
}

fn fact(reason: &Reason, name: &str) -> Value {
    match reason.fact(name) {
        None => Value::Null,
        Some(FactValue::Whole(value)) => json!(value),
        Some(FactValue::Number(value)) => json!(value),
        Some(FactValue::Text(text)) => json!(text),
        Some(FactValue::Names(names)) => json!(names),
    }
}

fn group(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let pods = pods_of("group_pods", input)?;
    let groups = input::groups(&pods, input)?;
    let names = |set: &std::collections::BTreeSet<String>| json!(set);
    found.check("ready", groups.ready);
    found.check_set("unready", names(&groups.unready));
    found.check_set("missing", names(&groups.missing));
    found.check_set("ignored", names(&groups.ignored));
    Ok(())
}

fn ratio(input: &Value, is_utilization: bool, found: &mut Mismatches) -> Result<(), String> {
    let usage: std::collections::BTreeMap<String, i64> = field(input, "usage")?;
    let usage = usage.iter().map(|(pod, value)| (pod.as_str(), *value)).collect();
    let ratio = if is_utilization {
        let requests: std::collections::BTreeMap<String, i64> = field(input, "requests")?;
        let requests = requests.iter().map(|(pod, value)| (pod.as_str(), *value)).collect();
        utilization_ratio(&usage, &requests, field(input, "target")?)
    } else {
        Ok(plain_ratio(&usage, field(input, "target")?))
    };
    match ratio {
        Ok(ratio) => {
            found.check("ratio", ratio.ratio);
            found.check("utilization", ratio.utilization);
            found.check("raw", ratio.average_milli);
            found.check("usage", ratio.average_milli);
        }
        Err(error) => found.check_error(&error),
    }
    Ok(())
}

fn limits(input: &Value) -> Result<Limits, String> {
    Ok(Limits { min: field(input, "min")?, max: field(input, "max")? })
}

fn step_limit(input: &Value) -> Result<ScaleUpLimit, String> {
    let defaults = ScaleUpLimit::default();
    Ok(ScaleUpLimit {
        factor: field::<Option<f64>>(input, "scale_up_limit_factor")?.unwrap_or(defaults.factor),
        minimum: field::<Option<f64>>(input, "scale_up_limit_minimum")?.unwrap_or(defaults.minimum),
    })
}

fn clamp(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let bounded =
        bound_by_default(field(input, "current")?, field(input, "desired")?, limits(input)?, step_limit(input)?);
    found.check("replicas", bounded.replicas);
    found.check("reason", bounded.reason);
    Ok(())
}

/// `[[replicas, age in seconds]]`; null is a controller that has just started.
fn history(input: &Value) -> Result<History, String> {
    let pairs: Option<Vec<(i32, f64)>> = field(input, "recommendations")?;
    let recommendations = pairs.map(|pairs| {
        pairs.into_iter().map(|(replicas, age)| Recommendation { at: NOW.plus_ms(-ms(age)), replicas }).collect()
    });
    let events = |name: &str| -> Result<Vec<ScaleEvent>, String> {
        Ok(field::<Option<Vec<input::Event>>>(input, name)?
            .unwrap_or_default()
            .iter()
            .map(input::Event::event)
            .collect())
    };
    Ok(History { recommendations, up_events: events("up_events")?, down_events: events("down_events")? })
}

fn sizes(history: &History) -> Vec<i32> {
    history.recommendations.iter().flatten().map(|known| known.replicas).collect()
}

fn stabilize_default(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let mut history = history(input)?;
    let stabilized = stabilize_by_default(&mut history, field(input, "desired")?, ms(field(input, "window_s")?), NOW);
    found.check("replicas", stabilized.replicas);
    found.check("history_len", sizes(&history).len());
    found.check("recommendations", json!(sizes(&history)));
    Ok(())
}

fn stabilize_behavior(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let mut history = history(input)?;
    let (up, down) = (ms(field(input, "up_window_s")?), ms(field(input, "down_window_s")?));
    let stabilized =
        stabilize_by_behavior(&mut history, field(input, "current")?, field(input, "desired")?, up, down, NOW);
    found.check("replicas", stabilized.replicas);
    found.check("reason", stabilized.reason);
    found.check("history_len", sizes(&history).len());
    found.check("recommendations", json!(sizes(&history)));
    Ok(())
}

/// The rules of a direction; what is not written is the default.
fn rules(input: Option<&Value>, defaults: Rules) -> Result<Rules, String> {
    let Some(input) = input.filter(|input| !input.is_null()) else { return Ok(defaults) };
    let policies: Option<Vec<(ScalingPolicyKind, i32, f64)>> = field(input, "policies")?;
    let policy = |(kind, value, seconds)| ScalingPolicy { kind, value, period_ms: ms(seconds) };
    Ok(Rules {
        stabilization_ms: field::<Option<f64>>(input, "stabilization_s")?.map(ms).or(defaults.stabilization_ms),
        select: field::<Option<Select>>(input, "select")?.unwrap_or(defaults.select),
        policies: policies.map_or(defaults.policies, |policies| policies.into_iter().map(policy).collect()),
        tolerance: field::<Option<f64>>(input, "tolerance")?,
    })
}

fn rate(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let up = rules(input.get("scale_up"), Rules::default_up())?;
    let down = rules(input.get("scale_down"), Rules::default_down())?;
    let (current, desired) = (field(input, "current")?, field(input, "desired")?);
    let bounded = bound_by_behavior(&history(input)?, current, desired, limits(input)?, (&up, &down), NOW);
    found.check("replicas", bounded.replicas);
    found.check("reason", bounded.reason);
    Ok(())
}

fn store(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let events: Vec<input::Event> = field(input, "events")?;
    let periods: Vec<f64> = field(input, "policy_periods_s")?;
    let policies = periods.iter().map(|seconds| ScalingPolicy {
        kind: ScalingPolicyKind::Pods,
        value: 1,
        period_ms: ms(*seconds),
    });
    let rules = Rules { policies: policies.collect(), ..Rules::default_up() };
    let events: Vec<ScaleEvent> = events.iter().map(input::Event::event).collect();
    if let Some(seconds) = field::<Option<f64>>(input, "sum_window_s")? {
        found.check("sum_before", changes_within(&events, ms(seconds), NOW));
    }
    let mut history = History { up_events: events, ..History::default() };
    history.store_event(0, field(input, "new_change")?, NOW, &rules, &rules);
    found.check("stored", json!(history.up_events.iter().map(|event| event.change).collect::<Vec<_>>()));
    Ok(())
}

/// A whole reconciliation through `step`.
fn tick(input: &Value, found: &mut Mismatches) -> Result<(), String> {
    let described = input.get("metrics").and_then(Value::as_array).cloned().unwrap_or_default();
    let (mut metrics, mut readings, mut pods) = (Vec::new(), Vec::new(), Vec::new());
    for one in &described {
        let (metric, reading) = reading_of(one)?;
        metrics.push(metric);
        readings.push(reading);
        if pods.is_empty() && one.get("input").is_some() {
            pods = pods_of(one["kind"].as_str().unwrap_or_default(), &one["input"])?;
        }
    }
    let behavior = match input.get("behavior").filter(|behavior| !behavior.is_null()) {
        None => None,
        Some(behavior) => Some(Behavior {
            scale_up: rules(behavior.get("scale_up"), Rules::default_up())?,
            scale_down: rules(behavior.get("scale_down"), Rules::default_down())?,
        }),
    };
    let policy = Policy {
        behavior,
        tolerance: field::<Option<Tolerance>>(input, "tolerance")?.unwrap_or_default(),
        timing: TIMING,
        scale_up_limit: step_limit(input)?,
        ..Policy::strict(field::<Option<i32>>(input, "min")?.unwrap_or(1), field(input, "max")?, metrics)
    };
    let spec: i32 = field(input, "spec")?;
    let status = field::<Option<i32>>(input, "status")?.unwrap_or(spec);
    let scale = Scale { spec_replicas: spec, status_replicas: status };
    let observation = Observation { scale: Ok(scale), selector_problem: None, pods, readings };
    let state = State { history: history(input)?, ..State::default() };
    let outcome = step(&policy, state, &observation, NOW);
    found.check("desired", outcome.scaled_to().unwrap_or(spec));
    let reason_of = |name: &str| condition(&outcome, name)[1].clone();
    found.check("able_stabilize_reason", reason_of("AbleToScale"));
    found.check("able_to_scale", condition(&outcome, "AbleToScale"));
    found.check("scaling_active", condition(&outcome, "ScalingActive"));
    found.check("scaling_limited", condition(&outcome, "ScalingLimited"));
    Ok(())
}

fn condition(outcome: &Outcome<State>, name: &str) -> Value {
    outcome.state.conditions.get(name).map_or(json!([null, null]), |condition| {
        let status = match condition.status {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        };
        json!([status, condition.reason])
    })
}
