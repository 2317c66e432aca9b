//! The labels of one line while it passes a pipeline, and of a series afterwards.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The label that names what went wrong with a line.
pub(super) const ERROR: &str = "__error__";
/// The label that tells it in words.
pub(super) const ERROR_DETAILS: &str = "__error_details__";

/// Labels of a series or of a result's stream, sorted by name. Unlike a stream's own, they may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LabelSet(Vec<(String, String)>);

impl LabelSet {
    /// The labels of `pairs`; of a name that occurs twice the last value stands.
    pub fn of<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut set = Self::default();
        for (name, value) in pairs {
            set.set(name.into(), value.into());
        }
        set
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.find(name).ok().map(|at| self.0[at].1.as_str())
    }

    /// Sets `name` to `value`.
    pub fn set(&mut self, name: String, value: String) {
        match self.find(&name) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (name, value)),
        }
    }

    /// Removes `name`.
    pub fn remove(&mut self, name: &str) {
        if let Ok(at) = self.find(name) {
            self.0.remove(at);
        }
    }

    /// Only the labels for whose name `keeps` holds.
    #[must_use]
    pub fn filtered(&self, keeps: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(name, _)| keeps(name)).cloned().collect())
    }

    /// Names and values in order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether it has no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(own, _)| own.as_str().cmp(name))
    }
}

/// Where a label comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The stream.
    Stream,
    /// Structured metadata.
    Metadata,
    /// A parser or formatter.
    Parsed,
}

/// One label of a line.
#[derive(Debug, Clone)]
pub(super) struct RowLabel<'a> {
    pub name: Cow<'a, str>,
    pub value: Cow<'a, str>,
    pub origin: Origin,
}

/// The labels of one line.
#[derive(Debug, Clone, Default)]
pub(super) struct RowLabels<'a> {
    labels: Vec<RowLabel<'a>>,
    /// The names that the line had before its pipeline.
    base: Vec<&'a str>,
    /// Labels that a stage removed and that are not the stream's: label filters and `unwrap` find them still, as they do in Loki.
    dropped: Vec<RowLabel<'a>>,
    error: Option<(&'static str, String)>,
    details_only: Option<String>,
}

impl<'a> RowLabels<'a> {
    /// Forgets the line before.
    pub fn clear(&mut self) {
        self.labels.clear();
        self.base.clear();
        self.dropped.clear();
        self.error = None;
        self.details_only = None;
    }

    /// Adds a label that the line has before its pipeline.
    pub fn push_base(&mut self, name: &'a str, value: &'a str, origin: Origin) {
        self.base.push(name);
        self.labels.push(RowLabel { name: Cow::Borrowed(name), value: Cow::Borrowed(value), origin });
    }

    /// The value of `name`, of the error's labels too.
    pub fn get(&self, name: &str) -> Option<&str> {
        match name {
            ERROR => self.error.as_ref().map(|(error, _)| *error),
            ERROR_DETAILS => self.details(),
            _ => self.labels.iter().find(|label| label.name == name).map(|label| &*label.value),
        }
    }

    /// As [`Self::get`]; where a stage has removed the label, its last value, unless it was the stream's.
    pub fn get_or_dropped(&self, name: &str) -> Option<&str> {
        let dropped = || self.dropped.iter().rev().find(|label| label.name == name).map(|label| &*label.value);
        self.get(name).or_else(dropped)
    }

    fn details(&self) -> Option<&str> {
        self.error.as_ref().map(|(_, details)| details.as_str()).or(self.details_only.as_deref())
    }

    /// The error, if the line has one.
    pub fn error(&self) -> Option<&'static str> {
        self.error.as_ref().map(|(error, _)| *error)
    }

    /// Marks the line.
    pub fn set_error(&mut self, error: &'static str, details: impl Into<String>) {
        self.error = Some((error, details.into()));
    }

    /// Adds what a parser found: under a name of its own where the line had that label before, and not at all where a parser found
    /// the name before.
    pub fn add_parsed(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) {
        let name = if self.base.contains(&&*name) { Cow::Owned(format!("{name}_extracted")) } else { name };
        if !self.labels.iter().any(|label| label.origin == Origin::Parsed && label.name == name) {
            self.labels.push(RowLabel { name, value, origin: Origin::Parsed });
        }
    }

    /// Sets a label, whatever it was.
    pub fn set(&mut self, name: &str, value: String, origin: Origin) {
        match self.labels.iter_mut().find(|label| label.name == name) {
            Some(label) => {
                label.value = Cow::Owned(value);
                label.origin = origin;
            }
            None => self.labels.push(RowLabel { name: Cow::Owned(name.to_owned()), value: Cow::Owned(value), origin }),
        }
    }

    /// Moves the value of `from` to `to`.
    pub fn rename(&mut self, from: &str, to: &str) {
        let Some(label) = self.labels.iter().find(|label| label.name == from) else { return };
        let (value, origin) = (label.value.clone().into_owned(), label.origin);
        if from != to {
            self.remove(|name, _| name == from);
        }
        self.set(to, value, origin);
    }

    /// Keeps the labels for which `keeps` holds, the error's too where `keeps` is asked about them.
    pub fn retain(&mut self, touches_error: bool, keeps: impl Fn(&str, &str) -> bool) {
        self.remove(|name, value| !keeps(name, value));
        if !touches_error {
            return;
        }
        let keeps_details = self.details().is_none_or(|details| keeps(ERROR_DETAILS, details));
        if let Some((error, details)) = self.error.take() {
            if keeps(ERROR, error) {
                self.error = Some((error, if keeps_details { details } else { String::new() }));
            } else if keeps_details {
                self.details_only = Some(details);
            }
        } else if !keeps_details {
            self.details_only = None;
        }
    }

    fn remove(&mut self, goes: impl Fn(&str, &str) -> bool) {
        let gone = self.labels.extract_if(.., |label| goes(&label.name, &label.value));
        self.dropped.extend(gone.filter(|label| label.origin != Origin::Stream));
    }

    /// Every label but the error's.
    pub fn iter(&self) -> impl Iterator<Item = &RowLabel<'a>> {
        self.labels.iter()
    }

    /// The error's labels.
    pub fn error_labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let details = self.details().filter(|details| !details.is_empty());
        self.error.iter().map(|(error, _)| (ERROR, *error)).chain(details.map(|details| (ERROR_DETAILS, details)))
    }

    /// All labels as a set.
    pub fn to_set(&self) -> LabelSet {
        let own = self.labels.iter().map(|label| (&*label.name, &*label.value));
        LabelSet::of(own.chain(self.error_labels()).map(|(name, value)| (name.to_owned(), value.to_owned())))
    }
}
