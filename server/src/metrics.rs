//! This process's own numbers, as Prometheus text. Names are `tidemill_<subsystem>_<thing>_<unit>[_total]`; labels are bounded.
//!
//! Start with [`Exposition`]: a scrape collects numbers from where they live and writes them; nothing is counted twice.

use std::fmt::Write as _;

/// One scrape being written.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    last: String,
}

impl Exposition {
    /// Adds one sample of a number that only grows.
    pub fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.sample(name, "counter", help, labels, value);
    }

    /// Adds one sample of a number that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.sample(name, "gauge", help, labels, value);
    }

    /// Adds a histogram: its buckets (upper bound, how many are at or below it), all it counted, and their sum.
    pub fn histogram(&mut self, name: &str, help: &str, buckets: &[(f64, u64)], count: u64, sum: f64) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (bound, at_most) in buckets {
            let _ = writeln!(self.text, "{name}_bucket{{le=\"{bound}\"}} {at_most}");
        }
        let _ = writeln!(self.text, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}");
    }

    /// The scrape's text. Samples of one name must have been added together.
    pub fn finish(self) -> String {
        self.text
    }

    fn sample(&mut self, name: &str, kind: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        if self.last != name {
            self.last = name.to_owned();
            let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        self.text.push_str(name);
        if !labels.is_empty() {
            let labels: Vec<String> =
                labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
            let _ = write!(self.text, "{{{}}}", labels.join(","));
        }
        let _ = writeln!(self.text, " {value}");
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_ends_with_all_it_counted() {
        let mut exposition = Exposition::default();
        exposition.histogram("tidemill_x_seconds", "Help.", &[(0.5, 1), (2.0, 3)], 4, 9.5);
        let lines: Vec<String> = exposition.finish().lines().skip(1).map(str::to_owned).collect();
        let expected = [
            "# TYPE tidemill_x_seconds histogram",
            "tidemill_x_seconds_bucket{le=\"0.5\"} 1",
            "tidemill_x_seconds_bucket{le=\"2\"} 3",
            "tidemill_x_seconds_bucket{le=\"+Inf\"} 4",
            "tidemill_x_seconds_sum 9.5",
            "tidemill_x_seconds_count 4",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn samples_of_one_name_share_their_head() {
        let mut exposition = Exposition::default();
        exposition.gauge("tidemill_queue_runnable_items", "Claimable now.", &[("queue", "ingest \"logs\"")], 2.0);
        exposition.gauge("tidemill_queue_runnable_items", "Claimable now.", &[("queue", "b")], 0.5);
        assert_eq!(
            exposition.finish(),
            "# HELP tidemill_queue_runnable_items Claimable now.\n# TYPE tidemill_queue_runnable_items gauge\n\
             tidemill_queue_runnable_items{queue=\"ingest \\\"logs\\\"\"} 2\ntidemill_queue_runnable_items{queue=\"b\"} 0.5\n"
        );
    }
}
