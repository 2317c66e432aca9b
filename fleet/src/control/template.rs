//! From a pod template to a replica: everything resolved, or everything that is missing told at once.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tidemill_scaling::quantity::{parse_milli, parse_units};

use super::environment::{Fields, Missing, environment, expand};
use super::hosts::Hosts;
use crate::objects::Object;
use crate::runtime::{ContainerSpec, Probe, ProbeAction, ReplicaSpec, Resources, RestartPolicy};
use crate::storage::Storage;

/// What a template is resolved against.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// For secrets and config maps.
    pub storage: &'a Storage,
    /// The names of the namespace.
    pub hosts: &'a Hosts,
    /// Images and what runs for them, as a list of words.
    pub images: &'a BTreeMap<String, String>,
    /// Variables for the namespace's services, as Kubernetes gives them.
    pub services: &'a BTreeMap<String, String>,
    /// Requests that a vertical autoscaler wants, by container.
    pub requests: BTreeMap<String, Resources>,
}

/// Who a replica is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// See [`ReplicaSpec`].
    pub uid: String,
    /// See [`ReplicaSpec`].
    pub name: String,
    /// See [`ReplicaSpec`].
    pub template: String,
    /// See [`ReplicaSpec`].
    pub attempt: u32,
    /// See [`ReplicaSpec`].
    pub address: Ipv4Addr,
    /// Variables beyond the template's.
    pub env: BTreeMap<String, String>,
}

/// The replica that `owner`'s template describes.
///
/// # Errors
/// Every image, secret, key and host that is missing.
pub fn replica(
    owner: &Object,
    template: &Value,
    identity: Identity,
    around: &Surroundings<'_>,
) -> Result<ReplicaSpec, Vec<Missing>> {
    let pod = template.get("spec").cloned().unwrap_or_default();
    let labels = crate::objects::texts(template.get("metadata").and_then(|metadata| metadata.get("labels")));
    let mut missing = Vec::new();
    let mut builder = Builder { owner, labels: &labels, identity: &identity, around, missing: &mut missing };
    let init_containers = builder.containers(&pod, "initContainers");
    let containers = builder.containers(&pod, "containers");
    if !missing.is_empty() {
        missing.sort();
        missing.dedup();
        return Err(missing);
    }
    let default_policy = if owner.kind == "Job" { RestartPolicy::OnFailure } else { RestartPolicy::Always };
    let restart_policy = match pod.get("restartPolicy").and_then(Value::as_str) {
        Some("Always") => RestartPolicy::Always,
        Some("OnFailure") => RestartPolicy::OnFailure,
        Some("Never") => RestartPolicy::Never,
        _ => default_policy,
    };
    let seconds = |name: &str| pod.get(name).and_then(Value::as_u64).map(Duration::from_secs);
    Ok(ReplicaSpec {
        uid: identity.uid,
        namespace: owner.metadata.namespace.clone(),
        name: identity.name,
        workload_kind: owner.kind.clone(),
        workload: owner.metadata.name.clone(),
        owner_uid: owner.metadata.uid.clone(),
        template: identity.template,
        attempt: identity.attempt,
        address: identity.address,
        labels,
        init_containers,
        containers,
        restart_policy,
        grace_period: seconds("terminationGracePeriodSeconds").unwrap_or(Duration::from_secs(30)),
        active_deadline: seconds("activeDeadlineSeconds"),
    })
}

/// The environment of the container that triggers look at: the named one, or the first.
pub fn trigger_environment(
    namespace: &str,
    template: &Value,
    container: Option<&str>,
    storage: &Storage,
) -> Result<BTreeMap<String, String>, String> {
    let containers = template
        .get("spec")
        .and_then(|pod| pod.get("containers"))
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let is_named = |item: &&Value| container.is_none_or(|name| item.get("name").and_then(Value::as_str) == Some(name));
    let Some(found) = containers.iter().find(is_named) else {
        return Err(format!("there is no container {}", container.unwrap_or_default()));
    };
    let (env, missing) = environment(found, namespace, storage, &Fields::default(), BTreeMap::new());
    // Fields of a pod mean nothing before there is one; a trigger that names such a variable is told so when it looks.
    let is_field = |problem: &Missing| problem.what.contains("fieldPath");
    match missing.into_iter().find(|problem| !is_field(problem)) {
        Some(problem) => Err(problem.what),
        None => Ok(env),
    }
}

