//! Configuration: what keys there are, how layers merge, what the merged values mean.
//!
//! Owns: the registry of keys, precedence (defaults < file < environment < flags), typed values. Never: opens a store or a
//! socket. Start with [`Config::load`].

mod document;
mod layers;
mod quantity;
mod registry;
mod rules;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidemill_types::{Action, ErrorKind, Signal};

pub use document::render_document;
pub use layers::{Layers, Origin, Settings};
pub use quantity::{format_bytes, parse_bytes, parse_duration};
pub use registry::{KEYS, Kind};
use rules::problems_between_keys;

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
        let (settings, mut problems) = Settings::merge(layers);
        let config = Self { settings };
        problems.extend(problems_between_keys(&config));
        let count = match problems.len() {
            0 => return Ok(config),
            1 => "a problem".to_owned(),
            count => format!("{count} problems"),
        };
        Err(Error::invalid(format!("the configuration has {count}:\n  {}", problems.join("\n  "))))
    }

    /// The data folder.
    pub fn data_dir(&self) -> PathBuf {
        PathBuf::from(self.settings.text("data_dir"))
    }

    /// A text that is set.
    pub fn optional(&self, name: &str) -> Option<&str> {
        Some(self.settings.text(name)).filter(|text| !text.is_empty())
    }

    /// A value that is set, as it may be shown.
    pub fn masked(&self, name: &str) -> Option<String> {
        let kind = registry::find_key(name).map_or(Kind::Secret, |key| key.kind);
        self.optional(name).map(|text| mask(kind, text))
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
    // A password may hold what should have been escaped, so the host begins after the last `@`.
    let (user, host) = rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
    let host = host.split_once('?').map_or(host, |(host, _)| host);
    match user {
        Some(user) => {
            let user = user.split([':', '/', '?']).next().unwrap_or_default();
            format!("{scheme}://{user}:********@{host}")
        }
        None => format!("{scheme}://{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked() {
        assert_eq!(
            mask(Kind::SecretUrl, "postgres://u:p@h:5432/d?sslmode=require&password=x"),
            "postgres://u:********@h:5432/d"
        );
        assert_eq!(mask(Kind::SecretUrl, "postgres://u:p?q/r@s@h/d"), "postgres://u:********@h/d");
        assert_eq!(mask(Kind::SecretUrl, "postgres://h/d"), "postgres://h/d");
        assert_eq!(mask(Kind::SecretUrl, "host=h password=p"), "********");
        assert_eq!(mask(Kind::Secret, "s"), "********");
        assert_eq!(mask(Kind::Secret, ""), "");
        assert_eq!(mask(Kind::Text, "s"), "s");
    }
}
