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
