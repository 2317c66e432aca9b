//! `increase(time, value)` and `rate(time, value)`: by how much a counter grew over the rows of a group or window, which are of one
//! series. A value below the one before it, by time, means that the counter began anew at zero. Nothing is extrapolated: the increase is
//! that from the first row to the last, and the rate is that divided by the seconds between them. Null for fewer than two times.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, ListArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type, TimeUnit, TimestampNanosecondType};
use datafusion::common::{ScalarValue, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

/// The growth of a counter.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Increase {
    is_per_second: bool,
    signature: Signature,
}

impl Increase {
    pub(super) fn new(is_per_second: bool) -> Self {
        let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        Self { is_per_second, signature: Signature::exact(vec![time, DataType::Float64], Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for Increase {
    fn name(&self) -> &str {
        if self.is_per_second { "rate" } else { "increase" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Points { is_per_second: self.is_per_second, points: VecDeque::new() }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let list = |name: &str, item: DataType| {
            let item = Field::new_list_field(item, true);
            Arc::new(Field::new(format!("{}[{name}]", args.name), DataType::List(Arc::new(item)), false))
        };
        Ok(vec![list("times", DataType::Int64), list("values", DataType::Float64)])
    }
}

/// The points of a group, in the order in which they came.
#[derive(Debug)]
struct Points {
    is_per_second: bool,
    points: VecDeque<(i64, f64)>,
}

/// The points of a batch that have both a time and a value.
fn points_of(values: &[ArrayRef]) -> Option<impl Iterator<Item = (i64, f64)>> {
    let [times, values] = values else { return None };
    let times = times.as_primitive_opt::<TimestampNanosecondType>()?;
    let values = values.as_primitive_opt::<Float64Type>()?;
    Some(times.iter().zip(values).filter_map(|(time, value)| time.zip(value)))
}

impl Accumulator for Points {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let points = points_of(values).ok_or_else(|| internal_datafusion_err!("increase takes a time and a value"))?;
        self.points.extend(points);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        // A window moves on: what came first goes first.
        let points = points_of(values).ok_or_else(|| internal_datafusion_err!("increase takes a time and a value"))?;
        self.points.drain(..points.count().min(self.points.len()));
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.points.iter().is_sorted_by_key(|(time, _)| *time) {
            return Ok(ScalarValue::Float64(growth(self.points.iter().copied(), self.is_per_second)));
        }
        // A copy, since a window gives its rows back in the order in which they came.
        let mut points: Vec<(i64, f64)> = self.points.iter().copied().collect();
        points.sort_by_key(|(time, _)| *time);
        Ok(ScalarValue::Float64(growth(points.into_iter(), self.is_per_second)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.points.capacity() * size_of::<(i64, f64)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (times, values): (Vec<i64>, Vec<f64>) = self.points.iter().copied().unzip();
        let times = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(times.into_iter().map(Some))]);
        let values = ListArray::from_iter_primitive::<Float64Type, _, _>([Some(values.into_iter().map(Some))]);
        Ok(vec![ScalarValue::List(Arc::new(times)), ScalarValue::List(Arc::new(values))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let wrong = || internal_datafusion_err!("the state of increase is two lists");
        let [times, values] = states else { return Err(wrong()) };
        let (times, values) = times.as_list_opt::<i32>().zip(values.as_list_opt::<i32>()).ok_or_else(wrong)?;
        for (times, values) in times.iter().flatten().zip(values.iter().flatten()) {
            let times = times.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
            let values = values.as_primitive_opt::<Float64Type>().ok_or_else(wrong)?;
            self.points.extend(times.values().iter().copied().zip(values.values().iter().copied()));
        }
        Ok(())
    }
}

/// The growth over points by rising time.
fn growth(points: impl Iterator<Item = (i64, f64)>, is_per_second: bool) -> Option<f64> {
    let mut points = points.peekable();
    let (first_time, first) = *points.peek()?;
    let (mut last_time, mut last) = (first_time, first);
    let mut restarted = 0.0;
    for (time, value) in points {
        if value < last {
            restarted += last;
        }
        (last_time, last) = (time, value);
    }
    let seconds = (last_time - first_time) as f64 / 1e9;
    let increase = last - first + restarted;
    (last_time > first_time).then_some(if is_per_second { increase / seconds } else { increase })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_falls_began_anew() {
        let points = |values: &[f64]| (0..).step_by(2_000_000_000).zip(values.to_vec()).collect::<Vec<_>>();
        assert_eq!(growth(points(&[1.0, 4.0, 9.0]).into_iter(), false), Some(8.0));
        assert_eq!(growth(points(&[1.0, 4.0, 2.0, 3.0]).into_iter(), false), Some(6.0));
        assert_eq!(growth(points(&[1.0, 4.0, 9.0]).into_iter(), true), Some(2.0));
        assert_eq!(growth(points(&[1.0]).into_iter(), false), None);
        assert_eq!(growth(points(&[]).into_iter(), false), None);
    }
}
