//! What no single key can know: keys that need each other, bounds, texts with a grammar of their own.

use std::net::IpAddr;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::Config;
use crate::open_bucket::parse_bucket_url;
use crate::telemetry::parse_headers;

/// Everything that is wrong with merged values, each with the origin of the key that has to change.
pub fn problems_between_keys(config: &Config) -> Vec<String> {
    let mut rules = Rules { config, problems: Vec::new() };
    rules.check_listeners();
    rules.check_pairs();
    rules.check_texts();
    rules.check_times();
    rules.check_sizes();
    rules.problems
}

struct Rules<'a> {
    config: &'a Config,
    problems: Vec<String>,
}

impl Rules<'_> {
    fn add(&mut self, name: &str, problem: impl std::fmt::Display) {
        self.problems.push(format!("{}: {name}: {problem}", self.config.settings.get(name).origin));
    }

    fn check_listeners(&mut self) {
        let config = self.config;
        let address = config.settings.text("listen.address");
        match address.parse::<IpAddr>() {
            Err(_) => self.add("listen.address", format!("{address:?} is no IP address, such as 127.0.0.1 or 0.0.0.0")),
            Ok(address) if !config.flag("auth.enabled") && !address.is_loopback() => self.add(
                "auth.enabled",
                format!("may be false only on a loopback address, and listen.address is {address}"),
            ),
            Ok(_) => {}
        }
        let ports = ["listen.grpc_port", "listen.http_port", "listen.api_port"].map(|name| config.port(name));
        if ports.iter().enumerate().any(|(place, port)| *port != 0 && ports[..place].contains(port)) {
            self.add("listen.api_port", format!("the three ports must differ; they are {ports:?}"));
        }
    }

    /// Keys that mean something only together, or only under another one.
    fn check_pairs(&mut self) {
        let config = self.config;
        for (one, other) in [
            ("tls.cert", "tls.key"),
            ("storage.access_key_id", "storage.secret_access_key"),
            ("notify.pubsub_audience", "notify.pubsub_service_account"),
        ] {
            if config.optional(one).is_some() != config.optional(other).is_some() {
                let named = if config.optional(one).is_some() { one } else { other };
                self.add(named, format!("{one} and {other} belong together: set both or none"));
            }
        }
        let of_url = ["region", "endpoint", "role", "access_key_id"].map(|name| format!("storage.{name}"));
        let of_metastore = ["listen_url", "root_certificates"].map(|name| format!("metastore.{name}"));
        for (above, below) in [("storage.url", of_url.as_slice()), ("metastore.url", of_metastore.as_slice())] {
            for name in below.iter().filter(|name| config.optional(above).is_none() && config.optional(name).is_some())
            {
                self.add(name, format!("means nothing without {above}, which is unset"));
            }
        }
    }

    fn check_texts(&mut self) {
        let config = self.config;
        if let Some(url) = config.optional("storage.url")
            && let Err(problem) = parse_bucket_url(url)
        {
            self.add("storage.url", problem);
        }
        for name in ["metastore.url", "metastore.listen_url"] {
            // As the driver reads it; what is wrong in detail, it says when it connects.
            let is_address = |dsn: &str| match dsn.split_once("://") {
                Some((scheme, _)) => ["postgres", "postgresql"].contains(&scheme),
                None => dsn.contains('='),
            };
            if config.optional(name).is_some_and(|dsn| !is_address(dsn)) {
                self.add(name, "is no address of PostgreSQL, such as postgres://user:password@host/database");
            }
        }
        for name in ["storage.endpoint", "notify.sqs_endpoint", "notify.sns_endpoint", "telemetry.otlp_export"] {
            if let Some(url) = config.optional(name)
                && !is_web_address(url)
            {
                self.add(name, "is no http:// or https:// URL, such as http://127.0.0.1:9000");
            }
        }
        if let Err(problem) = parse_headers(config.settings.text("telemetry.otlp_headers")) {
            self.add("telemetry.otlp_headers", problem);
        }
        let level = config.settings.text("log.level");
        if let Err(error) = EnvFilter::try_new(level) {
            self.add("log.level", format!("{level:?}: {error}; as info, or info,tidemill_lake=debug"));
        }
    }

    fn check_times(&mut self) {
        let config = self.config;
        let timeout = config.duration("query.timeout");
        if timeout > Duration::from_secs(25 * 60) {
            self.add("query.timeout", "at most 25m: replaced objects are deleted 30m after they were replaced");
        } else if timeout > config.duration("sweep.replaced_grace") {
            self.add(
                "sweep.replaced_grace",
                "must not be shorter than query.timeout: objects of running queries would go",
            );
        }
        for name in ["query.timeout", "worker.lease", "sweep.interval", "sweep.full_interval"] {
            if config.duration(name).is_zero() {
                self.add(name, "must be more than nothing");
            }
        }
        // Beyond it, adding to a time in nanoseconds could overflow.
        let longest = Duration::from_secs(100 * 365 * 86_400);
        for name in super::KEYS.iter().filter(|key| matches!(key.kind, super::Kind::Duration)).map(|key| key.name) {
            if config.duration(name) > longest {
                self.add(name, "at most 36500d");
            }
        }
    }

    fn check_sizes(&mut self) {
        let config = self.config;
        for (name, least, most) in [
            ("worker.count", 1, 1024),
            ("query.concurrency", 1, 1024),
            ("listen.max_connections", 1, 1 << 20),
            ("metastore.connections", 1, 10_000),
            ("notify.sqs_pollers", 1, 64),
            ("runtime.threads", 0, 1024),
        ] {
            let count = config.count(name);
            if !(least..=most).contains(&count) {
                self.add(name, format!("{count} is not from {least} to {most}"));
            }
        }
        for name in
            ["receive.group_bytes", "receive.max_request", "worker.memory", "worker.bundle_bytes", "query.memory"]
        {
            if config.bytes(name) == 0 {
                self.add(name, "must be more than nothing");
            }
        }
        let (request, memory) = (config.bytes("receive.max_request"), config.bytes("receive.memory"));
        if memory < request {
            self.add("receive.memory", "must not be less than receive.max_request, of which it holds at least one");
        }
    }
}

