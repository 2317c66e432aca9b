//! Names of hosts as manifests write them, and the loopback addresses that stand for them here.
//!
//! A Service and a mapped host each have a loopback address of their own, on which their ports are listened to as they are. So only the name is
//! replaced, and a port that stands elsewhere (`PG_HOST` and `PG_PORT`) stays right.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};

/// Parts of names of variables and metadata that say that a value is a host.
const HOST_WORDS: [&str; 11] =
    ["HOST", "ADDR", "SERVER", "ENDPOINT", "URL", "URI", "DSN", "BROKER", "CONNECTION", "BOOTSTRAP", "PROXY"];

/// Where the names of one namespace lead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Names without a domain, with their addresses; services come before mapped hosts.
    names: BTreeMap<String, Ipv4Addr>,
    /// Where a name's address is listened to when a URL says no port.
    ports: BTreeMap<String, u16>,
}

/// Where a mapped host leads, and how its name is reached here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedHost {
    /// The address that stands for the name.
    pub alias: Ipv4Addr,
    /// Where its connections go.
    pub target: String,
}

impl MappedHost {
    /// A mapped host by its name.
    pub fn new(name: &str, target: &str) -> Self {
        Self { alias: alias([127, 49], name), target: target.to_owned() }
    }

    /// Where a connection to `port` goes: the mapped port where there is one.
    pub fn target_of(&self, port: u16) -> Option<SocketAddr> {
        let text = if self.target.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            self.target.clone()
        } else {
            format!("{}:{port}", self.target)
        };
        text.to_socket_addrs().ok()?.next()
    }

    /// The port that is mapped.
    pub fn port(&self) -> Option<u16> {
        self.target.rsplit_once(':')?.1.parse().ok()
    }
}

/// The address of a Service.
pub fn service_address(namespace: &str, name: &str) -> Ipv4Addr {
    alias([127, 48], &format!("{namespace}/{name}"))
}

/// An address by the name's hash: the same in every process, and seldom that of another name.
fn alias(network: [u8; 2], name: &str) -> Ipv4Addr {
    let hash = blake3::hash(name.as_bytes());
    let bytes = hash.as_bytes();
    // Neither the network's nor the broadcast address.
    Ipv4Addr::new(network[0], network[1], bytes[0], bytes[1].clamp(1, 254))
}

impl Hosts {
    /// Names with what they lead to.
    pub fn new(names: impl IntoIterator<Item = (String, Ipv4Addr)>) -> Self {
        Self { names: names.into_iter().collect(), ports: BTreeMap::new() }
    }

    /// With the ports of mapped hosts, which stand in URLs that say none: `http://db` would mean port 80, where nothing listens.
    pub fn with_ports(mut self, ports: impl IntoIterator<Item = (String, u16)>) -> Self {
        self.ports = ports.into_iter().collect();
        self
    }

    /// The value of a variable, or of a trigger's metadata, with its names replaced. `name` is the variable's own name, by which a bare word is known for a host.
    pub fn rewrite_value(&self, name: &str, value: &str) -> String {
        let upper = name.to_uppercase();
        let is_host = HOST_WORDS.iter().any(|word| upper.contains(word));
        self.rewrite(value, is_host)
    }

    /// A command's text with its names replaced: those with a port, a domain or a scheme.
    pub fn rewrite_text(&self, text: &str) -> String {
        self.rewrite(text, false)
    }

    fn rewrite(&self, text: &str, is_host: bool) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, word, domain, after)) = next_word(rest) {
            out.push_str(before);
            let follows_scheme = out.ends_with("//") || out.ends_with('@');
            let has_port = after.strip_prefix(':').is_some_and(|after| after.starts_with(|c: char| c.is_ascii_digit()));
            let is_known = self.names.get(word).filter(|_| {
                let has_domain = domain.contains(".svc");
                follows_scheme || has_port || has_domain || (is_host && domain.matches('.').count() < 2)
            });
            match is_known {
                Some(address) => {
                    out.push_str(&address.to_string());
                    if let Some(port) = self.ports.get(word).filter(|_| follows_scheme && !has_port) {
                        out.push_str(&format!(":{port}"));
                    }
                }
                None => {
                    out.push_str(word);
                    out.push_str(domain);
                }
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }

    /// Names of a value that only a cluster knows: those that nothing here stands for.
    pub fn unknown(&self, name: &str, value: &str) -> BTreeSet<String> {
        let upper = name.to_uppercase();
        let is_host = upper.ends_with("HOST") || upper.ends_with("HOSTNAME") || upper.ends_with("SERVERADDRESS");
        let mut found = BTreeSet::new();
        let mut rest = value;
        let mut before_all = String::new();
        while let Some((before, word, domain, after)) = next_word(rest) {
            before_all.push_str(before);
            let is_cluster = domain.contains(".svc");
            let is_bare = is_host && domain.is_empty() && value == word && word.parse::<f64>().is_err();
            if (is_cluster || is_bare) && word != "localhost" && !self.names.contains_key(word) {
                found.insert(word.to_owned());
            }
            rest = after;
        }
        found
    }
}

