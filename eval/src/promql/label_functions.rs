//! Functions of labels and of order: `label_replace`, `label_join`, `sort*`; and the calls of histograms' quantiles.

use std::cmp::Ordering;

use tidemill_lang::go_regex::compile_anchored_regex;
use tidemill_lang::promql::{Call, Expr, ExprKind};

use super::binary::united;
use super::evaluator::Evaluator;
use super::functions::histograms::{Places, Question, quantile_rows};
use super::grid::Grid;
use super::natural;
use super::row::{Cell, Row};
use crate::error::{Error, Result};
use crate::labels::METRIC_NAME;

/// The value of the target label of a row; `None` leaves it as it is.
type NewValue = Box<dyn Fn(&Row) -> Result<Option<String>>>;

/// The longest value that a function makes.
const VALUE_LIMIT_BYTES: usize = 1 << 20;

fn check_value(bytes: usize) -> Result<()> {
    if bytes <= VALUE_LIMIT_BYTES {
        return Ok(());
    }
    Err(Error::Limit(format!("a label could have a value of {bytes} bytes; at most {VALUE_LIMIT_BYTES} are made")))
}

impl Evaluator<'_> {
    pub(super) fn change_labels(&mut self, call: &Call, grid: Grid) -> Result<Vec<Row>> {
        let texts = call.args[1..].iter().map(text).collect::<Result<Vec<&str>>>()?;
        let name = call.function.name;
        let check = |label: &str, what: &str| {
            if label.is_empty() {
                Err(Error::Data(format!("invalid {what} label name in {name}(): {label}")))
            } else {
                Ok(())
            }
        };
        let target = texts.first().copied().unwrap_or_default();
        let value: NewValue = match (name, texts.as_slice()) {
            ("label_replace", [_, replacement, source, pattern]) => {
                let regex = compile_anchored_regex(pattern)
                    .map_err(|_| Error::Data(format!("invalid regular expression in label_replace(): {pattern}")))?;
                check(target, "destination")?;
                let (replacement, source) = ((*replacement).to_owned(), (*source).to_owned());
                let references = replacement.matches('$').count();
                Box::new(move |row| {
                    let own = row.labels.get(&source);
                    let Some(found) = regex.captures(own) else { return Ok(None) };
                    check_value(replacement.len().saturating_add(own.len().saturating_mul(references)))?;
                    let mut expanded = String::new();
                    found.expand(&replacement, &mut expanded);
                    Ok(Some(expanded))
                })
            }
            (_, [_, separator, sources @ ..]) => {
                sources.iter().try_for_each(|source| check(source, "source"))?;
                check(target, "destination")?;
                let separator = (*separator).to_owned();
                let sources: Vec<String> = sources.iter().map(|source| (*source).to_owned()).collect();
                Box::new(move |row| {
                    let values: Vec<&str> = sources.iter().map(|source| row.labels.get(source)).collect();
                    check_value(values.iter().map(|value| value.len().saturating_add(separator.len())).sum())?;
                    Ok(Some(values.join(&separator)))
                })
            }
            _ => return Err(Error::Data(format!("{name} lacks an argument"))),
        };
        let mut rows = self.eval(&call.args[0], grid)?;
        for row in &mut rows {
            if let Some(value) = value(row)? {
                self.count(0, value.len())?;
                let mut builder = row.labels.builder();
                builder.set(target, &value);
                row.labels = builder.build();
                row.drops_name &= target != METRIC_NAME;
            }
        }
        united(rows)
    }

    pub(super) fn sort(&mut self, expr: &Expr, call: &Call, grid: Grid) -> Result<Vec<Row>> {
        if self.times.step > 0 {
            let text = "sort is ineffective for range queries since results are always ordered by labels";
            self.notes.warn(text, expr.span);
        }
        let mut rows = self.eval(&call.args[0], grid)?;
        let is_descending = call.function.name.ends_with("_desc");
        if !call.function.name.starts_with("sort_by_label") {
            for row in &mut rows {
                for step in 0..row.steps() {
                    if row.float(step).is_none() {
                        row.set(step, Cell::Absent);
                    }
                }
            }
            rows.retain(Row::has_any);
            if grid.len() == 1 {
                let value = |row: &Row| row.float(0).unwrap_or(f64::NAN);
                rows.sort_by(|a, b| by_value(value(a), value(b), is_descending));
            }
            return Ok(rows);
        }
        let labels = call.args[1..].iter().map(text).collect::<Result<Vec<&str>>>()?;
        rows.sort_by(|a, b| {
            let differ = labels.iter().map(|label| natural::compare(a.labels.get(label), b.labels.get(label)));
            let order = differ.into_iter().find(|order| *order != Ordering::Equal);
            let order = order.unwrap_or_else(|| a.labels.cmp(&b.labels));
            if is_descending { order.reverse() } else { order }
        });
        Ok(rows)
    }

    pub(super) fn histogram_call(&mut self, call: &Call, grid: Grid) -> Result<Vec<Row>> {
        let span = |at: usize| call.args.get(at).map(|arg| arg.span).unwrap_or_default();
        let arg = |at: usize| {
            call.args.get(at).ok_or_else(|| Error::Data(format!("{} lacks an argument", call.function.name)))
        };
        let places = |vector: usize, quantiles: std::ops::Range<usize>| Places {
            first: span(0),
            vector: span(vector),
            quantiles: quantiles.map(span).collect(),
        };
        match call.function.name {
            "histogram_quantile" => {
                let q = self.scalar(arg(0)?, grid)?;
                let rows = self.eval(arg(1)?, grid)?;
                quantile_rows(&Question::Quantile(&q), &rows, grid, &places(1, 0..1), &mut self.notes)
            }
            "histogram_fraction" => {
                let (lower, upper) = (self.scalar(arg(0)?, grid)?, self.scalar(arg(1)?, grid)?);
                let rows = self.eval(arg(2)?, grid)?;
                quantile_rows(&Question::Fraction(&lower, &upper), &rows, grid, &places(2, 0..0), &mut self.notes)
            }
            _ => {
                let rows = self.eval(arg(0)?, grid)?;
                let label = text(arg(1)?)?;
                let qs = call.args[2..].iter().map(|arg| self.scalar(arg, grid)).collect::<Result<Vec<Row>>>()?;
                let places = places(0, 2..call.args.len());
                quantile_rows(&Question::Quantiles(label, &qs), &rows, grid, &places, &mut self.notes)
            }
        }
    }
}

/// The text of a text argument, if it is UTF-8.
pub(super) fn text(expr: &Expr) -> Result<&str> {
    match &expr.bare().kind {
        ExprKind::Text(text) => {
            text.as_str().ok_or_else(|| Error::Data(format!("invalid label name or value, it is not UTF-8: {text}")))
        }
        _ => Err(Error::Data("expected a string".to_owned())),
    }
}

/// Rising or falling by value, NaN last.
fn by_value(a: f64, b: f64, is_descending: bool) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) if is_descending => b.total_cmp(&a),
        (false, false) => a.total_cmp(&b),
        (a, b) => a.cmp(&b),
    }
}