struct Builder<'a> {
    owner: &'a Object,
    labels: &'a BTreeMap<String, String>,
    identity: &'a Identity,
    around: &'a Surroundings<'a>,
    missing: &'a mut Vec<Missing>,
}

impl Builder<'_> {
    fn containers(&mut self, pod: &Value, list: &str) -> Vec<ContainerSpec> {
        let items = pod.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        items.iter().filter_map(|item| self.container(item)).collect()
    }

    fn fields(&self) -> Fields {
        let mut values = BTreeMap::from([
            ("metadata.name".to_owned(), self.identity.name.clone()),
            ("metadata.namespace".to_owned(), self.owner.metadata.namespace.clone()),
            ("metadata.uid".to_owned(), self.identity.uid.clone()),
            ("status.podIP".to_owned(), self.identity.address.to_string()),
            ("status.hostIP".to_owned(), "127.0.0.1".to_owned()),
            ("spec.nodeName".to_owned(), "local".to_owned()),
            ("spec.serviceAccountName".to_owned(), "default".to_owned()),
        ]);
        values.extend(self.labels.iter().map(|(key, value)| (format!("metadata.labels['{key}']"), value.clone())));
        Fields { values }
    }

    fn container(&mut self, item: &Value) -> Option<ContainerSpec> {
        let text = |name: &str| item.get(name).and_then(Value::as_str);
        let (name, image) = (text("name")?.to_owned(), text("image").unwrap_or_default().to_owned());
        let mut before = self.around.services.clone();
        before.extend([
            ("HOSTNAME".to_owned(), self.identity.name.clone()),
            ("POD_IP".to_owned(), self.identity.address.to_string()),
        ]);
        before.extend(self.identity.env.clone());
        let namespace = &self.owner.metadata.namespace;
        let (env, problems) = environment(item, namespace, self.around.storage, &self.fields(), before.clone());
        self.missing.extend(problems);
        // What a replica is told of itself leads nowhere else.
        let told = |variable: &String, value: &String| before.get(variable) == Some(value);
        for (variable, value) in env.iter().filter(|(variable, value)| !told(variable, value)) {
            for host in self.around.hosts.unknown(variable, value) {
                self.missing.push(missing_host(&host));
            }
        }
        let hosts = self.around.hosts;
        let env: BTreeMap<String, String> = env
            .into_iter()
            .map(|(variable, value)| (variable.clone(), hosts.rewrite_value(&variable, &value)))
            .collect();
        let words = |list: &str| {
            let items = item.get(list).and_then(Value::as_array)?;
            Some(items.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect::<Vec<_>>())
        };
        let command = self.command(&image, words("command").filter(|words| !words.is_empty()), words("args"))?;
        let mut command = command.into_iter().map(|word| hosts.rewrite_text(&expand(&word, &env)));
        let program = PathBuf::from(command.next()?);
        let amounts = |section: &str| resources(item.get("resources").and_then(|resources| resources.get(section)));
        let limits = amounts("limits");
        let mut requests = amounts("requests");
        // What has a limit and no request requests its limit.
        requests.cpu_milli = requests.cpu_milli.or(limits.cpu_milli);
        requests.memory_bytes = requests.memory_bytes.or(limits.memory_bytes);
        if let Some(wanted) = self.around.requests.get(&name) {
            requests.cpu_milli = wanted.cpu_milli.or(requests.cpu_milli);
            requests.memory_bytes = wanted.memory_bytes.or(requests.memory_bytes);
        }
        let address = self.identity.address;
        Some(ContainerSpec {
            program,
            args: command.collect(),
            working_dir: text("workingDir").map(PathBuf::from),
            requests,
            limits,
            liveness: probe(item, "livenessProbe", address),
            readiness: probe(item, "readinessProbe", address),
            startup: probe(item, "startupProbe", address),
            pre_stop: item
                .get("lifecycle")
                .and_then(|cycle| cycle.get("preStop"))
                .and_then(|handler| action(handler, item, address)),
            name,
            image,
            env,
        })
    }

    /// What runs: the image's words are its entry point, which `command` replaces; `args` follow.
    fn command(&mut self, image: &str, command: Option<Vec<String>>, args: Option<Vec<String>>) -> Option<Vec<String>> {
        let mut words = match command {
            Some(command) => command,
            None => match mapped_image(self.around.images, image) {
                Some(text) => split_words(text),
                None => {
                    self.missing.push(missing_image(image));
                    return None;
                }
            },
        };
        words.extend(args.unwrap_or_default());
        Some(words)
    }
}

