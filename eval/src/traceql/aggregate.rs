//! Aggregates over the spans of a spanset.

use tidemill_lang::traceql::ast::{Aggregate, Operator};

use super::value::{Value, calculate};

/// The aggregate of the values that are numbers; nothing where there is none. The least of values is nothing where one is missing, as
/// in Tempo, where no value is less than any.
pub(super) fn aggregate(function: Aggregate, values: impl Iterator<Item = Value>) -> Value {
    let (numbers, others): (Vec<Value>, Vec<Value>) = values.partition(|value| value.as_number().is_some());
    if function == Aggregate::Min && !others.is_empty() {
        return Value::Nil;
    }
    let Some((first, rest)) = numbers.split_first() else { return Value::Nil };
    let pick = |is_better: fn(f64, f64) -> bool| {
        rest.iter().fold(first.clone(), |best, value| match (value.as_number(), best.as_number()) {
            (Some(number), Some(own)) if is_better(number, own) => value.clone(),
            _ => best,
        })
    };
    let sum = || rest.iter().fold(first.clone(), |sum, value| calculate(Operator::Add, &sum, value));
    match function {
        Aggregate::Count => Value::Int(numbers.len() as i64),
        Aggregate::Min => pick(|number, own| number < own),
        Aggregate::Max => pick(|number, own| number > own),
        Aggregate::Sum => sum(),
        Aggregate::Avg => match sum() {
            Value::Duration(total) => Value::Duration(total / numbers.len() as i64),
            total => total.as_number().map_or(Value::Nil, |total| Value::Float(total / numbers.len() as f64)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregates_keep_the_type_of_their_values() {
        let of = |function, values: &[Value]| aggregate(function, values.iter().cloned());
        let values = [Value::Int(3), Value::text("x"), Value::Int(4), Value::Nil];
        assert_eq!(of(Aggregate::Sum, &values), Value::Int(7));
        assert_eq!(of(Aggregate::Max, &values), Value::Int(4));
        assert_eq!(of(Aggregate::Avg, &values), Value::Float(3.5));
        assert_eq!(of(Aggregate::Avg, &[Value::Duration(3), Value::Duration(4)]), Value::Duration(3));
        assert_eq!(of(Aggregate::Min, &[]), Value::Nil);
        assert_eq!(of(Aggregate::Min, &values), Value::Nil);
        assert_eq!(of(Aggregate::Min, &values[..1]), Value::Int(3));
    }
}
