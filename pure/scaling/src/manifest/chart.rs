//! The values of Lakerunner's chart that say how its roles scale: `global.autoscaling.mode`, an override for each component, and the keys of each mode.
//!
//! A component becomes a Deployment and, by its mode, an HPA, a ScaledObject with KEDA's clocks, a ScaledObject that follows its queue at once, or nothing.
//! Everything else in a chart's values (images, secrets, probes) says nothing about scaling and is passed over.

use saphyr::{LoadableYamlNode as _, MarkedYaml};
use serde_json::{Value, json};

use super::place::{Notes, Place, Problem};

/// A longer text is refused.
const MAX_BYTES: usize = 1 << 20;
/// Marks the objects that are made here.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "tidemill-roles");

/// How a component's size is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A horizontal autoscaler on CPU; the chart's default.
    Hpa,
    /// KEDA's loops and clocks over the component's queue.
    Keda,
    /// A fixed number of replicas.
    Disabled,
    /// The queue is followed at once, down to nothing.
    Native,
}

/// The words for the modes.
pub const MODES: [(&str, Mode); 4] =
    [("hpa", Mode::Hpa), ("keda", Mode::Keda), ("disabled", Mode::Disabled), ("native", Mode::Native)];

/// A component of the chart, with the chart's defaults.
struct Known {
    /// Its key in the values.
    key: &'static str,
    /// Its Deployment.
    name: &'static str,
    signal: &'static str,
    action: &'static str,
    polling_s: i32,
    cooldown_s: i32,
    target: i32,
    activation: i32,
}

const fn component(
    names: [&'static str; 4],
    (polling_s, cooldown_s): (i32, i32),
    (target, activation): (i32, i32),
) -> Known {
    let [key, name, signal, action] = names;
    Known { key, name, signal, action, polling_s, cooldown_s, target, activation }
}

const COMPONENTS: [Known; 7] = [
    component(["ingestLogs", "ingest-logs", "logs", "ingest"], (30, 300), (100, 10)),
    component(["ingestMetrics", "ingest-metrics", "metrics", "ingest"], (30, 300), (150, 20)),
    component(["ingestTraces", "ingest-traces", "traces", "ingest"], (30, 300), (120, 15)),
    component(["compactLogs", "compact-logs", "logs", "compact"], (60, 600), (10, 1)),
    component(["compactMetrics", "compact-metrics", "metrics", "compact"], (60, 600), (10, 1)),
    component(["compactTraces", "compact-traces", "traces", "compact"], (60, 600), (10, 1)),
    component(["rollupMetrics", "rollup-metrics", "metrics", "rollup"], (60, 600), (15, 2)),
];

/// A role that scales.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its Deployment's name: `ingest-logs`.
    pub name: &'static str,
    /// The signal that its replicas serve.
    pub signal: &'static str,
    /// The action that they perform.
    pub action: &'static str,
    /// How its size is decided.
    pub mode: Mode,
    replicas: i32,
    grace_s: Option<i32>,
    resources: Value,
    hpa: (i32, i32, i32),
    keda: Queue,
    native: Queue,
}

/// Bounds and targets of a role that follows its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Queue {
    min: i32,
    max: i32,
    polling_s: i32,
    cooldown_s: i32,
    target: i32,
    activation: i32,
}

/// Reads the roles from a chart's values; `mode` replaces the global one.
///
/// # Errors
/// Every problem, with its line and path.
pub fn read(file: &str, text: &str, mode: Option<Mode>) -> Result<Vec<Role>, Vec<Problem>> {
    let whole = |line, message: String| vec![Problem { file: file.to_owned(), line, path: String::new(), message }];
    if text.len() > MAX_BYTES {
        return Err(whole(1, format!("has {} bytes; at most {MAX_BYTES} are read", text.len())));
    }
    let documents: Vec<MarkedYaml<'_>> = MarkedYaml::load_from_str(text)
        .map_err(|error| whole(error.marker().line(), format!("is no YAML: {}", error.info())))?;
    let Some(document) = documents.first() else {
        return Ok(COMPONENTS.iter().map(|known| Role::default_of(known, mode.unwrap_or(Mode::Hpa))).collect());
    };
    let notes = Notes { file: file.to_owned(), problems: Default::default() };
    let root = Place::root(document, &notes);
    let global = root.get("global").and_then(|global| global.get("autoscaling"));
    let written = global.as_ref().and_then(|place| place.get("mode"));
    let written = written.and_then(|place| place.word(&MODES)).unwrap_or(Mode::Hpa);
    let mode = mode.unwrap_or(written);
    let keda = root.get("global").and_then(|global| global.get("keda"));
    if let Some(place) = &keda
        && mode == Mode::Keda
        && place.flag_at("enabled") == Some(false)
    {
        place.note("global.autoscaling.mode is keda, so enabled must be true");
    }
    let roles: Vec<Role> = COMPONENTS
        .iter()
        .filter_map(|known| match root.get(known.key) {
            Some(place) => Role::read(&place, known, mode),
            None => Some(Role::default_of(known, mode)),
        })
        .collect();
    let problems = notes.problems.into_inner();
    if problems.is_empty() { Ok(roles) } else { Err(problems) }
}

