//! Rules about `ScaledObject` and `ScaledJob`: starving strategies, settings without effect, values that read as zero.

use super::{Report, find, secrets};
use crate::keda::{StrategyKind, Target};
use crate::manifest::{Body, KedaSpec, Object, TriggerSpec, Workload};

pub(super) fn check(object: &Object, objects: &[Object], report: &mut Report) {
    missing_secrets(object, objects, report);
    match &object.body {
        Body::ScaledObject { policy, spec, target } => {
            without_effect(object, policy, spec, report);
            falls_at_once(object, policy, report);
            if let Some((_, workload)) = find(objects, object, target) {
                missing_env(object, workload, spec, report);
            }
            for trigger in &spec.triggers {
                check_trigger(object, objects, trigger, report);
            }
            for (trigger, spec) in policy.triggers.iter().zip(&spec.triggers) {
                if let Some((target, activation)) = outside(&trigger.target)
                    && activation > target
                    && policy.min() == 0
                {
                    let why =
                        format!("values up to {activation} are inactive although {target} is already worth a replica");
                    report.warn(
                        "activation-above-target",
                        object,
                        &spec.path,
                        why,
                        "lower the activation to at most the target",
                    );
                }
            }
        }
        Body::ScaledJob { policy, spec, workload } => {
            for trigger in &spec.triggers {
                check_trigger(object, objects, trigger, report);
            }
            starving(object, policy.strategy.kind, spec, report);
            if !spec.has("rollout") && !spec.has("rolloutStrategy") {
                let why = "KEDA deletes running jobs whenever this object changes; here they end by themselves";
                report.warn("rollout-unset", object, "spec", why, "write rollout: {strategy: gradual}");
            }
            missing_env(object, workload, spec, report);
        }
        _ => {}
    }
}

/// Where the manifests hold secrets at all, those that are named must be among them.
fn missing_secrets(object: &Object, objects: &[Object], report: &mut Report) {
    let known = secrets(objects, &object.namespace);
    if known.is_empty() {
        return;
    }
    for (path, secret) in object.secrets.iter().filter(|(_, secret)| !known.contains(secret)) {
        let why = format!("no Secret {secret} is among the manifests of namespace {}", object.namespace);
        report.error("missing-secret", object, path, why, "add it, or mend its name");
    }
}

/// `…FromEnv` names a variable of a container.
fn missing_env(object: &Object, workload: &Workload, spec: &KedaSpec, report: &mut Report) {
    // What a whole ConfigMap or Secret holds is not looked into.
    if workload.containers.iter().any(|container| container.has_env_from) {
        return;
    }
    let env: Vec<&String> = workload.containers.iter().flat_map(|container| &container.env).collect();
    for trigger in &spec.triggers {
        for (name, variable) in trigger.metadata.iter().filter(|(name, _)| name.ends_with("FromEnv")) {
            if !env.contains(&variable) {
                let why = format!("no container of it has the environment variable {variable}");
                let path = format!("{}.metadata.{name}", trigger.path);
                report.error("missing-env", object, &path, why, "add the variable, or mend its name");
            }
        }
    }
}

/// A cooldown that is over before the next poll: one quiet look takes everything away.
fn falls_at_once(object: &Object, policy: &crate::keda::object::Policy, report: &mut Report) {
    let goes_down = policy.min() == 0 || policy.idle_replicas.is_some();
    if goes_down && policy.cooldown_ms < policy.polling_interval_ms {
        let why = format!(
            "a cooldown of {} s is over before the next poll ({} s): one quiet look takes every replica away",
            policy.cooldown_ms / 1000,
            policy.polling_interval_ms / 1000
        );
        let fix = "write a cooldownPeriod of several polls";
        report.warn("flapping", object, "spec.cooldownPeriod", why, fix);
    }
}

fn outside(target: &Target) -> Option<(f64, f64)> {
    match target {
        Target::AverageValue { value, activation, .. } | Target::Value { value, activation, .. } => {
            Some((*value, *activation))
        }
        Target::Resource { .. } => None,
    }
}

/// KEDA polls for activation only: with a minimum above zero and no idle size, its own settings do nothing.
fn without_effect(object: &Object, policy: &crate::keda::object::Policy, spec: &KedaSpec, report: &mut Report) {
    if policy.min() == 0 || policy.idle_replicas.is_some() {
        return;
    }
    let is_cached = spec.triggers.iter().any(|trigger| trigger.is_cached);
    for name in ["cooldownPeriod", "pollingInterval", "initialCooldownPeriod"] {
        if spec.has(name) && !(name == "pollingInterval" && is_cached) {
            let why = format!("KEDA ignores {name} while minReplicaCount is above 0 and idleReplicaCount is unset");
            let fix = "set minReplicaCount: 0 or idleReplicaCount: 0, or leave it out";
            report.warn("no-effect", object, &format!("spec.{name}"), why, fix);
        }
    }
    for (trigger, written) in policy.triggers.iter().zip(&spec.triggers) {
        if let Some((_, activation)) = outside(&trigger.target)
            && activation > 0.0
        {
            let why = "an activation threshold decides between zero and one only, and this object never goes to zero";
            report.warn("no-effect", object, &written.path, why, "leave it out, or let the object go to zero");
        }
    }
}