/// The next host-like word of a text: what is before it, the word, its domain, what follows.
fn next_word(text: &str) -> Option<(&str, &str, &str, &str)> {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let start = text.find(|c: char| c.is_ascii_alphanumeric())?;
    let from = &text[start..];
    let end = from.find(|c: char| !is_letter(c)).unwrap_or(from.len());
    let mut whole = end;
    // The domain: labels by dots.
    while let Some(next) = from[whole..].strip_prefix('.') {
        let label = next.find(|c: char| !is_letter(c)).unwrap_or(next.len());
        if label == 0 {
            break;
        }
        whole += 1 + label;
    }
    Some((&text[..start], &from[..end], &from[end..whole], &from[whole..]))
}

/// Ports that a text names behind one of these words.
pub fn ports_in(text: &str) -> BTreeSet<u16> {
    let mut found = BTreeSet::new();
    for part in text.split(':').skip(1) {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        found.extend(digits.parse::<u16>().ok().filter(|port| *port > 0));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        Hosts::new([
            ("db".to_owned(), Ipv4Addr::new(127, 49, 0, 1)),
            ("my-release-postgresql".to_owned(), Ipv4Addr::new(127, 49, 0, 2)),
        ])
    }

    #[test]
    fn a_name_is_replaced_where_it_is_a_host() {
        let hosts = hosts();
        assert_eq!(hosts.rewrite_value("PG_HOST", "my-release-postgresql"), "127.49.0.2");
        assert_eq!(
            hosts.rewrite_value("host", "my-release-postgresql.keda-with-postgresql.svc.cluster.local"),
            "127.49.0.2"
        );
        assert_eq!(
            hosts.rewrite_value("DATABASE", "postgres://u:p@db.prod:5432/db"),
            "postgres://u:p@127.49.0.1:5432/db"
        );
        assert_eq!(
            hosts.rewrite_text("wget -q http://db/health; echo db dbs xdb"),
            "wget -q http://127.49.0.1/health; echo db dbs xdb"
        );
        assert_eq!(hosts.rewrite_text("db:8000 --db=db"), "127.49.0.1:8000 --db=db");
        let hosts = hosts.with_ports([("db".to_owned(), 9090)]);
        assert_eq!(hosts.rewrite_value("serverAddress", "http://db.monitoring.svc"), "http://127.49.0.1:9090");
        assert_eq!(hosts.rewrite_value("serverAddress", "http://db:80/x"), "http://127.49.0.1:80/x");
        assert_eq!(hosts.rewrite_value("PG_HOST", "db"), "127.49.0.1");
        // A user is no host.
        assert_eq!(hosts.rewrite_value("PG_USERNAME", "db"), "db");
    }

    #[test]
    fn names_that_only_a_cluster_knows_are_told() {
        let hosts = hosts();
        assert_eq!(hosts.unknown("host", "other.ns.svc.cluster.local"), BTreeSet::from(["other".to_owned()]));
        assert_eq!(hosts.unknown("PG_HOST", "other"), BTreeSet::from(["other".to_owned()]));
        for (name, value) in [
            ("PG_HOST", "db"),
            ("PG_HOST", "localhost"),
            ("PG_HOST", "10.0.0.1"),
            ("PG_HOST", "example.com"),
            ("NAME", "other"),
        ] {
            assert_eq!(hosts.unknown(name, value), BTreeSet::new(), "{name}={value}");
        }
    }

    #[test]
    fn the_mapped_port_wins() {
        let mapped = MappedHost::new("db", "127.0.0.1:5433");
        assert_eq!(mapped.target_of(5432), Some(([127, 0, 0, 1], 5433).into()));
        assert_eq!(MappedHost::new("db", "127.0.0.1").target_of(5432), Some(([127, 0, 0, 1], 5432).into()));
        assert_eq!(ports_in("db:8000, x:9 y"), BTreeSet::from([9, 8000]));
    }
}
