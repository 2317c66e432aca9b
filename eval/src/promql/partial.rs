//! Evaluation in partitions: which parts of a query look at each series by itself, and what a partition answers.
//!
//! [`Engine::tasks`](super::Engine::tasks) names the parts, [`Engine::run_task`](super::Engine::run_task) answers one of them over the
//! series of one partition, and [`Engine::finish`](super::Engine::finish) makes the query's value of all answers. A [`Partial`] can be
//! serialized, so a partition may be another process.

use std::cell::RefCell;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tidemill_lang::Span;
use tidemill_lang::promql::{Call, Expr, ExprKind, ValueType};

pub use super::aggregate::SerializedGroups;
use super::functions::elementwise::is_elementwise;
use super::functions::range_function;
use super::grid::Grid;
use super::row::Row;
use super::source::Source;
use crate::error::{Error, Result};

/// A part of a query that partitions answer by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Task {
    /// Which expression of the query.
    pub span: Span,
    /// At which times.
    pub grid: Grid,
    /// What is asked of it.
    pub kind: TaskKind,
}

/// What is asked of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// The rows of the expression.
    Rows,
    /// The groups of the aggregation, unfinished.
    Aggregate,
}

/// What a partition answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Partial {
    /// Rows.
    Rows(Vec<Row>),
    /// Groups of an aggregation.
    Groups(SerializedGroups),
}

/// Where an evaluation gets its series.
#[derive(Clone)]
pub(super) enum Data<'a> {
    /// From sources; a series lies in one of them only.
    Sources(Vec<&'a dyn Source>),
    /// From nowhere: the tasks that would be asked are noted.
    Record(&'a RefCell<Vec<Task>>),
    /// From the answers of partitions.
    Given(&'a Given),
}

impl Partial {
    /// The answer as bytes.
    ///
    /// # Errors
    /// A number of the answer cannot be written, which does not happen.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::Data(format!("encoding a partial: {error}")))
    }

    /// The answer of these bytes.
    ///
    /// # Errors
    /// The bytes are no answer.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| Error::Data(format!("decoding a partial: {error}")))
    }
}

/// What partitions answered, by the task; of a task that is asked several times an answer for each.
#[derive(Debug)]
pub(super) struct Given(RefCell<HashMap<Task, Vec<Vec<Partial>>>>);

impl Given {
    pub(super) fn new(answers: impl IntoIterator<Item = (Task, Vec<Partial>)>) -> Self {
        let mut given: HashMap<Task, Vec<Vec<Partial>>> = HashMap::new();
        for (task, partials) in answers {
            given.entry(task).or_default().push(partials);
        }
        Self(RefCell::new(given))
    }

    /// An answer to the task, which is gone then.
    ///
    /// # Errors
    /// There is none, or none any more.
    pub(super) fn take(&self, task: &Task) -> Result<Vec<Partial>> {
        let mut given = self.0.borrow_mut();
        given.get_mut(task).and_then(Vec::pop).ok_or_else(|| missing(task))
    }
}

/// Says that no partition answered a task.
pub(super) fn missing(task: &Task) -> Error {
    Error::Data(format!("no partition answered for bytes {}..{} of the query", task.span.start, task.span.end))
}

/// Whether an expression gives for each series what that series alone says.
pub(super) fn is_series_local(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Vector(_) | ExprKind::Matrix(_) => true,
        ExprKind::Paren(inner) => is_series_local(inner),
        ExprKind::Unary { expr: inner, .. } => is_series_local(inner),
        ExprKind::Subquery(subquery) => is_series_local(&subquery.expr),
        ExprKind::Call(call) => is_local_call(call),
        ExprKind::Binary(binary) => match (binary.left.value_type(), binary.right.value_type()) {
            (ValueType::Vector, ValueType::Scalar) => is_series_local(&binary.left) && is_plain(&binary.right),
            (ValueType::Scalar, ValueType::Vector) => is_plain(&binary.left) && is_series_local(&binary.right),
            _ => false,
        },
        ExprKind::Number(_) | ExprKind::Text(_) | ExprKind::Aggregate(_) => false,
    }
}

fn is_local_call(call: &Call) -> bool {
    let name = call.function.name;
    let is_mapping = is_elementwise(call)
        || (range_function(name).is_some() && name != "absent_over_time")
        || name == "timestamp"
        || matches!(
            name,
            "histogram_count" | "histogram_sum" | "histogram_avg" | "histogram_stddev" | "histogram_stdvar"
        );
    let is_fit = |arg: &Expr| match arg.value_type() {
        ValueType::Vector | ValueType::Matrix => is_series_local(arg),
        ValueType::Scalar | ValueType::Text => is_plain(arg),
    };
    is_mapping && call.args.iter().all(is_fit)
}

/// Whether an expression looks at no series.
fn is_plain(expr: &Expr) -> bool {
    !matches!(expr.kind, ExprKind::Vector(_) | ExprKind::Matrix(_)) && expr.children().into_iter().all(is_plain)
}
