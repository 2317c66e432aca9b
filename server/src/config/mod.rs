//! Configuration: what keys there are, how layers merge, what the merged values mean.
//!
//! Owns: the registry of keys, precedence (defaults < file < environment < flags), typed values. Never: opens a store or a
//! socket. Start with [`Config::load`].

mod document;
mod layers;
mod quantity;
mod registry;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidemill_types::{Action, ErrorKind, Signal};

pub use document::render_document;
pub use layers::{Layers, Origin, Settings};
pub use quantity::{format_bytes, parse_bytes, parse_duration};
pub use registry::{KEYS, Kind};

use crate::error::{Error, Result};

/// The merged configuration with its meaning.
#[derive(Debug, Clone)]
pub struct Config {
    /// Each value as text, with its origin.
    pub settings: Settings,
}

/// Where the layers above the environment come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config`, or `TIDEMILL_CONFIG`; otherwise `tidemill.toml` here, if there is one.
    pub file: Option<PathBuf>,
    /// Flags: the key, the flag as typed, the value.
    pub flags: Vec<(String, String, String)>,
}

impl Config {
    /// Reads and merges every layer.
    ///
    /// # Errors
    /// `Invalid` with every problem on a line of its own; `NotFound` for a named file that is not there.
    pub fn load(sources: &Sources) -> Result<Self> {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
            .collect();
        let file = read_file(sources.file.as_deref())?;
        Self::merge(&Layers { file, environment, flags: sources.flags.clone() })
    }

    /// Merges `layers` and checks what no single key can know.
    ///
    /// # Errors
    /// `Invalid` with every problem on a line of its own.
    pub fn merge(layers: &Layers) -> Result<Self> {
        let refuse = |problems: Vec<String>| {
            Error::invalid(format!("the configuration has {} problem(s):\n  {}", problems.len(), problems.join("\n  ")))
        };
        let config = Self { settings: Settings::merge(layers).map_err(refuse)? };
        let problems = config.problems_between_keys();
        if problems.is_empty() { Ok(config) } else { Err(refuse(problems)) }
    }

    fn problems_between_keys(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut add = |name: &str, problem: String| {
            problems.push(format!("{}: {name}: {problem}", self.settings.get(name).origin));
        };
        match self.settings.text("listen.address").parse::<IpAddr>() {
            Err(_) => add("listen.address", format!("{:?} is no IP address", self.settings.text("listen.address"))),
            Ok(address) if !self.flag("auth.enabled") && !address.is_loopback() => {
                add("auth.enabled", format!("may be false only on a loopback address, and listen.address is {address}"))
            }
            Ok(_) => {}
        }
        if self.path("tls.cert").is_some() != self.path("tls.key").is_some() {
            add("tls.cert", "tls.cert and tls.key belong together: set both or none".to_owned());
        }
        let ports: Vec<u16> =
            ["listen.grpc_port", "listen.http_port", "listen.api_port"].map(|name| self.port(name)).to_vec();
        if ports.iter().enumerate().any(|(place, port)| *port != 0 && ports[..place].contains(port)) {
            add("listen.api_port", format!("the three ports must differ; they are {ports:?}"));
        }
        if self.duration("query.timeout") > Duration::from_secs(25 * 60) {
            add("query.timeout", "at most 25m: replaced objects are deleted 30m after they were replaced".to_owned());
        }
        for name in ["query.timeout", "worker.lease", "sweep.interval"] {
            if self.duration(name).is_zero() {
                add(name, "must be more than nothing".to_owned());
            }
        }
        for name in ["worker.count", "query.concurrency", "listen.max_connections", "metastore.connections"] {
            if self.count(name) == 0 {
                add(name, "must be at least 1".to_owned());
            }
        }
        problems
    }

    /// The data folder.
    pub fn data_dir(&self) -> PathBuf {
        PathBuf::from(self.settings.text("data_dir"))
    }

    /// A text that is set.
    pub fn optional(&self, name: &str) -> Option<&str> {
        Some(self.settings.text(name)).filter(|text| !text.is_empty())
    }

