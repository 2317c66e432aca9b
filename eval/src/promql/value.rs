//! What a query gives.

use std::sync::Arc;

use super::histogram::Histogram;
use crate::labels::Labels;

/// The value of a query.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// One number, at a time in milliseconds.
    Scalar(i64, f64),
    /// A text, at a time in milliseconds.
    Text(i64, String),
    /// One sample per series, in the order that the query gives.
    Vector(Vec<(Labels, i64, Sample)>),
    /// A range of samples per series, by the series' labels.
    Matrix(Vec<SeriesValue>),
}

/// The samples of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesValue {
    /// The series' labels.
    pub labels: Labels,
    /// Numbers with their times in milliseconds.
    pub floats: Vec<(i64, f64)>,
    /// Histograms with their times in milliseconds.
    pub histograms: Vec<(i64, Arc<Histogram>)>,
}

/// A number or a histogram.
#[derive(Debug, Clone, PartialEq)]
pub enum Sample {
    /// A number.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}