fn is_web_address(url: &str) -> bool {
    reqwest::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;
    use crate::error::Result;

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

    /// What is wrong by itself and what is wrong between keys are one list.
    #[test]
    fn all_problems_are_told_together() {
        let flags = [
            ("listen.adress", "::1"),
            ("worker.lease", "soon"),
            ("tls.cert", "a.pem"),
            ("query.timeout", "26m"),
            ("listen.grpc_port", "8080"),
            ("worker.count", "0"),
            ("storage.url", "lake"),
            ("storage.secret_access_key", "hunter2"),
            ("metastore.listen_url", "mysql://mill:hunter2@db/mill"),
            ("telemetry.otlp_export", "collector:4318"),
            ("telemetry.otlp_headers", "hunter2"),
            ("log.level", "loud=3=4"),
            ("receive.memory", "1MiB"),
            ("sweep.full_interval", "0s"),
        ];
        let error = merged(&flags).expect_err("is refused").to_string();
        for word in [
            "nearest is listen.address",
            "\"soon\"",
            "tls.key",
            "25m",
            "must differ",
            "0 is not from 1",
            "s3://bucket",
            "storage.access_key_id and",
            "means nothing without metastore.url",
            "metastore.listen_url: is no address of PostgreSQL",
            "telemetry.otlp_export: is no http://",
            "name=value",
            "log.level",
            "receive.max_request",
            "sweep.full_interval",
            "15 problems",
        ] {
            assert!(error.contains(word), "{word}: {error}");
        }
        assert!(!error.contains("hunter2"), "a secret is told: {error}");
    }

    #[test]
    fn a_query_ends_before_the_objects_that_it_reads_are_deleted() {
        assert!(merged(&[("sweep.replaced_grace", "2m")]).is_ok());
        let error = merged(&[("sweep.replaced_grace", "1m")]).expect_err("is refused").to_string();
        assert!(error.contains("query.timeout"), "{error}");
    }
}