    /// A path that is set.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.optional(name).map(PathBuf::from)
    }

    /// A flag.
    pub fn flag(&self, name: &str) -> bool {
        self.settings.text(name) == "true"
    }

    /// A port.
    pub fn port(&self, name: &str) -> u16 {
        self.settings.text(name).parse().expect("the merge checked it")
    }

    /// A whole number.
    pub fn count(&self, name: &str) -> usize {
        self.settings.text(name).parse().expect("the merge checked it")
    }

    /// A size in bytes.
    pub fn bytes(&self, name: &str) -> u64 {
        parse_bytes(self.settings.text(name)).expect("the merge checked it")
    }

    /// A duration.
    pub fn duration(&self, name: &str) -> Duration {
        parse_duration(self.settings.text(name)).expect("the merge checked it")
    }

    /// A ratio from 0 to 1.
    pub fn ratio(&self, name: &str) -> f64 {
        self.settings.text(name).parse().expect("the merge checked it")
    }

    /// The items of a list.
    pub fn list(&self, name: &str) -> Vec<String> {
        layers::split_list(self.settings.text(name)).map(str::to_owned).collect()
    }

    /// The signals that workers serve.
    pub fn worker_signals(&self) -> Vec<Signal> {
        self.list("worker.signals").iter().map(|name| name.parse().expect("the merge checked it")).collect()
    }

    /// The actions that workers perform.
    pub fn worker_actions(&self) -> Vec<Action> {
        self.list("worker.actions").iter().map(|name| name.parse().expect("the merge checked it")).collect()
    }

    /// The address that the listener of `port_key` binds.
    pub fn listen(&self, port_key: &str) -> SocketAddr {
        let address: IpAddr = self.settings.text("listen.address").parse().expect("the merge checked it");
        SocketAddr::new(address, self.port(port_key))
    }
}

fn read_file(named: Option<&Path>) -> Result<Option<(PathBuf, String)>> {
    let path = match named {
        Some(path) => path.to_owned(),
        None if Path::new("tidemill.toml").exists() => PathBuf::from("tidemill.toml"),
        None => return Ok(None),
    };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Error::io(format!("reading the configuration file {}", path.display()), error))?;
    if text.len() > 1 << 20 {
        return Err(Error::new(ErrorKind::Invalid, format!("{}: more than 1 MiB is no configuration", path.display())));
    }
    Ok(Some((path, text)))
}

/// `value` as it may be shown: a secret is masked, a URL keeps all but its password.
pub fn mask(kind: Kind, value: &str) -> String {
    match kind {
        _ if value.is_empty() => String::new(),
        Kind::Secret => "********".to_owned(),
        Kind::SecretUrl => mask_url(value),
        _ => value.to_owned(),
    }
}

fn mask_url(value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else {
        return "********".to_owned();
    };
    let rest = rest.split_once('?').map_or(rest, |(address, _)| address);
    match rest.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split_once(':').map_or(user, |(user, _)| user);
            format!("{scheme}://{user}:********@{host}")
        }
        None => format!("{scheme}://{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(flags: &[(&str, &str)]) -> Result<Config> {
        let flags =
            flags.iter().map(|(key, value)| ((*key).to_owned(), "--set".to_owned(), (*value).to_owned())).collect();
        Config::merge(&Layers { flags, ..Layers::default() })
    }

    #[test]
    fn no_auth_is_refused_beyond_loopback() {
        assert!(merged(&[("auth.enabled", "false")]).is_ok());
        assert!(merged(&[("auth.enabled", "false"), ("listen.address", "::1")]).is_ok());
        let error = merged(&[("auth.enabled", "false"), ("listen.address", "0.0.0.0")]).expect_err("is refused");
        assert!(error.to_string().contains("loopback"), "{error}");
    }

    #[test]
    fn problems_between_keys_are_told_together() {
        let flags =
            [("tls.cert", "a.pem"), ("query.timeout", "26m"), ("listen.grpc_port", "8080"), ("worker.count", "0")];
        let error = merged(&flags).expect_err("is refused").to_string();
        for word in ["tls.key", "25m", "must differ", "at least 1", "4 problem"] {
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn secrets_are_masked() {
        assert_eq!(
            mask(Kind::SecretUrl, "postgres://u:p@h:5432/d?sslmode=require&password=x"),
            "postgres://u:********@h:5432/d"
        );
        assert_eq!(mask(Kind::SecretUrl, "host=h password=p"), "********");
        assert_eq!(mask(Kind::Secret, "s"), "********");
        assert_eq!(mask(Kind::Secret, ""), "");
        assert_eq!(mask(Kind::Text, "s"), "s");
    }
}
