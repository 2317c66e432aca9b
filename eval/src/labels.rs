//! Label sets: names and values of a series, sorted by name, cheap to clone.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
pub(crate) use tidemill_lang::promql::quote;

/// One name with its value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Label {
    /// The label's name.
    pub name: Arc<str>,
    /// The label's value, never empty inside [`Labels`].
    pub value: Arc<str>,
}

/// A set of labels, sorted by name, each name once, without empty values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Labels(Arc<[Label]>);

/// The name under which a metric's own name is kept.
pub const METRIC_NAME: &str = "__name__";

/// Changes a set of labels.
#[derive(Debug, Clone, Default)]
pub struct LabelsBuilder {
    labels: Vec<Label>,
}

impl Labels {
    /// The labels of `pairs`; of a name that occurs twice the last value stands, an empty value removes.
    pub fn of<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.build()
    }

    /// The value of `name`; empty where the set lacks it.
    pub fn get(&self, name: &str) -> &str {
        self.find(name).map_or("", |label| &label.value)
    }

    /// Whether the set has `name`.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The labels in order of their names.
    pub fn iter(&self) -> std::slice::Iter<'_, Label> {
        self.0.iter()
    }

    /// How many labels the set has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the set has no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Only the labels for whose name `keeps` holds.
    #[must_use]
    pub fn filtered(&self, keeps: impl Fn(&str) -> bool) -> Self {
        if self.0.iter().all(|label| keeps(&label.name)) {
            return self.clone();
        }
        Self(self.0.iter().filter(|label| keeps(&label.name)).cloned().collect())
    }

    /// Without the metric's name.
    #[must_use]
    pub fn without_name(&self) -> Self {
        self.filtered(|name| name != METRIC_NAME)
    }

    /// A builder that begins with these labels.
    pub fn builder(&self) -> LabelsBuilder {
        LabelsBuilder { labels: self.0.to_vec() }
    }

    fn find(&self, name: &str) -> Option<&Label> {
        self.0.binary_search_by(|label| (*label.name).cmp(name)).ok().map(|at| &self.0[at])
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = &'a Label;
    type IntoIter = std::slice::Iter<'a, Label>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl LabelsBuilder {
    /// Sets `name` to `value`; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.set_shared(&Arc::from(name), &Arc::from(value))
    }

    /// As [`Self::set`], for texts that are shared already.
    pub fn set_shared(&mut self, name: &Arc<str>, value: &Arc<str>) -> &mut Self {
        match self.labels.binary_search_by(|label| label.name.cmp(name)) {
            Ok(at) if value.is_empty() => drop(self.labels.remove(at)),
            Ok(at) => self.labels[at].value = Arc::clone(value),
            Err(_) if value.is_empty() => {}
            Err(at) => self.labels.insert(at, Label { name: Arc::clone(name), value: Arc::clone(value) }),
        }
        self
    }

    /// Removes `name`.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.labels.retain(|label| &*label.name != name);
        self
    }

    /// The labels.
    pub fn build(self) -> Labels {
        Labels(self.labels.into())
    }
}

impl fmt::Display for Labels {
    /// As PromQL writes a series: the metric's name before the braces, names that are no identifiers in quotes.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.get(METRIC_NAME);
        let is_plain_name = is_metric_name(name);
        if is_plain_name {
            formatter.write_str(name)?;
        }
        let quoted_name = (!name.is_empty() && !is_plain_name).then(|| quote(name));
        let others = self.iter().filter(|label| &*label.name != METRIC_NAME).map(|label| {
            let name = if is_label_name(&label.name) { label.name.to_string() } else { quote(&label.name) };
            format!("{name}={}", quote(&label.value))
        });
        let parts: Vec<String> = quoted_name.into_iter().chain(others).collect();
        if parts.is_empty() && is_plain_name { Ok(()) } else { write!(formatter, "{{{}}}", parts.join(", ")) }
    }
}

/// Whether `name` can be written as a metric without quotes.
fn is_metric_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

fn is_label_name(name: &str) -> bool {
    is_metric_name(name) && !name.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_sorted_unique_and_without_empty_values() {
        let labels = Labels::of([("b", "1"), ("a", "2"), ("b", "3"), ("c", "")]);
        let pairs: Vec<_> = labels.iter().map(|label| (&*label.name, &*label.value)).collect();
        assert_eq!(pairs, [("a", "2"), ("b", "3")]);
        assert_eq!((labels.get("b"), labels.get("c"), labels.has("c")), ("3", "", false));
        let mut builder = labels.builder();
        builder.remove("a").set("b", "").set("x", "y");
        assert_eq!(builder.build(), Labels::of([("x", "y")]));
    }

    #[test]
    fn series_are_written_as_promql_writes_them() {
        let text = |pairs: &[(&str, &str)]| Labels::of(pairs.iter().copied()).to_string();
        assert_eq!(text(&[]), "{}");
        assert_eq!(text(&[("__name__", "up")]), "up");
        assert_eq!(text(&[("__name__", "a:b"), ("x", "q\"\n")]), r#"a:b{x="q\"\n"}"#);
        assert_eq!(text(&[("__name__", "http.size"), ("x.y", "1")]), r#"{"http.size", "x.y"="1"}"#);
    }
}
