//! Series on the grid of a query: one cell per step.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use crate::labels::{Labels, METRIC_NAME};

/// One series' values on the grid.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// The series' labels, with the name until the end of the evaluation.
    pub labels: Labels,
    /// Whether the name goes at the end.
    pub drops_name: bool,
    kinds: Vec<Kind>,
    #[serde(with = "crate::bits::list")]
    floats: Vec<f64>,
    /// Empty where no cell is a histogram.
    histograms: Vec<Option<Arc<Histogram>>>,
}

/// What one series is at one time.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing.
    Absent,
    /// A number.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Absent,
    Float,
    Histogram,
}

impl Row {
    /// A series without values on a grid of `steps` times.
    pub fn new(labels: Labels, steps: usize) -> Self {
        Self {
            labels,
            drops_name: false,
            kinds: vec![Kind::Absent; steps],
            floats: vec![0.0; steps],
            histograms: Vec::new(),
        }
    }

    /// A series of the same number at every time.
    pub fn constant(value: f64, steps: usize) -> Self {
        let labels = Labels::default();
        let (kinds, floats) = (vec![Kind::Float; steps], vec![value; steps]);
        Self { labels, drops_name: false, kinds, floats, histograms: Vec::new() }
    }

    /// A series of these numbers.
    pub fn of_floats(labels: Labels, floats: Vec<f64>) -> Self {
        Self { labels, drops_name: false, kinds: vec![Kind::Float; floats.len()], floats, histograms: Vec::new() }
    }

    /// The same, with the name going at the end or not.
    #[must_use]
    pub fn dropping_name(mut self, drops_name: bool) -> Self {
        self.drops_name = drops_name;
        self
    }

    /// How many times the grid has.
    pub fn steps(&self) -> usize {
        self.kinds.len()
    }

    /// The cell at step `at`.
    pub fn cell(&self, at: usize) -> Cell {
        match self.kinds[at] {
            Kind::Absent => Cell::Absent,
            Kind::Float => Cell::Float(self.floats[at]),
            Kind::Histogram => {
                self.histogram(at).map_or(Cell::Absent, |histogram| Cell::Histogram(Arc::clone(histogram)))
            }
        }
    }

    /// The number at step `at`, if there is one.
    #[inline]
    pub fn float(&self, at: usize) -> Option<f64> {
        (self.kinds[at] == Kind::Float).then(|| self.floats[at])
    }

    /// The histogram at step `at`, if there is one.
    pub fn histogram(&self, at: usize) -> Option<&Arc<Histogram>> {
        if self.kinds[at] == Kind::Histogram { self.histograms[at].as_ref() } else { None }
    }

    /// Whether there is a value at step `at`.
    #[inline]
    pub fn has(&self, at: usize) -> bool {
        self.kinds[at] != Kind::Absent
    }

    /// Whether there is any value.
    pub fn has_any(&self) -> bool {
        self.kinds.iter().any(|kind| *kind != Kind::Absent)
    }

    /// Whether any cell is a histogram.
    pub fn has_histograms(&self) -> bool {
        !self.histograms.is_empty()
    }

    /// How many values there are.
    pub fn values(&self) -> usize {
        self.kinds.iter().filter(|kind| **kind != Kind::Absent).count()
    }

    /// About how much memory its values take.
    pub fn bytes(&self) -> usize {
        let histograms = self.histograms.iter().map(|histogram| 8 + histogram.as_ref().map_or(0, |it| it.bytes()));
        self.kinds.len() * 9 + histograms.sum::<usize>()
    }

    /// Sets the cell at step `at`.
    pub fn set(&mut self, at: usize, cell: Cell) {
        match cell {
            Cell::Absent => self.kinds[at] = Kind::Absent,
            Cell::Float(value) => self.set_float(at, value),
            Cell::Histogram(histogram) => {
                if self.histograms.is_empty() {
                    self.histograms = vec![None; self.kinds.len()];
                }
                self.kinds[at] = Kind::Histogram;
                self.histograms[at] = Some(histogram);
            }
        }
    }

    /// Sets the cell at step `at` to a number.
    #[inline]
    pub fn set_float(&mut self, at: usize, value: f64) {
        self.kinds[at] = Kind::Float;
        self.floats[at] = value;
    }

    /// The same series with each number changed by `change`; histograms go.
    pub fn map_floats(mut self, change: impl Fn(f64) -> f64) -> Self {
        for (kind, value) in self.kinds.iter_mut().zip(&mut self.floats) {
            match kind {
                Kind::Float => *value = change(*value),
                Kind::Histogram => *kind = Kind::Absent,
                Kind::Absent => {}
            }
        }
        self.histograms = Vec::new();
        self
    }

    /// Repeats the first cell of a row of one step over `steps` times.
    pub fn repeated(&self, steps: usize) -> Self {
        let mut row = Self::new(self.labels.clone(), steps);
        row.drops_name = self.drops_name;
        for at in 0..steps {
            row.set(at, self.cell(0));
        }
        row
    }

    /// Takes over the cells of `other` where it has any; tells whether both have one somewhere.
    pub fn absorb(&mut self, other: &Self) -> bool {
        let mut is_double = false;
        for at in (0..other.steps()).filter(|at| other.has(*at)) {
            is_double |= self.has(at);
            self.set(at, other.cell(at));
        }
        is_double
    }
}

/// Whether a label tells what a metric is, so that it goes when the quantity changes.
pub(crate) fn is_metadata(name: &str) -> bool {
    matches!(name, METRIC_NAME | "__type__" | "__unit__")
}

/// The labels without those that tell what the metric is.
pub(crate) fn without_metadata(labels: &Labels) -> Labels {
    labels.filtered(|name| !is_metadata(name))
}
