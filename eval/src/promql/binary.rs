//! Binary operations between rows.

use std::collections::HashMap;
use std::sync::Arc;

use tidemill_lang::Span;
use tidemill_lang::promql::{Binary, BinaryOp, Cardinality, Matching};

use super::annotation::Annotations;
use super::histogram::{Combined, Histogram, IncompatibleSchema, Keep, ResetHint};
use super::row::{Cell, Row, without_metadata};
use crate::error::{Error, Result};
use crate::labels::{Labels, METRIC_NAME, quote};

/// Rows by their labels, each cell set once.
pub(super) struct RowSet {
    steps: usize,
    at: HashMap<Labels, usize>,
    rows: Vec<Row>,
}

impl RowSet {
    pub(super) fn new(steps: usize) -> Self {
        Self { steps, at: HashMap::new(), rows: Vec::new() }
    }

    /// Sets one cell.
    ///
    /// # Errors
    /// The cell was set before.
    pub(super) fn put(&mut self, labels: &Labels, drops_name: bool, step: usize, cell: Cell) -> Result<()> {
        let row = self.row(labels, drops_name);
        if row.has(step) {
            return Err(same_labels());
        }
        row.set(step, cell);
        Ok(())
    }

    fn row(&mut self, labels: &Labels, drops_name: bool) -> &mut Row {
        let index = self.index(labels, drops_name);
        &mut self.rows[index]
    }

    fn index(&mut self, labels: &Labels, drops_name: bool) -> usize {
        if let Some(index) = self.at.get(labels) {
            return *index;
        }
        self.at.insert(labels.clone(), self.rows.len());
        self.rows.push(Row::new(labels.clone(), self.steps).dropping_name(drops_name));
        self.rows.len() - 1
    }

    pub(super) fn into_rows(self) -> Vec<Row> {
        self.rows
    }
}

/// That two series of a result have the same labels.
pub(super) fn same_labels() -> Error {
    Error::Data("vector cannot contain metrics with the same labelset".to_owned())
}

/// Unites rows of the same labels.
///
/// # Errors
/// Two of them have a value at the same time.
pub(super) fn united(rows: Vec<Row>) -> Result<Vec<Row>> {
    let mut at: HashMap<Labels, usize> = HashMap::with_capacity(rows.len());
    let mut united: Vec<Row> = Vec::with_capacity(rows.len());
    for row in rows {
        match at.get(&row.labels) {
            Some(index) => {
                if united[*index].absorb(&row) {
                    return Err(same_labels());
                }
            }
            None => {
                at.insert(row.labels.clone(), united.len());
                united.push(row);
            }
        }
    }
    Ok(united)
}

/// The result of an operator on two numbers, and whether a comparison holds.
#[inline]
fn numbers(op: BinaryOp, left: f64, right: f64) -> (f64, bool) {
    match op {
        BinaryOp::Add => (left + right, true),
        BinaryOp::Subtract => (left - right, true),
        BinaryOp::Multiply => (left * right, true),
        BinaryOp::Divide => (left / right, true),
        BinaryOp::Modulo => (left % right, true),
        BinaryOp::Power => (left.powf(right), true),
        BinaryOp::Atan2 => (left.atan2(right), true),
        BinaryOp::Equal => (left, left == right),
        BinaryOp::NotEqual => (left, left != right),
        BinaryOp::Greater => (left, left > right),
        BinaryOp::Less => (left, left < right),
        BinaryOp::GreaterOrEqual => (left, left >= right),
        BinaryOp::LessOrEqual => (left, left <= right),
        BinaryOp::TrimUpper | BinaryOp::TrimLower | BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => (left, false),
    }
}

/// An operator between two scalars.
pub(super) fn scalars(binary: &Binary, left: &Row, right: &Row) -> Row {
    let mut row = Row::new(Labels::default(), left.steps());
    for step in 0..left.steps() {
        let (left, right) = (left.float(step).unwrap_or(f64::NAN), right.float(step).unwrap_or(f64::NAN));
        let (value, holds) = numbers(binary.op, left, right);
        row.set_float(step, if binary.op.is_comparison() { f64::from(u8::from(holds)) } else { value });
    }
    row
}

/// What an operator makes of two cells.
enum Made {
    /// A cell, and whether a comparison holds.
    Cell(Cell, bool),
    /// Nothing, since the types do not go together.
    Nothing,
}

