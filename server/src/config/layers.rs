//! Merges the layers of configuration: defaults, file, environment, flags; the later wins. Every problem is told at once.
//!
//! Start with [`Settings::merge`]. Meaning of the values is `Config`'s; here they are checked text with an origin.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::quantity::{parse_bytes, parse_duration};
use super::registry::{KEYS, Key, Kind, OTHER_ENVIRONMENT, TEST_ENVIRONMENT_PREFIX, find_key};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A line of a file.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One value with its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Checked text.
    pub text: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// What is merged over the defaults.
#[derive(Debug, Default)]
pub struct Layers {
    /// A TOML file: its path and text.
    pub file: Option<(PathBuf, String)>,
    /// The environment, names and values.
    pub environment: Vec<(String, String)>,
    /// Flags: the key, the flag as typed, the value.
    pub flags: Vec<(String, String, String)>,
}

/// Every key with its merged value.
#[derive(Debug, Clone)]
pub struct Settings {
    values: BTreeMap<&'static str, Setting>,
}

impl Settings {
    /// Merges `layers` over the defaults. Returns also what is wrong: every unknown key and every value that its kind refuses, one
    /// line each; such a key keeps the value of the layer below, so that what follows from the others can be told too.
    pub fn merge(layers: &Layers) -> (Self, Vec<String>) {
        let mut merge = Merge { values: BTreeMap::new(), problems: Vec::new() };
        for key in KEYS {
            merge.values.insert(key.name, Setting { text: key.default.to_owned(), origin: Origin::Default });
        }
        if let Some((path, text)) = &layers.file {
            merge.add_file(path, text);
        }
        for (name, value) in &layers.environment {
            merge.add_environment(name, value);
        }
        for (name, flag, value) in &layers.flags {
            merge.set(name, value.clone(), Origin::Flag(flag.clone()));
        }
        (Self { values: merge.values }, merge.problems)
    }

    /// The setting of `name`, which is in the registry.
    pub fn get(&self, name: &str) -> &Setting {
        self.values.get(name).expect("the caller names a key of the registry")
    }

    /// The text of `name`.
    pub fn text(&self, name: &str) -> &str {
        &self.get(name).text
    }
}

struct Merge {
    values: BTreeMap<&'static str, Setting>,
    problems: Vec<String>,
}

impl Merge {
    fn add_file(&mut self, path: &std::path::Path, text: &str) {
        match DeTable::parse(text) {
            Ok(table) => self.add_table(path, text, "", table.get_ref()),
            Err(error) => {
                let line = error.span().map_or(1, |span| line_of(text, span.start));
                self.problems.push(format!("{}:{line}: {}", path.display(), error.message()));
            }
        }
    }

    fn add_table(&mut self, path: &std::path::Path, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name =
                if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
            let origin = Origin::File(path.to_owned(), line_of(text, key.span().start));
            match value.get_ref() {
                DeValue::Table(inner) if find_key(&name).is_none() => self.add_table(path, text, &name, inner),
                DeValue::Array(_) if find_key(&name).is_some_and(|key| !key.kind.is_list()) => {
                    self.problems.push(format!("{origin}: {name}: takes one value, not an array"));
                }
                _ => match value_text(value) {
                    Ok(value) => self.set(&name, value, origin),
                    Err(problem) => self.problems.push(format!("{origin}: {name}: {problem}")),
                },
            }
        }
    }

    fn add_environment(&mut self, name: &str, value: &str) {
        let is_other = OTHER_ENVIRONMENT.contains(&name) || name.starts_with(TEST_ENVIRONMENT_PREFIX);
        if !name.starts_with("TIDEMILL_") || is_other || is_service_link(name, value) {
            return;
        }
        let origin = Origin::Environment(name.to_owned());
        match KEYS.iter().find(|key| key.environment() == name) {
            Some(key) => self.set(key.name, value.to_owned(), origin),
            None => {
                let names: Vec<String> = KEYS.iter().map(Key::environment).collect();
                let near = nearest(name, names.iter().map(String::as_str));
                self.problems.push(format!("{origin}: no such setting{near}; all are listed in docs/config.md"));
            }
        }
    }

    fn set(&mut self, name: &str, text: String, origin: Origin) {
        let Some(key) = find_key(name) else {
            self.problems.push(unknown_key(name, &origin));
            return;
        };
        match check(key.kind, &text) {
            Ok(()) => {
                self.values.insert(key.name, Setting { text, origin });
            }
            Err(problem) => self.problems.push(format!("{origin}: {name}: {problem}")),
        }
    }
}