fn check_trigger(object: &Object, objects: &[Object], trigger: &TriggerSpec, report: &mut Report) {
    let at = |name: &str| format!("{}.metadata.{name}", trigger.path);
    for name in &trigger.ignored {
        let why = format!("{} does not take {name}: it is silently ignored", trigger.scaler);
        report.warn("ignored-metadata", object, &at(name), why, "leave it out, or mend its name");
    }
    if let Some(name) = &trigger.authentication {
        let is_known = objects.iter().any(|other| other.name == *name && other.kind.ends_with("TriggerAuthentication"));
        let has_any = objects.iter().any(|other| other.kind.ends_with("TriggerAuthentication"));
        if has_any && !is_known {
            let why = format!(
                "no TriggerAuthentication {name} is among the manifests; KEDA would go on without any authentication"
            );
            report.error("missing-authentication", object, &trigger.path, why, "add it, or mend its name");
        }
    }
    if trigger.scaler == "prometheus" && trigger.metadata.get("ignoreNullValues").is_none_or(|text| text != "false") {
        let why = "ignoreNullValues is true unless written: a gap, or a series that is gone, reads as 0 and scales in";
        report.warn(
            "gap-reads-as-zero",
            object,
            &trigger.path,
            why,
            "write ignoreNullValues: \"false\", and a fallback",
        );
    }
    if matches!(trigger.scaler.as_str(), "postgresql" | "mysql" | "sqlite")
        && let Some(query) = trigger.metadata.get("query")
    {
        check_sql(object, &at("query"), query, report);
    }
}

fn check_sql(object: &Object, path: &str, query: &str, report: &mut Report) {
    let lower = query.to_lowercase();
    let compact: String = lower.split_whitespace().collect();
    let is_divided = compact.match_indices('/').any(|(index, _)| {
        let is_whole = compact[index + 1..].starts_with(|next: char| next.is_ascii_digit());
        let (before, after) = (&compact[..index], &compact[index + 1..]);
        let digits: String = after.chars().take_while(|next| next.is_ascii_digit() || *next == '.').collect();
        is_whole
            && !digits.contains('.')
            && before.contains("count(")
            && !before.contains("::")
            && !before.contains("cast(")
            && !after.contains("::")
    });
    if is_divided {
        let why = "COUNT is a whole number, and dividing it by a whole number drops the rest before it is rounded up";
        report.error("integer-division", object, path, why, "write COUNT(…)::decimal / N");
    }
    let can_be_null = ["sum(", "max(", "min(", "avg("].iter().any(|function| compact.contains(function));
    if can_be_null && !compact.contains("coalesce(") {
        let why = "over no rows the result is NULL, which is an error and no value";
        report.warn("null-result", object, path, why, "wrap it in COALESCE(…, 0)");
    }
}

/// A query that counts only what nobody has claimed, under a strategy that takes running jobs off it.
fn starving(object: &Object, kind: StrategyKind, spec: &KedaSpec, report: &mut Report) {
    for trigger in &spec.triggers {
        let Some(query) = trigger.metadata.get("query") else { continue };
        let is_exact = trigger.metadata.contains_key("inFlightQuery");
        let is_starving =
            matches!(kind, StrategyKind::Default | StrategyKind::Custom) && !is_exact && counts_unclaimed(query);
        if is_starving {
            let path = "spec.scalingStrategy";
            let line_path =
                if spec.has("scalingStrategy") { path.to_owned() } else { format!("{}.metadata.query", trigger.path) };
            let why = "the query counts rows that nobody has claimed, and the default strategy takes running jobs off it: \
                       with 4 new rows and 5 running jobs it creates none";
            let fix = "write scalingStrategy: {strategy: accurate}, or name the claimed rows too (inFlightQuery), which is exact";
            report.error("starving-strategy", object, &line_path, why, fix);
        }
        if kind == StrategyKind::Exact && !is_exact {
            let why = "the strategy is exact, and the trigger does not say what is in flight";
            report.error("exact-without-in-flight", object, &trigger.path, why, "add inFlightQuery");
        }
    }
}

/// Whether a query leaves claimed rows out: it asks for the absence of a claim.
fn counts_unclaimed(query: &str) -> bool {
    let text = query.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let asks_for_absence = [
        "is null",
        "not exists",
        "not in (",
        "claimed_by = -1",
        "claimed_by=-1",
        "claimed = false",
        "= 'pending'",
        "= 'queued'",
        "= 'new'",
        "= 'waiting'",
    ];
    let keeps_claimed = ["'running'", "'in_progress'", "'processing'", "'claimed'"];
    asks_for_absence.iter().any(|part| text.contains(part)) && !keeps_claimed.iter().any(|part| text.contains(part))
}