struct Operation<'a> {
    op: BinaryOp,
    span: Span,
    notes: &'a mut Annotations,
}

impl Operation<'_> {
    fn cells(&mut self, left: &Cell, right: &Cell) -> Made {
        let op = self.op;
        match (left, right) {
            (Cell::Float(_), Cell::Float(_)) if matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper) => {
                self.incompatible("float", "float")
            }
            (Cell::Float(left), Cell::Float(right)) => {
                let (value, holds) = numbers(op, *left, *right);
                Made::Cell(Cell::Float(value), holds)
            }
            (Cell::Float(factor), Cell::Histogram(histogram)) => match op {
                BinaryOp::Multiply => changed(histogram, |histogram| histogram.multiply(*factor)),
                _ => self.incompatible("float", "histogram"),
            },
            (Cell::Histogram(histogram), Cell::Float(number)) => match op {
                BinaryOp::Multiply => changed(histogram, |histogram| histogram.multiply(*number)),
                BinaryOp::Divide => changed(histogram, |histogram| histogram.divide(*number)),
                BinaryOp::TrimUpper => changed(histogram, |histogram| histogram.trim(*number, Keep::Below)),
                BinaryOp::TrimLower => changed(histogram, |histogram| histogram.trim(*number, Keep::Above)),
                _ => self.incompatible("histogram", "float"),
            },
            (Cell::Histogram(left), Cell::Histogram(right)) => self.histograms(left, right),
            _ => Made::Nothing,
        }
    }

    fn histograms(&mut self, left: &Arc<Histogram>, right: &Histogram) -> Made {
        let mut result = left.as_ref().clone();
        match self.op {
            BinaryOp::Add => {
                let combined = result.add(right);
                self.combined(result, combined, "addition")
            }
            BinaryOp::Subtract => {
                let combined = result.subtract(right);
                result.hint = ResetHint::Gauge;
                self.combined(result, combined, "subtraction")
            }
            BinaryOp::Equal | BinaryOp::NotEqual => {
                let is_equal = left.as_ref().clone().compacted().equals(&right.clone().compacted());
                Made::Cell(Cell::Histogram(Arc::clone(left)), is_equal == (self.op == BinaryOp::Equal))
            }
            _ => self.incompatible("histogram", "histogram"),
        }
    }

    fn combined(
        &mut self,
        result: Histogram,
        combined: std::result::Result<Combined, IncompatibleSchema>,
        what: &str,
    ) -> Made {
        match combined {
            Ok(combined) => {
                if combined.has_hint_collision {
                    // As in Prometheus: what such a pair gives is not known well enough to be shown.
                    self.notes.hint_collision(what, self.span);
                    return Made::Nothing;
                }
                if combined.has_reconciled_bounds {
                    self.notes.reconciled_bounds(what, self.span);
                }
                Made::Cell(Cell::Histogram(Arc::new(result.compacted())), true)
            }
            Err(IncompatibleSchema) => {
                let text = format!("incompatible bucket layout encountered for binary operator {}", self.op.as_str());
                self.notes.warn(text, self.span);
                Made::Nothing
            }
        }
    }

    fn incompatible(&mut self, left: &str, right: &str) -> Made {
        let op = self.op.as_str();
        let text =
            format!("incompatible sample types encountered for binary operator {}: {left} {op} {right}", quote(op));
        self.notes.info(text, self.span);
        Made::Nothing
    }
}

fn changed(histogram: &Histogram, change: impl FnOnce(&mut Histogram)) -> Made {
    let mut changed = histogram.clone();
    change(&mut changed);
    Made::Cell(Cell::Histogram(Arc::new(changed.compacted())), true)
}

/// An operator between a vector and a scalar.
pub(super) fn with_scalar(
    (binary, span): (&Binary, Span),
    rows: Vec<Row>,
    scalar: &Row,
    is_scalar_left: bool,
    notes: &mut Annotations,
) -> Vec<Row> {
    let mut operation = Operation { op: binary.op, span, notes };
    let is_comparison = binary.op.is_comparison();
    let drops_name = binary.op.changes_quantity() || binary.returns_bool;
    let made = rows.into_iter().map(|row| {
        let mut result = Row::new(row.labels.clone(), row.steps());
        result.drops_name = row.drops_name || drops_name;
        for step in (0..row.steps()).filter(|step| row.has(*step)) {
            let (vector, scalar) = (row.cell(step), Cell::Float(scalar.float(step).unwrap_or(f64::NAN)));
            let made =
                if is_scalar_left { operation.cells(&scalar, &vector) } else { operation.cells(&vector, &scalar) };
            let Made::Cell(cell, holds) = made else { continue };
            if binary.returns_bool {
                result.set_float(step, f64::from(u8::from(holds)));
            } else if holds {
                // A comparison keeps the vector's value, also where that stands on the right.
                result.set(step, if is_comparison && is_scalar_left { vector } else { cell });
            }
        }
        result
    });
    made.filter(Row::has_any).collect()
}

