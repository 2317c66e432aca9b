//! One generated record, and its two spellings: OTLP for us, a line of NDJSON for the peer. Both hold the same values.

use std::fmt::Write;

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use rand::Rng;

use crate::templates::{LISTS, SERVICES, TEMPLATES, Template};

/// Pods of each service.
pub const PODS: usize = 3;

/// One attribute.
pub fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// One attribute whose value is text.
pub fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

/// The resource of one pod of one service, as a collector with Kubernetes detection describes it.
pub fn resource(service: usize, pod: usize) -> Resource {
    let name = SERVICES[service];
    let attributes = vec![
        text("service.name", name),
        text("service.namespace", "shop"),
        text("service.version", &format!("{}.{}.0", 1 + service % 4, service % 7)),
        text("service.instance.id", &format!("{name}-{pod}")),
        text("k8s.pod.name", &format!("{name}-7d9f6c5b8-{:05x}", service * 7919 + pod * 104_729)),
        text("k8s.namespace.name", "shop"),
        text("k8s.node.name", &format!("node-{}", (service + pod) % 6)),
        text("cloud.region", "eu-central-1"),
        text("deployment.environment.name", "production"),
    ];
    Resource { attributes, ..Resource::default() }
}

/// The scope that every record of a service carries.
pub fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "shop.logger".to_owned(),
        version: "1.4.0".to_owned(),
        ..InstrumentationScope::default()
    }
}

/// Picks a template by its weight.
pub fn pick(random: &mut impl Rng) -> &'static Template {
    let mut at = random.random_range(0..TEMPLATES.iter().map(|template| template.weight).sum());
    TEMPLATES
        .iter()
        .find(|template| {
            let is_here = at < template.weight;
            at = at.saturating_sub(template.weight);
            is_here
        })
        .expect("the weights were just added up")
}

/// Fills a template's holes.
pub fn fill(template: &Template, random: &mut impl Rng) -> String {
    let mut filled = String::with_capacity(template.text.len() + 48);
    let mut rest = template.text;
    while let Some(at) = rest.find(['{', '}']) {
        filled.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if rest.starts_with(brace) {
            filled.push_str(brace);
            rest = &rest[1..];
        } else if let Some((kind, after)) = rest.split_once('}') {
            push_value(&mut filled, kind, random);
            rest = after;
        }
    }
    filled.push_str(rest);
    filled
}

fn push_value(filled: &mut String, kind: &str, random: &mut impl Rng) {
    if let Some((_, values)) = LISTS.iter().find(|(name, _)| *name == kind) {
        filled.push_str(values[random.random_range(0..values.len())]);
        return;
    }
    let written = match kind {
        "ms" => write!(filled, "{}", 1 + random.random_range(0..50) * random.random_range(1..12)),
        "bytes" => write!(filled, "{}", random.random_range(120..90_000)),
        "small" => write!(filled, "{}", random.random_range(1..64)),
        "int" => write!(filled, "{}", random.random_range(1..100_000)),
        "user" => write!(filled, "u{:05}", random.random_range(0..20_000)),
        "hex16" => write!(filled, "{:016x}", random.random::<u64>()),
        "uuid" => write!(filled, "{}", uuid::Builder::from_random_bytes(random.random()).into_uuid()),
        "ip" => write!(
            filled,
            "10.{}.{}.{}",
            random.random_range(0..4),
            random.random_range(0..256),
            random.random_range(1..255)
        ),
        other => unreachable!("template names an unknown kind {other:?}"),
    };
    written.expect("a String takes everything");
}

/// The attributes of a log record, and the same as a JSON object.
pub fn log_attributes(random: &mut impl Rng) -> (Vec<KeyValue>, String) {
    let thread = random.random_range(1..33);
    let tenant = random.random_range(0..50);
    let mut attributes = vec![attribute("thread.id", Value::IntValue(thread)), text("tenant", &format!("t{tenant}"))];
    let mut json = format!("{{\"thread.id\":{thread},\"tenant\":\"t{tenant}\"");
    if random.random_ratio(1, 2) {
        let status: i64 = [200, 200, 200, 201, 404, 500][random.random_range(0..6)];
        let path = LISTS[1].1[random.random_range(0..LISTS[1].1.len())];
        attributes.push(attribute("http.response.status_code", Value::IntValue(status)));
        attributes.push(text("url.path", path));
        write!(json, ",\"http.response.status_code\":{status},\"url.path\":\"{path}\"")
            .expect("a String takes everything");
    }
    json.push('}');
    (attributes, json)
}

/// Resource attributes as a JSON object.
pub fn resource_json(resource: &Resource) -> String {
    let map: serde_json::Map<String, serde_json::Value> = resource
        .attributes
        .iter()
        .filter_map(|pair| match pair.value.as_ref()?.value.as_ref()? {
            Value::StringValue(value) => Some((pair.key.clone(), value.clone().into())),
            _ => None,
        })
        .collect();
    serde_json::Value::Object(map).to_string()
}
