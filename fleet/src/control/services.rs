//! Where connections to services and mapped hosts go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde_json::{Value, json};

use super::hosts::{ports_in, service_address};
use super::{Plan, Seen};
use crate::objects::{LabelSelector, Object, texts};

/// Every address to listen on, with its backends.
pub(super) fn wanted(seen: &Seen) -> BTreeMap<SocketAddr, Vec<SocketAddr>> {
    let mut wanted = BTreeMap::new();
    for service in seen.objects.iter().filter(|object| object.kind == "Service") {
        let own = service_address(&service.metadata.namespace, &service.metadata.name);
        for (port, backends) in ports(seen, service) {
            wanted.insert((own, port).into(), backends.clone());
            // Where people look for it; whoever comes first has it.
            wanted.entry((Ipv4Addr::LOCALHOST, port).into()).or_insert(backends);
        }
    }
    if !seen.mapped_hosts.is_empty() {
        let named = named_ports(seen);
        for host in seen.mapped_hosts.values() {
            for port in named.iter().copied().chain(host.port()) {
                wanted.extend(host.target_of(port).map(|target| ((host.alias, port).into(), vec![target])));
            }
        }
    }
    wanted
}

fn ports(seen: &Seen, service: &Object) -> Vec<(u16, Vec<SocketAddr>)> {
    let selector = LabelSelector::equal(&texts(service.at("/spec/selector")));
    let listed = service.at("/spec/ports").and_then(Value::as_array);
    let ready: Vec<_> = seen
        .replicas
        .iter()
        .filter(|replica| !selector.is_empty() && replica.spec.namespace == service.metadata.namespace)
        .filter(|replica| replica.is_ready && !replica.is_stopping && selector.matches(&replica.spec.labels))
        .collect();
    let one = |port: &Value| {
        let number = u16::try_from(port.get("port")?.as_u64()?).ok()?;
        let target = port.get("targetPort");
        let backends = ready.iter().filter_map(|replica| {
            let target = match target {
                None => Some(number),
                Some(Value::Number(target)) => target.as_u64().and_then(|target| u16::try_from(target).ok()),
                Some(Value::String(name)) => named_port(seen, replica, name),
                Some(_) => None,
            };
            Some(SocketAddr::from((replica.spec.address, target?)))
        });
        Some((number, backends.collect()))
    };
    listed.into_iter().flatten().filter_map(one).collect()
}

/// The port that the owner's template gives this name.
fn named_port(seen: &Seen, replica: &crate::runtime::ReplicaStatus, name: &str) -> Option<u16> {
    let owner = seen.objects.iter().find(|object| object.metadata.uid == replica.spec.owner_uid)?;
    let containers = owner.at("/spec/template/spec/containers").and_then(Value::as_array)?;
    containers.iter().find_map(|container| super::template::port(&json!(name), container))
}

/// Ports that templates and triggers name, by which a mapped host may be reached.
fn named_ports(seen: &Seen) -> BTreeSet<u16> {
    let mut found = BTreeSet::new();
    for object in &seen.objects {
        for section in ["/spec/template", "/spec/jobTargetRef", "/spec/triggers"] {
            if let Some(value) = object.at(section) {
                collect(value, "", &mut found);
            }
        }
    }
    found
}

fn collect(value: &Value, name: &str, found: &mut BTreeSet<u16>) {
    match value {
        Value::Object(members) => {
            // `{name: PG_PORT, value: "5432"}`
            let variable = members.get("name").and_then(Value::as_str).unwrap_or_default();
            for (key, value) in members {
                collect(value, if key == "value" { variable } else { key }, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, name, found)),
        Value::String(text) => {
            if name.to_uppercase().contains("PORT") {
                found.extend(text.parse::<u16>().ok().filter(|port| *port > 0));
            }
            found.extend(ports_in(text));
        }
        _ => {}
    }
}

/// What a service's status says: its address, and where it cannot be reached.
pub(super) fn statuses(seen: &Seen, failed: &BTreeMap<SocketAddr, String>, plan: &mut Plan) {
    let services: Vec<&Arc<Object>> = seen.objects.iter().filter(|object| object.kind == "Service").collect();
    for service in services {
        let own = service_address(&service.metadata.namespace, &service.metadata.name);
        let all = ports(seen, service);
        let ready = all.iter().map(|(_, backends)| backends.len()).max().unwrap_or_default();
        let mut addresses = vec![own.to_string()];
        let is_local = |port: &u16| !failed.contains_key(&SocketAddr::from((Ipv4Addr::LOCALHOST, *port)));
        if all.iter().all(|(port, _)| is_local(port)) {
            addresses.push(Ipv4Addr::LOCALHOST.to_string());
        }
        let problems: Vec<String> = failed
            .iter()
            .filter(|(address, _)| address.ip() == own)
            .map(|(address, why)| format!("{address}: {why}"))
            .collect();
        let mut status = json!({"address": own.to_string(), "reachableAt": addresses, "readyReplicas": ready});
        if !problems.is_empty() {
            status["problems"] = json!(problems);
        }
        super::status::put(service, status, plan);
    }
}