/// The labels by which series of two sides find each other.
fn signature(labels: &Labels, matching: &Matching) -> Labels {
    let is_listed = |name: &str| matching.labels.iter().any(|label| label == name);
    labels.filtered(|name| if matching.is_on { is_listed(name) } else { name != METRIC_NAME && !is_listed(name) })
}

/// As a message shows labels: with the name among them.
pub(super) fn braced(labels: &Labels) -> String {
    let parts: Vec<String> = labels.iter().map(|label| format!("{}={}", label.name, quote(&label.value))).collect();
    format!("{{{}}}", parts.join(", "))
}

/// A set operator.
pub(super) fn set_operation(binary: &Binary, left: Vec<Row>, right: Vec<Row>, steps: usize) -> Result<Vec<Row>> {
    let present = |rows: &[Row]| {
        let mut present: HashMap<Labels, Vec<bool>> = HashMap::new();
        for row in rows {
            let steps = present.entry(signature(&row.labels, &binary.matching)).or_insert_with(|| vec![false; steps]);
            (0..row.steps()).for_each(|step| steps[step] |= row.has(step));
        }
        present
    };
    let filtered = |rows: Vec<Row>, others: &HashMap<Labels, Vec<bool>>, wanted: bool| -> Vec<Row> {
        let keep = |mut row: Row| {
            let other = others.get(&signature(&row.labels, &binary.matching));
            for step in 0..row.steps() {
                if other.is_some_and(|steps| steps[step]) != wanted {
                    row.set(step, Cell::Absent);
                }
            }
            row
        };
        rows.into_iter().map(keep).filter(Row::has_any).collect()
    };
    let rows = match binary.op {
        BinaryOp::And => filtered(left, &present(&right), true),
        BinaryOp::Unless => filtered(left, &present(&right), false),
        _ => {
            let kept = filtered(right, &present(&left), false);
            left.into_iter().chain(kept).collect()
        }
    };
    united(rows)
}

/// One side of a match, by signature.
type Side<'a> = HashMap<Labels, Vec<&'a Row>>;

/// An arithmetic or comparison operator between two vectors.
pub(super) fn vectors(
    (binary, span): (&Binary, Span),
    left: &[Row],
    right: &[Row],
    steps: usize,
    notes: &mut Annotations,
) -> Result<Vec<Row>> {
    let matching = &binary.matching;
    let is_swapped = matching.cardinality == Cardinality::OneToMany;
    let (many, one) = if is_swapped { (right, left) } else { (left, right) };
    let (fill_many, fill_one) =
        if is_swapped { (matching.fill_right, matching.fill_left) } else { (matching.fill_left, matching.fill_right) };
    let mut ones: Side<'_> = HashMap::new();
    for row in one {
        ones.entry(signature(&row.labels, matching)).or_default().push(row);
    }
    check_unique(&ones, steps, if is_swapped { "left" } else { "right" })?;
    let mut matcher = Matcher {
        binary,
        operation: Operation { op: binary.op, span, notes },
        is_swapped,
        seen: HashMap::new(),
        set: RowSet::new(steps),
    };
    let mut manys: Side<'_> = HashMap::new();
    for row in many {
        let signature = signature(&row.labels, matching);
        let partners = ones.get(&signature).map_or(&[][..], Vec::as_slice);
        for partner in partners {
            matcher.pair(
                Some(row),
                Some(partner),
                &signature,
                |step| row.has(step) && partner.has(step),
                (None, None),
            )?;
        }
        if fill_one.is_some() {
            let is_alone = |step| row.has(step) && !partners.iter().any(|partner| partner.has(step));
            matcher.pair(Some(row), None, &signature, is_alone, (None, fill_one))?;
        }
        manys.entry(signature).or_default().push(row);
    }
    if fill_many.is_some() {
        for row in one {
            let signature = signature(&row.labels, matching);
            let partners = manys.get(&signature).map_or(&[][..], Vec::as_slice);
            let is_alone = |step| row.has(step) && !partners.iter().any(|partner| partner.has(step));
            matcher.pair(None, Some(row), &signature, is_alone, (fill_many, None))?;
        }
    }
    Ok(matcher.set.into_rows().into_iter().filter(Row::has_any).collect())
}

