//! The functions of PromQL and the types of their arguments.

use super::ast::ValueType;
use ValueType::{Matrix, Scalar, Text, Vector};

/// A function.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// The types of its arguments; the last stands for every further one.
    pub args: &'static [ValueType],
    /// How many arguments may be given.
    pub arity: Arity,
    /// What it gives.
    pub result: ValueType,
}

/// How many arguments a function takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    /// Exactly those listed.
    Exact,
    /// Those listed, of which the last may be absent or occur up to this many times.
    UpTo(usize),
    /// Those listed, of which the last may be absent or occur any number of times.
    Any,
}

impl Function {
    /// The function called `name`.
    pub fn find(name: &str) -> Option<&'static Self> {
        FUNCTIONS.binary_search_by(|function| function.name.cmp(name)).ok().map(|at| &FUNCTIONS[at])
    }

    /// The fewest and the most arguments; `None` for no bound.
    pub fn bounds(&self) -> (usize, Option<usize>) {
        let listed = self.args.len();
        match self.arity {
            Arity::Exact => (listed, Some(listed)),
            Arity::UpTo(times) => (listed - 1, Some(listed - 1 + times)),
            Arity::Any => (listed - 1, None),
        }
    }

    /// The type that argument `at` must have.
    pub fn arg_type(&self, at: usize) -> Option<ValueType> {
        self.args.get(at).or(self.args.last()).copied()
    }
}

const fn exact(name: &'static str, args: &'static [ValueType]) -> Function {
    Function { name, args, arity: Arity::Exact, result: Vector }
}

const fn scalar(name: &'static str, args: &'static [ValueType]) -> Function {
    Function { name, args, arity: Arity::Exact, result: Scalar }
}

const fn variadic(name: &'static str, args: &'static [ValueType], arity: Arity) -> Function {
    Function { name, args, arity, result: Vector }
}

/// All functions, by name.
pub static FUNCTIONS: &[Function] = &[
    exact("abs", &[Vector]),
    exact("absent", &[Vector]),
    exact("absent_over_time", &[Matrix]),
    exact("acos", &[Vector]),
    exact("acosh", &[Vector]),
    exact("asin", &[Vector]),
    exact("asinh", &[Vector]),
    exact("atan", &[Vector]),
    exact("atanh", &[Vector]),
    exact("avg_over_time", &[Matrix]),
    exact("ceil", &[Vector]),
    exact("changes", &[Matrix]),
    exact("clamp", &[Vector, Scalar, Scalar]),
    exact("clamp_max", &[Vector, Scalar]),
    exact("clamp_min", &[Vector, Scalar]),
    exact("cos", &[Vector]),
    exact("cosh", &[Vector]),
    exact("count_over_time", &[Matrix]),
    variadic("day_of_month", &[Vector], Arity::UpTo(1)),
    variadic("day_of_week", &[Vector], Arity::UpTo(1)),
    variadic("day_of_year", &[Vector], Arity::UpTo(1)),
    variadic("days_in_month", &[Vector], Arity::UpTo(1)),
    exact("deg", &[Vector]),
    exact("delta", &[Matrix]),
    exact("deriv", &[Matrix]),
    exact("double_exponential_smoothing", &[Matrix, Scalar, Scalar]),
    scalar("end", &[]),
    exact("exp", &[Vector]),
    exact("first_over_time", &[Matrix]),
    exact("floor", &[Vector]),
    exact("histogram_avg", &[Vector]),
    exact("histogram_count", &[Vector]),
    exact("histogram_fraction", &[Scalar, Scalar, Vector]),
    exact("histogram_quantile", &[Scalar, Vector]),
    variadic("histogram_quantiles", &[Vector, Text, Scalar, Scalar], Arity::UpTo(9)),
    exact("histogram_stddev", &[Vector]),
    exact("histogram_stdvar", &[Vector]),
    exact("histogram_sum", &[Vector]),
    variadic("hour", &[Vector], Arity::UpTo(1)),
    exact("idelta", &[Matrix]),
    exact("increase", &[Matrix]),
    variadic("info", &[Vector, Vector], Arity::UpTo(1)),
    exact("irate", &[Matrix]),
    variadic("label_join", &[Vector, Text, Text, Text], Arity::Any),
    exact("label_replace", &[Vector, Text, Text, Text, Text]),
    exact("last_over_time", &[Matrix]),
    exact("ln", &[Vector]),
    exact("log10", &[Vector]),
    exact("log2", &[Vector]),
    exact("mad_over_time", &[Matrix]),
    exact("max_over_time", &[Matrix]),
    exact("min_over_time", &[Matrix]),
    variadic("minute", &[Vector], Arity::UpTo(1)),
    variadic("month", &[Vector], Arity::UpTo(1)),
    scalar("pi", &[]),
    exact("predict_linear", &[Matrix, Scalar]),
    exact("present_over_time", &[Matrix]),
    exact("quantile_over_time", &[Scalar, Matrix]),
    exact("rad", &[Vector]),
    scalar("range", &[]),
    exact("rate", &[Matrix]),
    exact("resets", &[Matrix]),
    variadic("round", &[Vector, Scalar], Arity::UpTo(1)),
    scalar("scalar", &[Vector]),
    exact("sgn", &[Vector]),
    exact("sin", &[Vector]),
    exact("sinh", &[Vector]),
    exact("sort", &[Vector]),
    variadic("sort_by_label", &[Vector, Text], Arity::Any),
    variadic("sort_by_label_desc", &[Vector, Text], Arity::Any),
    exact("sort_desc", &[Vector]),
    exact("sqrt", &[Vector]),
    scalar("start", &[]),
    exact("stddev_over_time", &[Matrix]),
    exact("stdvar_over_time", &[Matrix]),
    scalar("step", &[]),
    exact("sum_over_time", &[Matrix]),
    exact("tan", &[Vector]),
    exact("tanh", &[Vector]),
    scalar("time", &[]),
    exact("timestamp", &[Vector]),
    exact("ts_of_first_over_time", &[Matrix]),
    exact("ts_of_last_over_time", &[Matrix]),
    exact("ts_of_max_over_time", &[Matrix]),
    exact("ts_of_min_over_time", &[Matrix]),
    exact("vector", &[Scalar]),
    variadic("year", &[Vector], Arity::UpTo(1)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_sorted_and_found() {
        assert!(FUNCTIONS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert_eq!(Function::find("rate").map(Function::bounds), Some((1, Some(1))));
        assert_eq!(Function::find("label_join").map(Function::bounds), Some((3, None)));
        assert_eq!(Function::find("round").map(Function::bounds), Some((1, Some(2))));
        assert_eq!(Function::find("Rate"), None);
    }
}
