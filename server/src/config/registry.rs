//! The one table of configuration keys. `docs/config.md` is written from it; a key that is not here does not exist.

/// What a key's text must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text; empty means unset.
    Text,
    /// Text that is never shown.
    Secret,
    /// A URL that may hold a password, which is never shown.
    SecretUrl,
    /// A path on this machine; empty means unset.
    Path,
    /// 0 to 65535; 0 lets the system choose.
    Port,
    /// A whole number.
    Count,
    /// A size such as `64MiB`.
    Bytes,
    /// A duration such as `20ms`, `30s`, `7d`.
    Duration,
    /// `true` or `false`.
    Flag,
    /// A number from 0 to 1.
    Ratio,
    /// A comma-separated list of any texts.
    List,
    /// A comma-separated list out of these.
    Choices(&'static [&'static str]),
    /// One of these.
    Choice(&'static [&'static str]),
}

impl Kind {
    /// How the documentation and error messages name it.
    pub fn describe(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Secret => "text (secret)".to_owned(),
            Self::SecretUrl => "URL (secret)".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Port => "port, 0 to 65535 (0: any free one)".to_owned(),
            Self::Count => "whole number".to_owned(),
            Self::Bytes => "size, as 64MiB or 2GB".to_owned(),
            Self::Duration => "duration, as 20ms, 30s, 5m, 1h or 7d".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Ratio => "number from 0 to 1".to_owned(),
            Self::List => "comma-separated list".to_owned(),
            Self::Choices(choices) => format!("comma-separated list of {}", choices.join(", ")),
            Self::Choice(choices) => format!("one of {}", choices.join(", ")),
        }
    }

    /// Whether it takes several values.
    pub fn is_list(self) -> bool {
        matches!(self, Self::List | Self::Choices(_))
    }
}

/// One configuration key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Dotted name, as `listen.grpc_port`.
    pub name: &'static str,
    /// What its text must look like.
    pub kind: Kind,
    /// The text used when nothing sets it.
    pub default: &'static str,
    /// What it decides, one sentence.
    pub help: &'static str,
}

impl Key {
    /// The environment variable that sets it: `TIDEMILL_LISTEN_GRPC_PORT`.
    pub fn environment(&self) -> String {
        format!("TIDEMILL_{}", self.name.replace('.', "_").to_uppercase())
    }
}

/// Environment variables that start with `TIDEMILL_` and are no configuration keys.
pub const OTHER_ENVIRONMENT: &[&str] = &[
    "TIDEMILL_CONFIG",
    "TIDEMILL_URL",
    "TIDEMILL_API_KEY",
    "TIDEMILL_CRASH_AT",
    "TIDEMILL_STOP_AT",
    "TIDEMILL_FLEET_USAGE",
    "TIDEMILL_CACHE",
    "TIDEMILL_PYTHON",
    "TIDEMILL_REWRITE",
];

/// Variables with this prefix belong to the tests.
pub const TEST_ENVIRONMENT_PREFIX: &str = "TIDEMILL_TEST_";

const SIGNALS: &[&str] = &["logs", "metrics", "traces"];
const ACTIONS: &[&str] = &["ingest", "compact", "rollup"];