/// Refuses two series of the "one" side that match the same series at the same time.
fn check_unique(ones: &Side<'_>, steps: usize, side: &str) -> Result<()> {
    let mut groups: Vec<_> = ones.iter().filter(|(_, rows)| rows.len() > 1).collect();
    groups.sort_by(|a, b| a.0.cmp(b.0));
    for step in 0..steps {
        for (signature, rows) in &groups {
            let mut present = rows.iter().filter(|row| row.has(step));
            if let (Some(first), Some(second)) = (present.next(), present.next()) {
                return Err(Error::Data(format!(
                    "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, \
                     {}];many-to-many matching not allowed: matching labels must be unique on one side",
                    braced(signature),
                    braced(&first.labels),
                    braced(&second.labels)
                )));
            }
        }
    }
    Ok(())
}

struct Matcher<'a> {
    binary: &'a Binary,
    operation: Operation<'a>,
    is_swapped: bool,
    /// At which steps there was a result, by signature, and by the result's labels where many may match.
    seen: HashMap<(Labels, Option<Labels>), Vec<bool>>,
    set: RowSet,
}

impl Matcher<'_> {
    /// Combines two series (or one with a filled value) at the steps for which `is_met` holds.
    fn pair(
        &mut self,
        many: Option<&Row>,
        one: Option<&Row>,
        signature: &Labels,
        is_met: impl Fn(usize) -> bool,
        fill: (Option<f64>, Option<f64>),
    ) -> Result<()> {
        let steps = many.or(one).map_or(0, Row::steps);
        let labels_of = |row: Option<&Row>| row.map_or_else(|| signature.clone(), |row| row.labels.clone());
        let labels = self.result_labels(&labels_of(many), &labels_of(one));
        let is_one_to_one = self.binary.matching.cardinality == Cardinality::OneToOne;
        let cell = |row: Option<&Row>, fill: Option<f64>, step: usize| match (row, fill) {
            (Some(row), _) => row.cell(step),
            (None, Some(fill)) => Cell::Float(fill),
            (None, None) => Cell::Absent,
        };
        let key = (signature.clone(), (!is_one_to_one).then(|| labels.clone()));
        let mut seen = self.seen.remove(&key).unwrap_or_else(|| vec![false; steps]);
        let mut index = None;
        for step in (0..steps).filter(|step| is_met(*step)) {
            let (many_cell, one_cell) = (cell(many, fill.0, step), cell(one, fill.1, step));
            let made = if self.is_swapped {
                self.operation.cells(&one_cell, &many_cell)
            } else {
                self.operation.cells(&many_cell, &one_cell)
            };
            let Made::Cell(mut result, holds) = made else { continue };
            if self.binary.returns_bool {
                result = Cell::Float(f64::from(u8::from(holds)));
            }
            if seen[step] {
                let cause = if is_one_to_one {
                    "many-to-one matching must be explicit (group_left/group_right)"
                } else {
                    "grouping labels must ensure unique matches"
                };
                return Err(Error::Data(format!("multiple matches for labels: {cause}")));
            }
            seen[step] = true;
            if holds || self.binary.returns_bool {
                let index = *index.get_or_insert_with(|| self.set.index(&labels, self.binary.returns_bool));
                if self.set.rows[index].has(step) {
                    return Err(same_labels());
                }
                self.set.rows[index].set(step, result);
            }
        }
        self.seen.insert(key, seen);
        Ok(())
    }

    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let matching = &self.binary.matching;
        let mut labels = if self.binary.op.changes_quantity() { without_metadata(many) } else { many.clone() };
        if matching.cardinality == Cardinality::OneToOne {
            let is_listed = |name: &str| matching.labels.iter().any(|label| label == name);
            labels = labels.filtered(|name| is_listed(name) == matching.is_on);
        }
        if matching.include.is_empty() {
            return labels;
        }
        let mut builder = labels.builder();
        for name in &matching.include {
            builder.set(name, one.get(name));
        }
        builder.build()
    }
}
