//! `histogram_quantile(q, bucket_counts, explicit_bounds)`, `exponential_histogram_quantile(q, …)` and the aggregate
//! `sum_counts(bucket_counts)`. The formulas are those of PromQL.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, FieldRef, Float64Type, Int32Type, UInt64Type};
use datafusion::common::{ScalarValue, exec_err, internal_datafusion_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use tidemill_eval::promql::{classic_quantile, native_quantile};

use crate::promql::exponential_histogram;

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

/// The quantile of a histogram with explicit bounds.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Quantile {
    signature: Signature,
}

impl Quantile {
    pub(super) fn new() -> Self {
        Self { signature: Signature::any(3, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Quantile {
    fn name(&self) -> &str {
        "histogram_quantile"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        match kinds {
            [q, DataType::List(_), DataType::List(_)] if q.is_numeric() => Ok(DataType::Float64),
            _ => plan_err!("histogram_quantile takes a number from 0 to 1, bucket_counts and explicit_bounds"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = columns(&args, &[DataType::Float64, list_of(DataType::UInt64), list_of(DataType::Float64)])?;
        let (q, counts, bounds) = (columns[0].as_primitive::<Float64Type>(), &columns[1], &columns[2]);
        let quantile = |row: usize| {
            let q = q.is_valid(row).then(|| q.value(row))?;
            let (counts, bounds) = (numbers::<UInt64Type>(counts, row)?, numbers::<Float64Type>(bounds, row)?);
            (!counts.is_empty()).then(|| classic_quantile(q, bounds.values(), counts.values()))
        };
        let all: Float64Array = (0..args.number_rows).map(quantile).collect();
        Ok(ColumnarValue::Array(Arc::new(all)))
    }
}

/// The quantile of an exponential histogram.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ExponentialQuantile {
    signature: Signature,
}

impl ExponentialQuantile {
    pub(super) fn new() -> Self {
        Self { signature: Signature::any(8, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ExponentialQuantile {
    fn name(&self) -> &str {
        "exponential_histogram_quantile"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        let is_list = |at: usize| matches!(kinds[at], DataType::List(_));
        if kinds.len() == 8 && kinds[0].is_numeric() && is_list(5) && is_list(7) {
            return Ok(DataType::Float64);
        }
        plan_err!(
            "exponential_histogram_quantile takes a number from 0 to 1, scale, zero_count, zero_threshold, \
             positive_offset, positive_counts, negative_offset and negative_counts"
        )
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let counts = list_of(DataType::UInt64);
        let (double, int) = (DataType::Float64, DataType::Int32);
        let kinds = [&double, &int, &DataType::UInt64, &double, &int, &counts, &int, &counts].map(DataType::clone);
        let columns = columns(&args, &kinds)?;
        let double = |at: usize, row: usize| value::<Float64Type>(&columns[at], row);
        let int = |at: usize, row: usize| value::<Int32Type>(&columns[at], row);
        let side = |at: usize, row: usize| {
            let counts = numbers::<UInt64Type>(&columns[at + 1], row);
            (int(at, row).unwrap_or(0), counts.map(|counts| counts.values().to_vec()).unwrap_or_default())
        };
        let quantile = |row: usize| {
            let (q, scale) = (double(0, row)?, int(1, row)?);
            let zero = (value::<UInt64Type>(&columns[2], row).unwrap_or(0), double(3, row).unwrap_or(0.0));
            let histogram = exponential_histogram(scale, zero, &side(4, row), &side(6, row));
            Some(native_quantile(q, &histogram))
        };
        let all: Float64Array = (0..args.number_rows).map(quantile).collect();
        Ok(ColumnarValue::Array(Arc::new(all)))
    }
}

/// The arguments as columns of these types.
fn columns(args: &ScalarFunctionArgs, kinds: &[DataType]) -> Result<Vec<ArrayRef>> {
    let columns = args.args.iter().zip(kinds).map(|(arg, kind)| Ok(cast(&arg.to_array(args.number_rows)?, kind)?));
    columns.collect()
}

fn value<T: ArrowPrimitiveType>(column: &ArrayRef, row: usize) -> Option<T::Native> {
    let column = column.as_primitive::<T>();
    column.is_valid(row).then(|| column.value(row))
}

fn numbers<T: ArrowPrimitiveType>(column: &ArrayRef, row: usize) -> Option<PrimitiveArray<T>> {
    let lists = column.as_list::<i32>();
    lists.is_valid(row).then(|| lists.value(row).as_primitive::<T>().clone())
}

/// The sums of lists, place by place: the counts of histograms with the same bounds.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct SumCounts {
    signature: Signature,
}

impl SumCounts {
    pub(super) fn new() -> Self {
        Self { signature: Signature::exact(vec![list_of(DataType::UInt64)], Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for SumCounts {
    fn name(&self) -> &str {
        "sum_counts"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(list_of(DataType::UInt64))
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Counts(None)))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[counts]", args.name), list_of(DataType::UInt64), true))])
    }
}

/// The sums so far, `None` before the first list.
#[derive(Debug)]
struct Counts(Option<Vec<u64>>);

impl Accumulator for Counts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [lists] = values else { return Err(internal_datafusion_err!("sum_counts takes one list")) };
        for row in 0..lists.len() {
            let Some(counts) = numbers::<UInt64Type>(lists, row) else { continue };
            let known = self.0.get_or_insert_with(|| vec![0; counts.len()]);
            if known.len() != counts.len() {
                return exec_err!(
                    "sum_counts met lists of {} and of {} counts; GROUP BY explicit_bounds as well",
                    known.len(),
                    counts.len()
                );
            }
            for (sum, count) in known.iter_mut().zip(counts.values()) {
                *sum = sum.saturating_add(*count);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let counts = self.0.as_ref().map(|counts| counts.iter().copied().map(Some));
        let list = ListArray::from_iter_primitive::<UInt64Type, _, _>([counts]);
        Ok(ScalarValue::List(Arc::new(list)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.as_ref().map_or(0, |counts| counts.capacity() * size_of::<u64>())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}