fn missing_image(image: &str) -> Missing {
    Missing::new(format!("nothing runs here for image {image}; add --image '{image}=COMMAND'"))
}

pub(super) fn missing_host(host: &str) -> Missing {
    Missing::new(format!(
        "host {host} is known only to a cluster; add --host '{host}=ADDRESS:PORT', or a Service of that name"
    ))
}

/// What runs for an image: as it is written, without its tag, or its last part.
pub fn mapped_image<'a>(images: &'a BTreeMap<String, String>, image: &str) -> Option<&'a str> {
    let without_digest = image.split('@').next().unwrap_or(image);
    let after_slash = without_digest.rfind('/').map_or(0, |at| at + 1);
    let without_tag = match without_digest[after_slash..].find(':') {
        Some(colon) => &without_digest[..after_slash + colon],
        None => without_digest,
    };
    let found = images.get(image).or_else(|| images.get(without_digest)).or_else(|| images.get(without_tag));
    found.or_else(|| images.get(&without_tag[after_slash.min(without_tag.len())..])).map(String::as_str)
}

/// Words of a command line: spaces part them, quotes keep them together, a backslash keeps what follows.
pub fn split_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut is_word) = (Vec::new(), String::new(), None, false);
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), close) if open == close => quote = None,
            (None, '\'' | '"') => (quote, is_word) = (Some(c), true),
            (None | Some('"'), '\\') => {
                is_word = true;
                word.extend(characters.next());
            }
            (None, c) if c.is_whitespace() => {
                if is_word {
                    words.push(std::mem::take(&mut word));
                    is_word = false;
                }
            }
            (_, c) => {
                is_word = true;
                word.push(c);
            }
        }
    }
    if is_word {
        words.push(word);
    }
    words
}

/// `cpu` and `memory` of a mapping of quantities.
pub fn resources(amounts: Option<&Value>) -> Resources {
    let text = |name: &str| {
        let amount = amounts?.get(name)?;
        Some(amount.as_str().map_or_else(|| amount.to_string(), ToOwned::to_owned))
    };
    Resources {
        cpu_milli: text("cpu").and_then(|text| parse_milli(&text).ok()),
        memory_bytes: text("memory").and_then(|text| parse_units(&text).ok()),
    }
}

fn probe(container: &Value, name: &str, address: Ipv4Addr) -> Option<Probe> {
    let written = container.get(name)?;
    let seconds =
        |name: &str, default: u64| Duration::from_secs(written.get(name).and_then(Value::as_u64).unwrap_or(default));
    let count = |name: &str, default: u32| {
        written.get(name).and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok()).unwrap_or(default).max(1)
    };
    Some(Probe {
        action: action(written, container, address)?,
        initial_delay: seconds("initialDelaySeconds", 0),
        period: seconds("periodSeconds", 10).max(Duration::from_secs(1)),
        timeout: seconds("timeoutSeconds", 1).max(Duration::from_secs(1)),
        success_threshold: count("successThreshold", 1),
        failure_threshold: count("failureThreshold", 3),
    })
}