impl Role {
    fn default_of(known: &Known, mode: Mode) -> Self {
        let queue = Queue {
            min: 1,
            max: 10,
            polling_s: known.polling_s,
            cooldown_s: known.cooldown_s,
            target: known.target,
            activation: known.activation,
        };
        Self {
            name: known.name,
            signal: known.signal,
            action: known.action,
            mode,
            replicas: 1,
            grace_s: None,
            resources: json!({"requests": {"cpu": "500m", "memory": "256Mi"}}),
            hpa: (1, 10, 70),
            native: Queue { min: 0, polling_s: 5, cooldown_s: 30, activation: 0, ..queue.clone() },
            keda: queue,
        }
    }

    /// `None` where the component is not enabled.
    fn read(place: &Place<'_>, known: &Known, mode: Mode) -> Option<Self> {
        if place.flag_at("enabled") == Some(false) {
            return None;
        }
        let mut role = Self::default_of(known, mode);
        role.replicas = place.whole_at("replicas", 0).unwrap_or(role.replicas);
        role.grace_s = place.whole_at("terminationGracePeriodSeconds", 0);
        if let Some(resources) = place.get("resources") {
            resources.only(&["requests", "limits"]);
            for section in ["requests", "limits"] {
                if let Some(amounts) = resources.get(section) {
                    role.resources[section] = json!(amounts.texts());
                }
            }
        }
        let Some(autoscaling) = place.get("autoscaling") else { return Some(role) };
        autoscaling.only(&[
            "mode",
            "enabled",
            "min",
            "max",
            "target",
            "minReplicas",
            "maxReplicas",
            "targetCPUUtilizationPercentage",
            "keda",
            "native",
        ]);
        role.mode = match autoscaling.get("mode") {
            Some(place) => place.word(&MODES)?,
            None if autoscaling.flag_at("enabled") == Some(false) => Mode::Disabled,
            None => mode,
        };
        let either =
            |names: [&str; 2], default| names.iter().find_map(|name| autoscaling.whole_at(name, 1)).unwrap_or(default);
        role.hpa = (
            either(["minReplicas", "min"], 1),
            either(["maxReplicas", "max"], 10),
            either(["targetCPUUtilizationPercentage", "target"], 70),
        );
        if let Some(place) = autoscaling.get("keda") {
            place.only(&["pollingInterval", "cooldownPeriod", "minReplicaCount", "maxReplicaCount", "postgresql"]);
            role.keda.read(&place, "pollingInterval");
            if let Some(place) = place.get("postgresql") {
                place.only(&["targetQueryValue", "activationTargetQueryValue"]);
                role.keda.target = place.whole_at("targetQueryValue", 1).unwrap_or(role.keda.target);
                role.keda.activation = place.whole_at("activationTargetQueryValue", 0).unwrap_or(role.keda.activation);
            }
        }
        if let Some(place) = autoscaling.get("native") {
            place.only(&["cooldownPeriod", "minReplicaCount", "maxReplicaCount", "itemsPerReplica", "activationItems"]);
            role.native.read(&place, "");
            role.native.target = place.whole_at("itemsPerReplica", 1).unwrap_or(role.native.target);
            role.native.activation = place.whole_at("activationItems", 0).unwrap_or(role.native.activation);
        }
        if role.hpa.0 > role.hpa.1 {
            autoscaling.note("the least number of replicas is above the most");
        }
        Some(role)
    }

