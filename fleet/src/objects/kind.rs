//! The kinds that are known.

/// A kind of object.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its API group; empty for the core.
    pub group: &'static str,
    /// Its version.
    pub version: &'static str,
    /// `Deployment` …
    pub kind: &'static str,
    /// `deployments`
    pub plural: &'static str,
    /// `deployment`
    pub singular: &'static str,
    /// `deploy`
    pub short: &'static [&'static str],
    /// Whether it lives in a namespace.
    pub is_namespaced: bool,
    /// Whether clients may write it.
    pub is_writable: bool,
    /// Whether `kubectl get all` shows it.
    pub is_in_all: bool,
}

const fn kind(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short: &'static [&'static str],
) -> Kind {
    Kind { group, version, kind, plural, singular, short, is_namespaced: true, is_writable: true, is_in_all: false }
}

impl Kind {
    const fn cluster_wide(mut self) -> Self {
        self.is_namespaced = false;
        self
    }

    const fn read_only(mut self) -> Self {
        self.is_writable = false;
        self
    }

    const fn in_all(mut self) -> Self {
        self.is_in_all = true;
        self
    }

    /// `apps/v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployments.apps`, as messages name it.
    pub fn qualified_plural(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `deployment.apps`, as messages name one object of it.
    pub fn qualified_singular(&self) -> String {
        if self.group.is_empty() { self.singular.to_owned() } else { format!("{}.{}", self.singular, self.group) }
    }
}

/// Every kind.
pub const KINDS: &[Kind] = &[
    kind("", "v1", "Namespace", "namespaces", "namespace", &["ns"]).cluster_wide(),
    kind("", "v1", "Pod", "pods", "pod", &["po"]).read_only().in_all(),
    kind("", "v1", "Service", "services", "service", &["svc"]).in_all(),
    kind("", "v1", "Secret", "secrets", "secret", &[]),
    kind("", "v1", "ConfigMap", "configmaps", "configmap", &["cm"]),
    kind("", "v1", "Event", "events", "event", &["ev"]).read_only(),
    kind("apps", "v1", "Deployment", "deployments", "deployment", &["deploy"]).in_all(),
    kind("apps", "v1", "StatefulSet", "statefulsets", "statefulset", &["sts"]).in_all(),
    kind("batch", "v1", "Job", "jobs", "job", &[]).in_all(),
    kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "poddisruptionbudget", &["pdb"]),
    kind(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "horizontalpodautoscaler",
        &["hpa"],
    )
    .in_all(),
    kind(
        "autoscaling.k8s.io",
        "v1",
        "VerticalPodAutoscaler",
        "verticalpodautoscalers",
        "verticalpodautoscaler",
        &["vpa"],
    ),
    kind("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects", "scaledobject", &["so"]),
    kind("keda.sh", "v1alpha1", "ScaledJob", "scaledjobs", "scaledjob", &["sj"]),
    kind(
        "keda.sh",
        "v1alpha1",
        "TriggerAuthentication",
        "triggerauthentications",
        "triggerauthentication",
        &["ta", "triggerauth"],
    ),
    kind(
        "keda.sh",
        "v1alpha1",
        "ClusterTriggerAuthentication",
        "clustertriggerauthentications",
        "clustertriggerauthentication",
        &["cta", "clustertriggerauth"],
    )
    .cluster_wide(),
    kind("tidemill.dev", "v1", "ExternalMetric", "externalmetrics", "externalmetric", &["em"]),
    kind("tidemill.dev", "v1", "Mapping", "mappings", "mapping", &[]).cluster_wide(),
];

/// The kind that a person means: kind, plural, singular, short name, or plural with its group.
pub fn find_kind(word: &str) -> Option<&'static Kind> {
    let word = word.to_lowercase();
    let (name, group) = word.split_once('.').map_or((word.as_str(), None), |(name, group)| (name, Some(group)));
    KINDS.iter().find(|kind| {
        let is_named = kind.plural == name
            || kind.singular == name
            || kind.short.contains(&name)
            || kind.kind.eq_ignore_ascii_case(name);
        // `deployments.v1.apps` is written too.
        let is_group = |group: &str| {
            kind.group == group
                || group.strip_prefix(kind.version).is_some_and(|rest| rest.trim_start_matches('.') == kind.group)
        };
        is_named && group.is_none_or(is_group)
    })
}

/// The kind of a manifest; any version of its group is taken.
pub fn kind_of(api_version: &str, kind: &str) -> Option<&'static Kind> {
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    KINDS.iter().find(|known| known.kind == kind && known.group == group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_every_word_for_them() {
        for word in
            ["deploy", "Deployment", "deployments", "deployment.apps", "deployments.apps", "deployments.v1.apps"]
        {
            assert_eq!(find_kind(word).map(|kind| kind.kind), Some("Deployment"), "{word}");
        }
        assert_eq!(find_kind("deployments.batch"), None);
        assert_eq!(kind_of("autoscaling/v2beta2", "HorizontalPodAutoscaler").map(|kind| kind.version), Some("v2"));
    }

    #[test]
    fn no_word_means_two_kinds() {
        let mut words: Vec<&str> =
            KINDS.iter().flat_map(|kind| kind.short.iter().copied().chain([kind.plural, kind.singular])).collect();
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
    }
}