/// Whether Kubernetes set it: beside a Service called `tidemill` every container gets `TIDEMILL_SERVICE_HOST`,
/// `TIDEMILL_PORT=tcp://10.0.0.1:8080`, `TIDEMILL_PORT_8080_TCP_ADDR` and the like ("Service links", as Docker's legacy links).
fn is_service_link(name: &str, value: &str) -> bool {
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return true;
    }
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let of_port = |rest: &str| {
        let mut parts = rest.split('_');
        parts.next().is_some_and(|port| port.parse::<u16>().is_ok())
            && parts.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
    };
    name.ends_with("_PORT") && is_address || name.split("_PORT_").skip(1).any(of_port)
}

fn unknown_key(name: &str, origin: &Origin) -> String {
    let section = name.rsplit_once('.').map(|(section, _)| format!("{section}."));
    let siblings: Vec<&str> = KEYS
        .iter()
        .map(|key| key.name)
        .filter(|key| section.as_ref().is_some_and(|section| key.starts_with(section)))
        .collect();
    let near = nearest(name, KEYS.iter().map(|key| key.name));
    if siblings.is_empty() {
        let mut sections: Vec<&str> = KEYS.iter().map(|key| key.name.split('.').next().unwrap_or(key.name)).collect();
        sections.dedup();
        format!("{origin}: unknown key {name}{near}; sections are {}", sections.join(", "))
    } else {
        format!("{origin}: unknown key {name}{near}; allowed here: {}", siblings.join(", "))
    }
}

fn value_text(value: &Spanned<DeValue<'_>>) -> Result<String, String> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Float(number) => Ok(number.to_string()),
        DeValue::Boolean(flag) => Ok(flag.to_string()),
        DeValue::Array(items) => {
            let items: Result<Vec<String>, String> = items.iter().map(value_text).collect();
            Ok(items?.join(","))
        }
        DeValue::Datetime(_) => Err("a date is not allowed here".to_owned()),
        DeValue::Table(_) => Err("a table is not allowed here".to_owned()),
    }
}

fn check(kind: Kind, text: &str) -> Result<(), String> {
    let refuse = || Err(format!("{text:?} is no {}", kind.describe()));
    match kind {
        Kind::Text | Kind::Secret | Kind::SecretUrl | Kind::Path | Kind::List => Ok(()),
        Kind::Port => text.parse::<u16>().map(drop).or_else(|_| refuse()),
        Kind::Count => text.parse::<u32>().map(drop).or_else(|_| refuse()),
        Kind::Bytes => parse_bytes(text).map(drop),
        Kind::Duration => parse_duration(text).map(drop),
        Kind::Flag => text.parse::<bool>().map(drop).or_else(|_| refuse()),
        Kind::Ratio => match text.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(()),
            _ => refuse(),
        },
        Kind::Choice(choices) => {
            if choices.contains(&text) {
                Ok(())
            } else {
                refuse()
            }
        }
        Kind::Choices(choices) => {
            let items: Vec<&str> = split_list(text).collect();
            match items.iter().find(|item| !choices.contains(item)) {
                _ if items.is_empty() => refuse(),
                None => Ok(()),
                Some(item) => Err(format!("{item:?} is none of {}", choices.join(", "))),
            }
        }
    }
}

/// The items of a comma-separated list, without blanks.
pub fn split_list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

/// `; nearest is x`, where one of `candidates` may well be meant.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    let distances = candidates.map(|candidate| (edit_distance(name, candidate), candidate));
    match distances.min() {
        Some((distance, candidate)) if distance <= 2.max(name.len() / 3) => format!("; nearest is {candidate}"),
        _ => String::new(),
    }
}

