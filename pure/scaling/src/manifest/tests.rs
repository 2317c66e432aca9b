//! Reading manifests: what people have reads as it is, and everything that is wrong is told at once with its line.

use super::*;
use crate::hpa::{Metric, Select};
use crate::keda::Target;
use crate::vpa::UpdateMode;

const SCALED_OBJECT: &str = r#"
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: worker
  annotations: {autoscaling.keda.sh/paused-scale-in: "true"}
spec:
  scaleTargetRef: {name: worker}
  pollingInterval: 5
  cooldownPeriod: 60
  minReplicaCount: 0
  maxReplicaCount: 8
  fallback: {failureThreshold: 3, replicas: 2, behavior: currentReplicasIfHigher}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior: {scaleDown: {selectPolicy: Min, policies: [{type: Pods, value: 1, periodSeconds: 60}]}}
    scalingModifiers: {formula: "rows + lag", target: "2.5", activationTarget: "1"}
  triggers:
    - type: postgresql
      name: rows
      metadata: {query: "SELECT 1", targetQueryValue: "3", activationTargetQueryValue: "2"}
    - type: kafka
      name: lag
      useCachedMetrics: true
      metadata: {topic: t, consumerGroup: g, bootstrapServers: "k:9092"}
    - type: cpu
      metricType: Utilization
      metadata: {value: "70"}
"#;

#[test]
fn a_scaled_object_becomes_its_policy() {
    let objects = read("so.yaml", SCALED_OBJECT).expect("valid");
    let Body::ScaledObject { target, policy, .. } = &objects[0].body else { panic!("{:?}", objects[0].body) };
    assert_eq!((target.kind.as_str(), target.name.as_str()), ("Deployment", "worker"));
    assert_eq!((policy.polling_interval_ms, policy.cooldown_ms, policy.max()), (5_000, 60_000, 8));
    assert!(policy.annotations.paused_scale_in);
    let outside = |value, activation, is_cached| Target::AverageValue { value, activation, is_cached };
    assert_eq!(policy.triggers[0].target, outside(3.0, 2.0, false));
    assert_eq!(policy.triggers[1].target, outside(10.0, 0.0, true));
    let behavior = policy.behavior.as_ref().expect("written");
    assert_eq!((behavior.scale_down.select, behavior.scale_up.policies.len()), (Select::Min, 2));
    assert_eq!(policy.horizontal().metrics.len(), 2);
}

#[test]
fn every_problem_is_told_with_its_line() {
    let text = SCALED_OBJECT
        .replace("pollingInterval: 5", "pollingInterval: 0")
        .replace("cooldownPeriod: 60", "coolDownPeriod: 60")
        .replace("rows + lag", "rows + log")
        .replace("targetQueryValue: \"3\"", "targetQueryValue: three")
        .replace("value: \"70\"", "value: 70");
    let problems = read("so.yaml", &text).expect_err("five problems");
    let found: Vec<(usize, &str)> = problems.iter().map(|problem| (problem.line, problem.path.as_str())).collect();
    for expected in [
        (9, "spec.pollingInterval"),
        (10, "spec.coolDownPeriod"),
        (17, "spec.advanced.scalingModifiers.formula"),
        (21, "spec.triggers[0].metadata.targetQueryValue"),
        (28, "spec.triggers[2].metadata.value"),
    ] {
        assert!(found.contains(&expected), "{expected:?} is not among {problems:#?}");
    }
}

#[test]
fn bounds_are_checked_as_keda_does() {
    for (from, to, path) in [
        ("minReplicaCount: 0", "minReplicaCount: 9", "spec.minReplicaCount"),
        ("minReplicaCount: 0", "idleReplicaCount: 2\n  minReplicaCount: 2", "spec.idleReplicaCount"),
        ("currentReplicasIfHigher", "sometimes", "spec.fallback.behavior"),
        (
            "periodSeconds: 60",
            "periodSeconds: 9999",
            "spec.advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.policies[0].periodSeconds",
        ),
    ] {
        let problems = read("so.yaml", &SCALED_OBJECT.replace(from, to)).expect_err(to);
        assert!(problems.iter().any(|problem| problem.path == path), "{path}: {problems:?}");
    }
}