const fn key(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Key {
    Key { name, kind, default, help }
}

/// Every key, in the order of the documentation.
pub const KEYS: &[Key] = &[
    key(
        "data_dir",
        Kind::Path,
        "./tidemill-data",
        "The folder of the embedded metastore, the folder store, spool files and ports.json.",
    ),
    key(
        "metastore.url",
        Kind::SecretUrl,
        "",
        "A PostgreSQL DSN (`postgres://user:password@host/database`); unset: SQLite in the data folder.",
    ),
    key(
        "metastore.listen_url",
        Kind::SecretUrl,
        "",
        "A DSN for LISTEN where `metastore.url` goes through a pooler; unset: `metastore.url`.",
    ),
    key(
        "metastore.root_certificates",
        Kind::Path,
        "",
        "PEM certificates trusted with `sslmode=verify-full`, in place of the system's.",
    ),
    key("metastore.connections", Kind::Count, "16", "At most this many connections to PostgreSQL."),
    key(
        "storage.url",
        Kind::Text,
        "",
        "Where segments go: `s3://bucket`, `gs://bucket`, `az://account/container`; unset: the folder `objects` in the data folder.",
    ),
    key("storage.region", Kind::Text, "", "The bucket's region; unset: the environment's."),
    key("storage.endpoint", Kind::Text, "", "An S3-compatible endpoint such as `http://127.0.0.1:9000`."),
    key(
        "storage.path_style",
        Kind::Flag,
        "false",
        "Address buckets as `endpoint/bucket` instead of `bucket.endpoint`.",
    ),
    key("storage.insecure_tls", Kind::Flag, "false", "Accept any certificate from the endpoint."),
    key("storage.role", Kind::Text, "", "An AWS role to assume for the bucket."),
    key(
        "storage.timeout",
        Kind::Duration,
        "2m",
        "A request to the bucket that takes longer has failed and is tried again; one moves up to 16 MiB.",
    ),
    key(
        "storage.access_key_id",
        Kind::Text,
        "",
        "Access key id or Azure account; unset: the environment's credentials.",
    ),
    key("storage.secret_access_key", Kind::Secret, "", "The secret that belongs to `storage.access_key_id`."),
    key(
        "storage.profiles",
        Kind::Text,
        "",
        "Storage profiles YAML: a file, or `env:NAME`; unset: those imported into the metastore.",
    ),
    key(
        "storage.disk_budget",
        Kind::Bytes,
        "0",
        "Embedded storage refuses ingest (429) beyond this; 0: until the disk is nearly full.",
    ),
    key("listen.address", Kind::Text, "127.0.0.1", "The address that every listener binds."),
    key("listen.grpc_port", Kind::Port, "4317", "OTLP over gRPC."),
    key("listen.http_port", Kind::Port, "4318", "OTLP over HTTP."),
    key(
        "listen.api_port",
        Kind::Port,
        "8080",
        "The APIs of Prometheus, Loki and Tempo, SQL, administration, health, metrics and notifications.",
    ),
    key("listen.max_connections", Kind::Count, "4096", "At most this many open connections on each listener."),
    key(
        "tls.cert",
        Kind::Path,
        "",
        "PEM certificate chain for every listener; reloaded when it changes. Commands on this machine trust it as it is.",
    ),
    key("tls.key", Kind::Path, "", "PEM private key that belongs to `tls.cert`."),
    key("auth.enabled", Kind::Flag, "true", "Ask for an API key. Off only on a loopback address."),
    key("auth.keys", Kind::Text, "", "API keys YAML: a file, or `env:NAME`; unset: those in the metastore only."),
    key("auth.cache", Kind::Duration, "2s", "How long a key is believed before the metastore is asked again."),
    key("receive.group_wait", Kind::Duration, "20ms", "Pushed requests gather at most this long into one raw object."),
    key("receive.group_bytes", Kind::Bytes, "8MiB", "Pushed requests gather up to this size into one raw object."),
    key("receive.max_request", Kind::Bytes, "64MiB", "A pushed request, decompressed, is refused beyond this size."),
    key(
        "receive.memory",
        Kind::Bytes,
        "128MiB",
        "Requests in flight hold at most this much memory; beyond it senders are told to slow down.",
    ),
    key("notify.watch", Kind::List, "", "Folders to watch; files named like object keys are ingested."),
    key("notify.sqs_queue_url", Kind::Text, "", "An SQS queue with S3 events to poll."),
    key("notify.sqs_region", Kind::Text, "", "The queue's region; unset: from its URL."),
    key("notify.sqs_role", Kind::Text, "", "An AWS role to assume for the queue."),
    key(
        "notify.sqs_endpoint",
        Kind::Text,
        "",
        "Where SQS and STS are asked when not at Amazon's own addresses, as `http://127.0.0.1:4566`.",
    ),
    key("notify.sqs_pollers", Kind::Count, "2", "Long polls of the queue at the same time, 1 to 64."),
    key(
        "notify.pubsub_audience",
        Kind::Text,
        "",
        "The audience that Pub/Sub push tokens must carry; unset: such envelopes need an API key.",
    ),
    key(
        "notify.pubsub_service_account",
        Kind::Text,
        "",
        "The service account e-mail that Pub/Sub push tokens must carry.",
    ),
    key(
        "notify.pubsub_keys_url",
        Kind::Text,
        "https://www.googleapis.com/oauth2/v3/certs",
        "Where the keys that sign Pub/Sub push tokens are found.",
    ),
    key(
        "notify.pubsub_keys_file",
        Kind::Path,
        "",
        "A file with those keys (a JSON Web Key Set), in place of `notify.pubsub_keys_url`.",
    ),
    key(
        "notify.sns_endpoint",
        Kind::Text,
        "",
        "The address of an SNS that is not Amazon's, whose confirmations are followed too.",
    ),
    key("worker.signals", Kind::Choices(SIGNALS), "logs,metrics,traces", "Signals that workers serve."),
    key("worker.actions", Kind::Choices(ACTIONS), "ingest,compact,rollup", "Actions that workers perform."),
    key("worker.count", Kind::Count, "2", "Bundles worked on at the same time."),
    key("worker.memory", Kind::Bytes, "64MiB", "Memory for encoding one bundle before it spills to the data folder."),
    key("worker.bundle_bytes", Kind::Bytes, "64MiB", "An ingest bundle takes inputs up to this size together."),
    key(
        "worker.lease",
        Kind::Duration,
        "60s",
        "A claim lasts this long unless extended; a worker that dies is noticed after it.",
    ),
    key(
        "worker.promote",
        Kind::List,
        "",
        "Attribute keys that always get a column of their own, before the frequent ones.",
    ),
    key(
        "query.memory",
        Kind::Bytes,
        "512MiB",
        "One query sorts, joins and groups in this much memory, and spills to the data folder beyond it.",
    ),
    key(
        "query.timeout",
        Kind::Duration,
        "2m",
        "A query is stopped after this long. At most 25m, below the grace of replaced objects.",
    ),
    key(
        "query.concurrency",
        Kind::Count,
        "10",
        "Queries that run at the same time, of one organization three quarters of them at most; others are told to come again.",
    ),
    key("query.cache", Kind::Bytes, "64MiB", "Memory for footers, indexes and hot ranges."),
    key(
        "query.matches_cache",
        Kind::Bytes,
        "64MiB",
        "Memory for which log records met a condition on their text, a bit each, so that the next query need not read the texts again.",
    ),
    key(
        "query.lines_cache",
        Kind::Bytes,
        "128MiB",
        "Memory for the log lines that met a condition on their text, where these are few of their row group, so that the next query need not \
         decompress the others again.",
    ),
    key(
        "query.streams_cache",
        Kind::Bytes,
        "32MiB",
        "Memory for the stream tables of compacted logs, which tell how many lines each stream has, so that LogQL need not read rows to count them or to list streams.",
    ),
    key(
        "logql.max_lines",
        Kind::Count,
        "5000",
        "The most lines that a LogQL query may ask for as its `limit`; they are held in memory until they are sent.",
    ),
    key("promql.series_cache", Kind::Bytes, "64MiB", "Memory for the series of segments, as PromQL names them."),
    key(
        "promql.points_cache",
        Kind::Bytes,
        "256MiB",
        "Memory for decoded points of metrics, those of whole row groups.",
    ),
    key(
        "promql.promote",
        Kind::List,
        "service.*,k8s.*",
        "Resource attributes that are labels of every series in PromQL; `*` at the end stands for anything.",
    ),
    key("promql.lookback", Kind::Duration, "5m", "How long a sample stays current in PromQL."),
    key("promql.max_series", Kind::Count, "500000", "A selector of PromQL meets at most this many series."),
    key(
        "promql.max_samples",
        Kind::Count,
        "50000000",
        "A query of PromQL reads, and holds, at most this many samples.",
    ),
    key(
        "promql.memory",
        Kind::Bytes,
        "1GiB",
        "Memory for the samples and values of a query of PromQL; a query that needs more is refused.",
    ),
    key("promql.max_bytes", Kind::Bytes, "8GiB", "A query of PromQL reads at most this much of the bucket."),
    key("promql.concurrency", Kind::Count, "20", "Queries of PromQL of one organization that run at the same time."),
    key("sweep.interval", Kind::Duration, "30s", "How often objects whose grace is over are deleted."),
    key("sweep.full_interval", Kind::Duration, "1h", "How often retention, orphans and old rows are looked at."),
    key(
        "sweep.replaced_grace",
        Kind::Duration,
        "30m",
        "A replaced segment keeps its object this long; longer than any query.",
    ),
    key(
        "sweep.raw_grace",
        Kind::Duration,
        "10m",
        "The raw object of pushed requests is kept this long after its publication.",
    ),
    key(
        "fleet.enabled",
        Kind::Flag,
        "true",
        "`tidemill up` runs a fleet: objects that are applied, and replicas as processes of this host.",
    ),
    key("fleet.sync_period", Kind::Duration, "15s", "How often a horizontal autoscaler looks."),
    key(
        "fleet.source_timeout",
        Kind::Duration,
        "3s",
        "A look at what a trigger names fails after this long; its own `timeout` replaces it.",
    ),
    key(
        "roles.values",
        Kind::Path,
        "",
        "Values of Lakerunner's chart: `up` then runs its workers as workloads of the fleet, scaled by `global.autoscaling.mode`, the overrides for each component and their keys.",
    ),
    key(
        "roles.autoscaling",
        Kind::Choice(&["none", "hpa", "keda", "disabled", "native"]),
        "none",
        "In place of `global.autoscaling.mode`; without roles.values the chart's defaults hold. none: what the values say, and without values `up` performs the work itself.",
    ),
    key(
        "fleet.prometheus_url",
        Kind::SecretUrl,
        "",
        "Who answers the queries of prometheus-adapter's rules and the history of vertical autoscalers; empty: this lake, as fleet.organization.",
    ),
    key(
        "fleet.keep_replicas",
        Kind::Flag,
        "false",
        "Leave replicas running when the server stops; the next start goes on with them. They outlive a killed server in any case.",
    ),
    key(
        "fleet.organization",
        Kind::Text,
        "default",
        "What replicas print and use goes to the organization of this name; empty: nowhere.",
    ),
    key(
        "shutdown.grace",
        Kind::Duration,
        "20s",
        "After SIGTERM, work in flight has this long before the process ends.",
    ),
    key(
        "telemetry.otlp_export",
        Kind::SecretUrl,
        "",
        "Send this process's own traces, logs and metrics to this OTLP/HTTP base URL.",
    ),
    key("telemetry.otlp_headers", Kind::Secret, "", "Headers for that export, as `authorization=Bearer …`."),
    key("telemetry.sample", Kind::Ratio, "0.05", "The share of traces that is exported."),
    key("log.level", Kind::Text, "info", "A level or a filter such as `info,tidemill_lake=debug`."),
    key("log.format", Kind::Choice(&["text", "json"]), "text", "How log lines are written to stderr."),
    key("runtime.threads", Kind::Count, "0", "Threads for network work; 0: one per core, at most 8."),
];

/// The key called `name`.
pub fn find_key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_and_variables_are_unique() {
        let names: HashSet<_> = KEYS.iter().map(|key| key.name).collect();
        let variables: HashSet<_> = KEYS.iter().map(Key::environment).collect();
        assert_eq!(names.len(), KEYS.len());
        assert_eq!(variables.len(), KEYS.len());
        assert!(OTHER_ENVIRONMENT.iter().all(|name| !variables.contains(*name)));
    }

    /// A key that the code asks for and the registry does not have would end the process when it is asked for.
    #[test]
    fn every_key_that_the_code_names_exists() {
        let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        let mut named = HashSet::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("is readable") {
                let path = entry.expect("is readable").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|it| it == "rs") {
                    let text = std::fs::read_to_string(&path).expect("is readable");
                    for call in [
                        "optional(",
                        "path(",
                        "flag(",
                        "port(",
                        "count(",
                        "bytes(",
                        "duration(",
                        "ratio(",
                        "list(",
                        "text(",
                        "masked(",
                    ] {
                        let call = format!(".{call}\"");
                        let asked = text.split(&call).skip(1).filter_map(|rest| rest.split_once('"'));
                        named.extend(asked.map(|(name, _)| name.to_owned()).filter(|name| name.contains('.')));
                    }
                }
            }
        }
        assert!(named.len() > 30, "the test looks in the wrong place");
        let missing: Vec<&String> = named.iter().filter(|name| find_key(name).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
