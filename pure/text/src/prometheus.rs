//! Names as Prometheus writes them: how OpenTelemetry's metrics and attributes are called in PromQL.
//!
//! The rules are those by which Prometheus's OTLP receiver translates by default (`UnderscoreEscapingWithSuffixes`; OpenTelemetry,
//! "Prometheus and OpenMetrics Compatibility", sections Metric Metadata and Metric Attributes). Start with [`metric_name`].

/// The instrumentation scope of series that came by Prometheus's remote write. Their labels are the attributes of the point, exactly;
/// nothing of them is translated.
pub const REMOTE_WRITE_SCOPE: &str = "prometheus/remote-write";

/// The bit of a point's flags that says that its counts are the bits of doubles: native histograms of remote write that were computed.
pub const FLOAT_COUNTS_FLAG: u32 = 1 << 31;

/// Where in a point's flags the reset hint of a native histogram of remote write stands: two bits, as in its protocol.
pub const RESET_HINT_SHIFT: u32 = 29;

/// What a metric is, as far as its name in PromQL depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricShape {
    /// A value that goes up and down.
    Gauge,
    /// A sum that never falls: its name ends in `_total`.
    Counter,
    /// Any other.
    Other,
}

/// The units that have a name, by their UCUM code.
const UNITS: [(&str, &str); 27] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
    ("KHz", "KHz"),
];

/// The units behind a slash that have a name.
const PER_UNITS: [(&str, &str); 7] =
    [("s", "second"), ("m", "minute"), ("h", "hour"), ("d", "day"), ("w", "week"), ("mo", "month"), ("y", "year")];

/// The name of a metric in PromQL: what may not stand in a name is one underscore, the unit and `total` or `ratio` are at its end.
pub fn metric_name(name: &str, unit: &str, shape: MetricShape) -> String {
    let mut tokens: Vec<String> =
        name.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == ':')).map(str::to_owned).collect();
    tokens.retain(|token| !token.is_empty());
    let (main, per) = unit_names(unit);
    let main = Some(main).filter(|main| !main.is_empty() && !tokens.contains(main));
    let per = Some(per).filter(|per| !per.is_empty() && !tokens.contains(per));
    tokens.extend(main);
    if let Some(per) = per {
        tokens.extend(["per".to_owned(), per]);
    }
    let mut ends_with = |word: &str| {
        tokens.retain(|token| token != word);
        tokens.push(word.to_owned());
    };
    match shape {
        MetricShape::Counter => ends_with("total"),
        MetricShape::Gauge if unit == "1" => ends_with("ratio"),
        MetricShape::Gauge | MetricShape::Other => {}
    }
    let name = tokens.join("_");
    if name.starts_with(|letter: char| letter.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// The names of a unit before and behind its slash; empty where it has none. What is in braces is a remark.
fn unit_names(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let named = |code: &str, known: &[(&str, &str)]| {
        let code = code.trim();
        if code.is_empty() || code.contains(['{', '}']) {
            return String::new();
        }
        let name = known.iter().find(|(known, _)| *known == code).map_or(code, |(_, name)| *name);
        let parts = name.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("_")
    };
    (named(main, &UNITS), named(per, &PER_UNITS))
}

/// The name of an attribute as a label: what may not stand in a label's name is an underscore.
pub fn label_name(key: &str) -> String {
    let name: String =
        key.chars().map(|letter| if letter.is_ascii_alphanumeric() || letter == '_' { letter } else { '_' }).collect();
    if name.starts_with(|letter: char| letter.is_ascii_digit()) {
        return format!("key_{name}");
    }
    if name.starts_with('_') && !name.starts_with("__") { format!("key{name}") } else { name }
}

/// Whether a label can be named without quotes.
pub fn is_plain_label(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|letter: char| letter.is_ascii_digit())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_named_as_prometheus_names_them() {
        use MetricShape::{Counter, Gauge, Other};
        // Cases of the translator that Prometheus uses.
        for (name, unit, shape, expected) in [
            ("system.io", "foo/bar", Counter, "system_io_foo_per_bar_total"),
            ("network.transmitted", "By/s", Gauge, "network_transmitted_bytes_per_second"),
            ("system.filesystem.usage", "GiBy", Gauge, "system_filesystem_usage_gibibytes"),
            ("2xx.requests", "1", Counter, "_2xx_requests_total"),
            ("system.cpu.utilization", "1", Gauge, "system_cpu_utilization_ratio"),
            ("system.disk.dropped", "1", Counter, "system_disk_dropped_total"),
            ("queue.size", "{messages}", Gauge, "queue_size"),
            ("http.server.duration", "ms", Other, "http_server_duration_milliseconds"),
            ("process_cpu_seconds_total", "s", Counter, "process_cpu_seconds_total"),
            ("total.requests", "", Counter, "requests_total"),
            ("a__b", "", Gauge, "a_b"),
            ("broken metric speed", "km/h", Gauge, "broken_metric_speed_km_per_hour"),
            ("unsupported.metric.temperature", "°F", Gauge, "unsupported_metric_temperature_F"),
            ("metric.active.{some}", "1", Other, "metric_active_some"),
            ("rule:name.x", "%", Gauge, "rule:name_x_percent"),
        ] {
            assert_eq!(metric_name(name, unit, shape), expected, "{name} {unit}");
        }
    }

    #[test]
    fn labels_are_named_as_prometheus_names_them() {
        for (key, expected) in [
            ("http.method", "http_method"),
            ("0abc", "key_0abc"),
            ("_private", "key_private"),
            ("__reserved", "__reserved"),
            ("a..b", "a__b"),
            ("straße", "stra_e"),
        ] {
            assert_eq!(label_name(key), expected);
        }
        assert!(is_plain_label("a_b1") && !is_plain_label("a.b") && !is_plain_label("1a"));
    }
}
