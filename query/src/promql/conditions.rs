//! The conditions of a selector, divided by where they are decided.

use tidemill_eval::{METRIC_NAME, Matcher};

use super::series::TARGET_INFO;

/// The conditions of a selector.
#[derive(Debug, Clone)]
pub(super) struct Conditions {
    /// On the name.
    pub(super) names: Vec<Matcher>,
    /// On `le` and `quantile`, which the points of histograms and summaries tell.
    made: Vec<Matcher>,
    /// On other labels.
    pub(super) others: Vec<Matcher>,
}

impl Conditions {
    pub(super) fn new(matchers: &[Matcher]) -> Self {
        let mut all = Self { names: Vec::new(), made: Vec::new(), others: Vec::new() };
        for matcher in matchers {
            let list = match matcher.name.as_str() {
                METRIC_NAME => &mut all.names,
                "le" | "quantile" => &mut all.made,
                _ => &mut all.others,
            };
            list.push(matcher.clone());
        }
        all
    }

    /// Those on a label that points tell.
    pub(super) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Matcher> {
        self.made.iter().filter(move |matcher| matcher.name == name)
    }

    /// Whether the info series of a resource can meet them.
    pub(super) fn may_be_info(&self) -> bool {
        self.names.iter().all(|matcher| matcher.meets(TARGET_INFO))
    }

    /// Those on labels.
    pub(super) fn all(&self) -> impl Iterator<Item = &Matcher> {
        self.made.iter().chain(&self.others)
    }
}