#[test]
fn what_people_have_reads_unedited() {
    let hpa = read("hpa.yaml", include_str!("../../tests/manifests/neurolake/hpa.yaml")).expect("valid");
    assert_eq!(hpa.len(), 3);
    let Body::Horizontal { policy, .. } = &hpa[2].body else { panic!("{:?}", hpa[2].body) };
    assert_eq!(policy.behavior.as_ref().and_then(|behavior| behavior.scale_down.stabilization_ms), Some(600_000));
    let custom =
        read("c.yaml", include_str!("../../tests/manifests/neurolake/hpa-custom-metrics.yaml")).expect("valid");
    let Body::Horizontal { policy, .. } = &custom[0].body else { panic!("{:?}", custom[0].body) };
    let requests = Metric::Pods { name: "http_requests_per_second".to_owned(), target_average_milli: 1_000_000 };
    assert_eq!(policy.metrics, [requests]);
    let Body::Horizontal { policy, .. } = &custom[1].body else { panic!("{:?}", custom[1].body) };
    assert!(policy.metrics[0].label().ends_with("celery_queue_depth{queue=\"default\"}"), "{:?}", policy.metrics);
    let vpa = read("vpa.yaml", include_str!("../../tests/manifests/neurolake/vpa.yaml")).expect("valid");
    let Body::Vertical { policy, .. } = &vpa[0].body else { panic!("{:?}", vpa[0].body) };
    assert_eq!(policy.update_mode, UpdateMode::Auto);
    assert_eq!(policy.containers[0].max_allowed.memory_bytes, Some(8 << 30));
    let job = read("sj.yaml", include_str!("../../tests/manifests/postgres-batch/scaled-job.yaml")).expect("valid");
    let Body::ScaledJob { policy, workload, .. } = &job[0].body else { panic!("{:?}", job[0].body) };
    assert_eq!((policy.successful_history, policy.failed_history, policy.ceiling()), (10, 5, 10));
    assert_eq!(workload.containers[0].secrets, ["my-release-postgresql"]);
    for text in [
        include_str!("../../tests/manifests/neurolake/workloads.yaml"),
        include_str!("../../tests/manifests/neurolake/scaledobject-prometheus.yaml"),
        include_str!("../../tests/manifests/neurolake/load-generator.yaml"),
        include_str!("../../tests/manifests/neurolake/adapter-config.yaml"),
        include_str!("../../tests/manifests/postgres-batch/job.yaml"),
    ] {
        assert!(!read("x.yaml", text).expect("valid").is_empty());
    }
}

#[test]
fn what_is_no_yaml_and_what_is_too_large_is_refused() {
    let problems = read("x.yaml", "kind: [\n").expect_err("no YAML");
    assert!(problems[0].message.contains("is no YAML"), "{problems:?}");
    assert!(read("x.yaml", &" ".repeat(MAX_BYTES + 1)).is_err());
    assert!(read("x.yaml", "just text").is_err());
    assert_eq!(read("x.yaml", "---\n---\n"), Ok(Vec::new()));
}

#[test]
fn a_forecast_is_asked_for_by_annotations() {
    let text = |annotations: &str| {
        format!(
            "kind: HorizontalPodAutoscaler\nmetadata: {{name: h, annotations: {{{annotations}}}}}\nspec:\n  scaleTargetRef: {{name: w}}\n  \
             maxReplicas: 9\n"
        )
    };
    let forecast = |annotations: &str| match &read("f.yaml", &text(annotations)).expect("valid")[0].body {
        Body::Horizontal { policy, .. } => policy.forecast.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(forecast(""), None);
    let naive = forecast("tidemill.dev/forecast: preview").expect("a forecast");
    assert_eq!((naive.mode, naive.lookahead_ms), (crate::forecast::Mode::Preview, 60_000));
    let fitted = forecast(
        "tidemill.dev/forecast: \"on\", tidemill.dev/forecast-method: holt-winters, tidemill.dev/forecast-season: 7d",
    );
    let season_ms = 7 * 86_400_000;
    assert_eq!(fitted.expect("a forecast").method, crate::forecast::Method::HoltWintersFitted { season_ms });
    for (annotations, part) in [
        ("tidemill.dev/forecast: maybe", "expected off, preview or on"),
        ("tidemill.dev/forecast-method: guess", "expected seasonal-naive"),
        ("tidemill.dev/forecast-season: soon", "expected a time"),
        ("tidemill.dev/forecast-season: 5s", "expected a time"),
        ("tidemill.dev/forecast-max-error: \"-1\"", "expected a relative error"),
        ("tidemill.dev/forecast-mode: \"on\"", "unknown annotation"),
    ] {
        let problems = read("f.yaml", &text(annotations)).expect_err(annotations);
        assert!(problems[0].message.contains(part), "{annotations}: {problems:?}");
    }
}