/// Levenshtein's distance, one row at a time.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Layers {
        Layers { file: Some((PathBuf::from("tidemill.toml"), text.to_owned())), ..Layers::default() }
    }

    #[test]
    fn later_layers_win_and_say_where_they_come_from() {
        let mut layers = file("[listen]\ngrpc_port = 5000\nhttp_port = 5001\napi_port = 5002\n");
        layers.environment = vec![
            ("TIDEMILL_LISTEN_HTTP_PORT".to_owned(), "6001".to_owned()),
            ("TIDEMILL_LISTEN_API_PORT".to_owned(), "6002".to_owned()),
            ("HOME".to_owned(), "/".to_owned()),
        ];
        layers.flags = vec![("listen.api_port".to_owned(), "--api-port".to_owned(), "7002".to_owned())];
        let (settings, problems) = Settings::merge(&layers);
        assert_eq!(problems, Vec::<String>::new());
        let shown: Vec<String> = ["listen.address", "listen.grpc_port", "listen.http_port", "listen.api_port"]
            .map(|name| format!("{} from {}", settings.text(name), settings.get(name).origin))
            .to_vec();
        assert_eq!(
            shown,
            [
                "127.0.0.1 from default",
                "5000 from tidemill.toml:2",
                "6001 from environment TIDEMILL_LISTEN_HTTP_PORT",
                "7002 from flag --api-port"
            ]
        );
    }

    #[test]
    fn all_problems_are_told_at_once_with_their_places() {
        let mut layers = file(
            "[listen]\ngprc_port = 1\nhttp_port = 70000\n[worker]\nsignals = [\"logs\", \"events\"]\n[nonsense]\nx = 1\n",
        );
        layers.environment = vec![("TIDEMILL_LISTEN_GRPCPORT".to_owned(), "1".to_owned())];
        layers.flags = vec![("receive.group_wait".to_owned(), "--set".to_owned(), "20".to_owned())];
        let (_, problems) = Settings::merge(&layers);
        assert_eq!(problems.len(), 6, "{problems:#?}");
        for (place, word) in [
            ("tidemill.toml:2", "nearest is listen.grpc_port"),
            ("tidemill.toml:3", "70000"),
            ("tidemill.toml:5", "events"),
            ("tidemill.toml:7", "unknown key nonsense.x"),
            ("environment TIDEMILL_LISTEN_GRPCPORT", "TIDEMILL_LISTEN_GRPC_PORT"),
            ("flag --set", "unit"),
        ] {
            assert!(
                problems.iter().any(|problem| problem.starts_with(place) && problem.contains(word)),
                "{place}: {problems:#?}"
            );
        }
    }

    #[test]
    fn what_kubernetes_tells_of_services_is_no_setting() {
        let link = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let environment = vec![
            link("TIDEMILL_SERVICE_HOST", "10.0.0.1"),
            link("TIDEMILL_QUERY_SERVICE_PORT", "8080"),
            link("TIDEMILL_SERVICE_PORT_OTLP_GRPC", "4317"),
            link("TIDEMILL_PORT", "tcp://10.0.0.1:8080"),
            link("TIDEMILL_PORT_4317_TCP", "tcp://10.0.0.1:4317"),
            link("TIDEMILL_PORT_4317_TCP_ADDR", "10.0.0.1"),
        ];
        let (_, problems) = Settings::merge(&Layers { environment, ..Layers::default() });
        assert_eq!(problems, Vec::<String>::new());
        let environment = vec![link("TIDEMILL_PORT", "8080"), link("TIDEMILL_PORT_X_TCP", "1")];
        let (_, problems) = Settings::merge(&Layers { environment, ..Layers::default() });
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn an_array_is_a_list_and_nothing_else() {
        let (_, problems) = Settings::merge(&file("data_dir = [\"a\", \"b\"]\n[worker]\nsignals = [\"logs\"]\n"));
        assert_eq!(problems, ["tidemill.toml:1: data_dir: takes one value, not an array"]);
    }

    #[test]
    fn broken_toml_names_its_line() {
        let (_, problems) = Settings::merge(&file("data_dir = \"x\"\n[listen\n"));
        assert!(problems[0].starts_with("tidemill.toml:2:"), "{problems:?}");
    }

    #[test]
    fn every_default_is_valid() {
        for key in KEYS {
            assert_eq!(check(key.kind, key.default), Ok(()), "{}", key.name);
        }
    }
}