    /// The objects: the Deployment, and what decides about its size.
    ///
    /// `container` has the name, the image and the command of a replica, and its environment.
    pub fn objects(&self, namespace: &str, container: &Value) -> Vec<Value> {
        let labels = json!({"app.kubernetes.io/component": self.name, MANAGED_BY.0: MANAGED_BY.1});
        let metadata = json!({"name": self.name, "namespace": namespace, "labels": labels});
        let mut container = container.clone();
        container["resources"] = self.resources.clone();
        let mut spec = json!({"containers": [container]});
        spec["terminationGracePeriodSeconds"] = json!(self.grace_s.unwrap_or(30));
        let selector = json!({"app.kubernetes.io/component": self.name});
        let mut deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
            "spec": {"selector": {"matchLabels": selector}, "template": {"metadata": {"labels": labels}, "spec": spec}},
        });
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": self.name});
        let scaler = match self.mode {
            Mode::Disabled => {
                deployment["spec"]["replicas"] = json!(self.replicas);
                return vec![deployment];
            }
            Mode::Hpa => {
                let (min, max, percent) = self.hpa;
                let metric = json!({
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}},
                });
                json!({
                    "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata,
                    "spec": {"scaleTargetRef": target, "minReplicas": min, "maxReplicas": max, "metrics": [metric]},
                })
            }
            Mode::Keda => self.scaled_object(&metadata, "strict", &self.keda),
            Mode::Native => {
                // Nothing runs until something waits.
                deployment["spec"]["replicas"] = json!(self.native.min);
                self.scaled_object(&metadata, "native", &self.native)
            }
        };
        vec![deployment, scaler]
    }

    fn scaled_object(&self, metadata: &Value, profile: &str, queue: &Queue) -> Value {
        let mut metadata = metadata.clone();
        metadata["annotations"] = json!({"tidemill.dev/profile": profile});
        let trigger = json!({
            "type": "tidemill",
            "metricType": if profile == "strict" { "Value" } else { "AverageValue" },
            "metadata": {
                "queue": format!("{}/{}", self.signal, self.action),
                "itemsPerReplica": queue.target.to_string(),
                "activationItems": queue.activation.to_string(),
            },
        });
        json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": metadata,
            "spec": {
                "scaleTargetRef": {"name": self.name}, "pollingInterval": queue.polling_s,
                "cooldownPeriod": queue.cooldown_s, "minReplicaCount": queue.min, "maxReplicaCount": queue.max,
                "triggers": [trigger],
            },
        })
    }
}

impl Queue {
    fn read(&mut self, place: &Place<'_>, polling: &str) {
        self.polling_s = place.whole_at(polling, 1).unwrap_or(self.polling_s);
        self.cooldown_s = place.whole_at("cooldownPeriod", 0).unwrap_or(self.cooldown_s);
        self.min = place.whole_at("minReplicaCount", 0).unwrap_or(self.min);
        self.max = place.whole_at("maxReplicaCount", 1).unwrap_or(self.max);
        if self.min > self.max {
            place.note("minReplicaCount is above maxReplicaCount");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(role: &Role) -> Vec<Value> {
        role.objects("tidemill", &json!({"name": "worker", "command": ["tidemill"]}))
    }

    #[test]
    fn the_charts_values_choose_a_mode_for_each_component() {
        let text = "global:\n  autoscaling: {mode: keda}\n  keda: {enabled: true}\ningestLogs:\n  autoscaling:\n    mode: hpa\n    keda: {pollingInterval: 30, postgresql: {targetQueryValue: 100}}\ncompactTraces: {enabled: false}\nrollupMetrics:\n  replicas: 3\n  autoscaling: {enabled: false}\n";
        let roles = read("values.yaml", text, None).expect("roles");
        let modes: Vec<(&str, Mode)> = roles.iter().map(|role| (role.name, role.mode)).collect();
        assert_eq!(
            modes,
            [
                ("ingest-logs", Mode::Hpa),
                ("ingest-metrics", Mode::Keda),
                ("ingest-traces", Mode::Keda),
                ("compact-logs", Mode::Keda),
                ("compact-metrics", Mode::Keda),
                ("rollup-metrics", Mode::Disabled),
            ]
        );
        let metrics = objects(&roles[1]);
        let spec = &metrics[1]["spec"];
        assert_eq!((&spec["pollingInterval"], &spec["cooldownPeriod"]), (&json!(30), &json!(300)));
        assert_eq!((&spec["minReplicaCount"], &spec["maxReplicaCount"]), (&json!(1), &json!(10)));
        assert_eq!(spec["triggers"][0]["metadata"]["itemsPerReplica"], json!("150"));
        assert_eq!(objects(&roles[5])[0]["spec"]["replicas"], json!(3));
        assert_eq!(objects(&roles[0])[1]["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], json!(70));
    }

    #[test]
    fn what_is_made_can_be_read_again() {
        for (_, mode) in MODES {
            for role in read("none", "", Some(mode)).expect("roles") {
                for object in objects(&role) {
                    super::super::read("made", &object.to_string()).expect("a manifest");
                }
            }
        }
    }

    #[test]
    fn problems_have_their_places() {
        let text = "global: {autoscaling: {mode: fast}}\ningestLogs: {autoscaling: {keda: {minReplicaCount: 9, maxReplicaCount: 2, poll: 1}}}\n";
        let problems = read("values.yaml", text, None).expect_err("three");
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            ["global.autoscaling.mode", "ingestLogs.autoscaling.keda.poll", "ingestLogs.autoscaling.keda"]
        );
    }
}
