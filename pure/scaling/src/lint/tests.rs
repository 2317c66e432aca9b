//! Rules, each over a manifest that breaks it and over one that does not.

use super::*;
use crate::manifest::read;

fn rules(files: &[&str]) -> Vec<String> {
    let objects: Vec<Object> = files
        .iter()
        .enumerate()
        .flat_map(|(index, text)| {
            read(&format!("{index}.yaml"), text).unwrap_or_else(|problems| panic!("{problems:#?}"))
        })
        .collect();
    lint(&objects).into_iter().map(|finding| format!("{} {}", finding.rule, finding.object)).collect()
}

fn has(found: &[String], rule: &str, name: &str) -> bool {
    found.iter().any(|line| line.starts_with(&format!("{rule} ")) && line.ends_with(&format!("/{name}")))
}

#[test]
fn public_manifests_are_found_out() {
    let hpa = include_str!("../../tests/manifests/neurolake/hpa.yaml");
    let vpa = include_str!("../../tests/manifests/neurolake/vpa.yaml");
    let workloads = include_str!("../../tests/manifests/neurolake/workloads.yaml");
    let prometheus = include_str!("../../tests/manifests/neurolake/scaledobject-prometheus.yaml");
    let found = rules(&[hpa, vpa, workloads, prometheus]);
    for (rule, name) in [
        ("horizontal-and-vertical", "neurolake-api-vpa"),
        ("horizontal-and-vertical", "neurolake-frontend-vpa"),
        ("missing-target", "neurolake-postgres-vpa"),
        ("missing-target", "neurolake-redis-vpa"),
        ("missing-target", "neurolake-worker-hpa"),
        ("two-scalers", "neurolake-api-scaledobject"),
        ("ignored-metadata", "neurolake-api-scaledobject"),
        ("gap-reads-as-zero", "neurolake-api-scaledobject"),
        ("vertical-without-budget", "neurolake-api-vpa"),
    ] {
        assert!(has(&found, rule, name), "{rule} {name} is not among {found:#?}");
    }
    // Off changes nothing, so it cannot fight.
    assert!(!has(&found, "horizontal-and-vertical", "neurolake-worker-vpa-recommender"));
    assert!(!has(&found, "missing-target", "neurolake-api-hpa"));
}

#[test]
fn a_starving_job_is_found_and_an_accurate_one_is_not() {
    let job = include_str!("../../tests/manifests/postgres-batch/scaled-job.yaml");
    assert!(has(&rules(&[job]), "starving-strategy", "postgres-batch"));
    let accurate =
        job.replace("  maxReplicaCount: 10", "  maxReplicaCount: 10\n  scalingStrategy: {strategy: accurate}");
    assert!(!has(&rules(&[&accurate]), "starving-strategy", "postgres-batch"));
    let exact = job.replace("        targetQueryValue", "        inFlightQuery: SELECT 1\n        targetQueryValue");
    assert!(!has(&rules(&[&exact]), "starving-strategy", "postgres-batch"));
    let no_variable = job.replace("passwordFromEnv: PGPASSWORD", "passwordFromEnv: PG_PASSWORD");
    assert!(has(&rules(&[&no_variable]), "missing-env", "postgres-batch"));
    assert!(!has(&rules(&[job]), "missing-env", "postgres-batch"));
}

fn object(query: &str, more: &str) -> String {
    format!(
        "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {{name: o}}\nspec:\n  scaleTargetRef: {{name: w}}\n{more}\n  \
         triggers:\n    - type: postgresql\n      metadata: {{query: \"{query}\", targetQueryValue: \"5\"}}\n"
    )
}

#[test]
fn queries_are_looked_at() {
    let found = |query: &str| rules(&[&object(query, "")]);
    assert!(has(&found("SELECT CEIL(COUNT(*) / 5) FROM t"), "integer-division", "o"));
    assert!(!has(&found("SELECT CEIL(COUNT(*)::decimal / 5) FROM t"), "integer-division", "o"));
    assert!(!has(&found("SELECT CEIL(COUNT(*) / 5.0) FROM t"), "integer-division", "o"));
    assert!(has(&found("SELECT SUM(n) FROM t"), "null-result", "o"));
    assert!(!has(&found("SELECT COALESCE(SUM(n), 0) FROM t"), "null-result", "o"));
}