fn action(handler: &Value, container: &Value, address: Ipv4Addr) -> Option<ProbeAction> {
    let host =
        |at: &Value| at.get("host").and_then(Value::as_str).map_or_else(|| address.to_string(), ToOwned::to_owned);
    let text = |at: &Value, name: &str| at.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    if let Some(get) = handler.get("httpGet") {
        let headers = get.get("httpHeaders").and_then(Value::as_array).into_iter().flatten();
        return Some(ProbeAction::HttpGet {
            host: host(get),
            port: port(get.get("port")?, container)?,
            path: text(get, "path").unwrap_or_else(|| "/".to_owned()),
            headers: headers.filter_map(|header| Some((text(header, "name")?, text(header, "value")?))).collect(),
            is_https: get
                .get("scheme")
                .and_then(Value::as_str)
                .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
        });
    }
    if let Some(tcp) = handler.get("tcpSocket") {
        return Some(ProbeAction::TcpSocket { host: host(tcp), port: port(tcp.get("port")?, container)? });
    }
    if let Some(grpc) = handler.get("grpc") {
        return Some(ProbeAction::Grpc {
            host: host(grpc),
            port: port(grpc.get("port")?, container)?,
            service: text(grpc, "service").unwrap_or_default(),
        });
    }
    if let Some(exec) = handler.get("exec") {
        let words = exec.get("command").and_then(Value::as_array)?;
        return Some(ProbeAction::Exec {
            command: words.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
        });
    }
    let seconds = handler.get("sleep").and_then(|sleep| sleep.get("seconds")).and_then(Value::as_u64)?;
    Some(ProbeAction::Sleep { duration: Duration::from_secs(seconds) })
}

/// A port by number, or by the name that the container gives it.
pub(super) fn port(written: &Value, container: &Value) -> Option<u16> {
    if let Some(number) = written.as_u64() {
        return u16::try_from(number).ok();
    }
    let name = written.as_str()?;
    let ports = container.get("ports").and_then(Value::as_array)?;
    let named = ports.iter().find(|port| port.get("name").and_then(Value::as_str) == Some(name));
    named?
        .get("containerPort")
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok())
        .or_else(|| name.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_with_and_without_its_tag() {
        let images =
            BTreeMap::from([("neurolake/api".to_owned(), "a".to_owned()), ("busybox".to_owned(), "b".to_owned())]);
        for (image, found) in [
            ("neurolake/api:latest", Some("a")),
            ("neurolake/api", Some("a")),
            ("docker.io/library/busybox:1.36", Some("b")),
            ("busybox@sha256:00", Some("b")),
            ("localhost:5000/other", None),
        ] {
            assert_eq!(mapped_image(&images, image), found, "{image}");
        }
    }

    #[test]
    fn words_are_split_as_a_shell_does_it() {
        assert_eq!(split_words(r#"python3 'a b' "c \"d" e\ f '' g"#), ["python3", "a b", "c \"d", "e f", "", "g"]);
    }

    #[test]
    fn a_replica_s_own_name_is_no_host_that_is_missing() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::open(folder.path()).expect("open");
        let (hosts, images, services) = (Hosts::default(), BTreeMap::new(), BTreeMap::new());
        let around = Surroundings {
            storage: &storage,
            hosts: &hosts,
            images: &images,
            services: &services,
            requests: BTreeMap::new(),
        };
        let identity = Identity {
            uid: "u".to_owned(),
            name: "web-abc".to_owned(),
            template: String::new(),
            attempt: 1,
            address: Ipv4Addr::LOCALHOST,
            env: BTreeMap::new(),
        };
        let container = |env: Value| serde_json::json!({"spec": {"containers": [{"name": "c", "image": "i", "command": ["sh", "$(HOSTNAME)"], "env": env}]}});
        let owner = Object::default();
        let made =
            replica(&owner, &container(serde_json::json!([])), identity.clone(), &around).expect("nothing is missing");
        assert_eq!(made.containers[0].args, ["web-abc"]);
        let missing =
            replica(&owner, &container(serde_json::json!([{"name": "PG_HOST", "value": "db"}])), identity, &around);
        assert!(missing.is_err_and(|missing| missing.len() == 1 && missing[0].what.contains("--host 'db=")));
    }
}