#[test]
fn settings_without_effect_are_found() {
    let found = rules(&[&object("SELECT 1", "  minReplicaCount: 1\n  cooldownPeriod: 60")]);
    assert!(has(&found, "no-effect", "o"), "{found:?}");
    assert!(!has(&rules(&[&object("SELECT 1", "  minReplicaCount: 0\n  cooldownPeriod: 60")]), "no-effect", "o"));
    assert!(!has(
        &rules(&[&object("SELECT 1", "  minReplicaCount: 1\n  idleReplicaCount: 0\n  cooldownPeriod: 60")]),
        "no-effect",
        "o"
    ));
}

fn horizontal(percent: u32, behavior: &str) -> String {
    format!(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: h}}\nspec:\n  scaleTargetRef: {{kind: Deployment, \
         name: w}}\n  maxReplicas: 9\n{behavior}  metrics:\n    - type: Resource\n      resource: {{name: cpu, target: {{type: \
         Utilization, averageUtilization: {percent}}}}}\n"
    )
}

const BEHAVIOR: &str = "  behavior: {scaleDown: {stabilizationWindowSeconds: 120}}\n";

#[test]
fn sizes_are_looked_at() {
    assert!(has(&rules(&[&horizontal(95, BEHAVIOR)]), "target-range", "h"));
    assert!(has(&rules(&[&horizontal(30, BEHAVIOR)]), "target-range", "h"));
    assert!(has(&rules(&[&horizontal(70, "")]), "missing-behavior", "h"));
    let hasty = "  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}\n";
    assert!(has(&rules(&[&horizontal(70, hasty)]), "flapping", "h"));
    assert_eq!(rules(&[&horizontal(70, BEHAVIOR)]), Vec::<String>::new());
}

#[test]
fn requests_and_labels_must_be_there() {
    let workload = "kind: Deployment\nmetadata: {name: w}\nspec:\n  template:\n    metadata: {labels: {app: w}}\n    spec: {containers: \
                    [{name: c, resources: {requests: {memory: 1Mi}}}]}\n";
    assert!(has(&rules(&[&horizontal(70, BEHAVIOR), workload]), "missing-requests", "h"));
    let mended = workload.replace("memory: 1Mi", "cpu: 1");
    assert_eq!(rules(&[&horizontal(70, BEHAVIOR), &mended]), Vec::<String>::new());
    let budget = |label| {
        format!(
            "kind: PodDisruptionBudget\nmetadata: {{name: b}}\nspec: {{selector: {{matchLabels: {{app: {label}}}}}}}\n"
        )
    };
    assert!(has(&rules(&[&budget("v"), workload]), "selects-nothing", "b"));
    assert!(!has(&rules(&[&budget("w"), workload]), "selects-nothing", "b"));
}

#[test]
fn a_finding_has_its_line() {
    let objects =
        read("f.yaml", &object("SELECT SUM(n) FROM t", "  minReplicaCount: 1\n  cooldownPeriod: 60")).expect("valid");
    let findings = lint(&objects);
    let finding = findings.iter().find(|finding| finding.rule == "no-effect").expect("found");
    assert_eq!((finding.line, finding.path.as_str(), finding.file.as_str()), (7, "spec.cooldownPeriod", "f.yaml"));
}

/// A reader that knows one query, and a server that knows one metric.
struct Known(Result<QueryFacts, String>, Option<MetricType>, Option<bool>);

impl Queries for Known {
    fn facts(&self, _query: &str) -> Option<Result<QueryFacts, String>> {
        Some(self.0.clone())
    }

    fn has_series(&self, _selector: &str) -> Option<bool> {
        self.2
    }

    fn type_of(&self, _metric: &str) -> Option<MetricType> {
        self.1
    }
}

#[test]
fn promql_is_judged_by_what_it_selects() {
    let text = "kind: ScaledObject\nmetadata: {name: o}\nspec:\n  scaleTargetRef: {name: w}\n  triggers:\n    - type: prometheus\n      \
                metadata: {serverAddress: http://p, query: q, threshold: \"5\", ignoreNullValues: \"false\"}\n";
    let objects = read("f.yaml", text).expect("valid");
    let found = |facts, known, has_series| -> Vec<String> {
        lint_with(&objects, &Known(facts, known, has_series)).into_iter().map(|finding| finding.rule).collect()
    };
    let selects = |metric: &str, function: Option<&str>| {
        let selected = Selected {
            metric: Some(metric.to_owned()),
            text: metric.to_owned(),
            function: function.map(str::to_owned),
        };
        Ok(QueryFacts { selectors: vec![selected], fills_gaps: false })
    };
    assert_eq!(found(selects("jobs_total", Some("rate")), None, None), Vec::<String>::new());
    assert_eq!(found(selects("queue_depth", Some("rate")), None, None), ["rate-of-gauge"]);
    assert_eq!(found(selects("jobs", Some("rate")), None, None), ["rate-of-gauge"]);
    assert_eq!(found(selects("jobs", Some("rate")), Some(MetricType::Counter), None), Vec::<String>::new());
    assert_eq!(found(selects("jobs_total", Some("rate")), Some(MetricType::Gauge), None), ["rate-of-gauge"]);
    assert_eq!(found(selects("jobs_total", None), None, None), ["counter-without-rate"]);
    assert_eq!(found(selects("queue_depth", None), None, Some(false)), ["missing-series"]);
    assert_eq!(found(selects("queue_depth", None), None, Some(true)), Vec::<String>::new());
    assert_eq!(found(Err("unexpected )".to_owned()), None, None), ["unreadable-query"]);
    let filled = QueryFacts { selectors: Vec::new(), fills_gaps: true };
    assert_eq!(found(Ok(filled), None, None), ["gap-reads-as-zero"]);
}

#[test]
fn a_forecast_must_have_an_effect() {
    let with = |annotations: &str, more: &str| {
        rules(
            &[&object("SELECT 1", more).replace("{name: o}", &format!("{{name: o, annotations: {{{annotations}}}}}"))],
        )
    };
    assert!(!has(&with("tidemill.dev/forecast: preview", ""), "no-effect", "o"));
    assert!(has(&with("tidemill.dev/forecast-method: linear", ""), "no-effect", "o"));
    assert!(has(
        &with("tidemill.dev/forecast: \"on\"", "  minReplicaCount: 3\n  maxReplicaCount: 3"),
        "no-effect",
        "o"
    ));
}

#[test]
fn secrets_and_variables_that_are_named_must_be_there() {
    let secret = "kind: Secret\nmetadata: {name: known}\n";
    let authentication = |name: &str| {
        format!(
            "kind: TriggerAuthentication\nmetadata: {{name: a}}\nspec: {{secretTargetRef: [{{parameter: p, name: {name}, key: k}}]}}\n"
        )
    };
    assert!(has(&rules(&[secret, &authentication("gone")]), "missing-secret", "a"));
    assert!(!has(&rules(&[secret, &authentication("known")]), "missing-secret", "a"));
    let workload = |more: &str| {
        format!(
            "kind: Deployment\nmetadata: {{name: w}}\nspec:\n  template:\n    spec: {{containers: [{{name: c, env: [{{name: HOST, value: h}}], \
             envFrom: [{{secretRef: {{name: gone{more}}}}}]}}]}}\n"
        )
    };
    assert!(has(&rules(&[secret, &workload("")]), "missing-secret", "w"));
    assert!(!has(&rules(&[secret, &workload(", optional: true")]), "missing-secret", "w"));
    let from =
        |variable: &str| object("SELECT 1", "").replace("query:", &format!("passwordFromEnv: {variable}, query:"));
    let plain = "kind: Deployment\nmetadata: {name: w}\nspec: {template: {spec: {containers: [{name: c, env: [{name: HOST, value: h}]}]}}}\n";
    assert!(has(&rules(&[&from("GONE"), plain]), "missing-env", "o"));
    assert!(!has(&rules(&[&from("HOST"), plain]), "missing-env", "o"));
    assert!(!has(&rules(&[&from("GONE"), &workload("")]), "missing-env", "o"));
}

#[test]
fn a_cooldown_shorter_than_a_poll_flaps() {
    assert!(has(&rules(&[&object("SELECT 1", "  cooldownPeriod: 20")]), "flapping", "o"));
    assert!(!has(&rules(&[&object("SELECT 1", "  cooldownPeriod: 60")]), "flapping", "o"));
}
