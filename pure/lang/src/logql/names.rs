//! The names of functions and operators.

use super::ast::{BinaryOperator, Comparison, Conversion, LineOperator, MatchOperator, RangeFunction, VectorFunction};

const RANGE_FUNCTIONS: &[(RangeFunction, &str)] = &[
    (RangeFunction::CountOverTime, "count_over_time"),
    (RangeFunction::Rate, "rate"),
    (RangeFunction::RateCounter, "rate_counter"),
    (RangeFunction::BytesOverTime, "bytes_over_time"),
    (RangeFunction::BytesRate, "bytes_rate"),
    (RangeFunction::AvgOverTime, "avg_over_time"),
    (RangeFunction::SumOverTime, "sum_over_time"),
    (RangeFunction::MinOverTime, "min_over_time"),
    (RangeFunction::MaxOverTime, "max_over_time"),
    (RangeFunction::FirstOverTime, "first_over_time"),
    (RangeFunction::LastOverTime, "last_over_time"),
    (RangeFunction::StddevOverTime, "stddev_over_time"),
    (RangeFunction::StdvarOverTime, "stdvar_over_time"),
    (RangeFunction::QuantileOverTime, "quantile_over_time"),
    (RangeFunction::AbsentOverTime, "absent_over_time"),
];

const VECTOR_FUNCTIONS: &[(VectorFunction, &str)] = &[
    (VectorFunction::Sum, "sum"),
    (VectorFunction::Avg, "avg"),
    (VectorFunction::Min, "min"),
    (VectorFunction::Max, "max"),
    (VectorFunction::Count, "count"),
    (VectorFunction::Stddev, "stddev"),
    (VectorFunction::Stdvar, "stdvar"),
    (VectorFunction::Topk, "topk"),
    (VectorFunction::Bottomk, "bottomk"),
    (VectorFunction::ApproxTopk, "approx_topk"),
    (VectorFunction::Sort, "sort"),
    (VectorFunction::SortDesc, "sort_desc"),
];

fn by_name<T: Copy>(table: &[(T, &str)], name: &str) -> Option<T> {
    table.iter().find(|(_, own)| own.eq_ignore_ascii_case(name)).map(|(value, _)| *value)
}

fn name_of<T: Copy + PartialEq>(table: &[(T, &'static str)], value: T) -> &'static str {
    table.iter().find(|(own, _)| *own == value).map_or("", |(_, name)| name)
}

impl RangeFunction {
    /// The function of that name, in any case.
    pub fn by_name(name: &str) -> Option<Self> {
        by_name(RANGE_FUNCTIONS, name)
    }

    /// The function's name.
    pub fn name(self) -> &'static str {
        name_of(RANGE_FUNCTIONS, self)
    }

    /// Whether it works on lines without `unwrap`.
    pub fn takes_lines(self) -> bool {
        use RangeFunction::{AbsentOverTime, BytesOverTime, BytesRate, CountOverTime, Rate};
        matches!(self, CountOverTime | Rate | BytesOverTime | BytesRate | AbsentOverTime)
    }

    /// Whether it works on unwrapped values.
    pub fn takes_values(self) -> bool {
        use RangeFunction::{BytesOverTime, BytesRate, CountOverTime};
        !matches!(self, CountOverTime | BytesOverTime | BytesRate)
    }

    /// Whether it may be grouped.
    pub fn takes_grouping(self) -> bool {
        use RangeFunction::{AbsentOverTime, Rate, RateCounter, SumOverTime};
        self.takes_values() && !matches!(self, AbsentOverTime | Rate | RateCounter | SumOverTime)
    }
}

impl VectorFunction {
    /// The function of that name, in any case.
    pub fn by_name(name: &str) -> Option<Self> {
        by_name(VECTOR_FUNCTIONS, name)
    }

    /// The function's name.
    pub fn name(self) -> &'static str {
        name_of(VECTOR_FUNCTIONS, self)
    }

    /// Whether it takes a number of series.
    pub fn takes_count(self) -> bool {
        matches!(self, Self::Topk | Self::Bottomk | Self::ApproxTopk)
    }

    /// Whether it may be grouped.
    pub fn takes_grouping(self) -> bool {
        !matches!(self, Self::ApproxTopk | Self::Sort | Self::SortDesc)
    }
}

impl MatchOperator {
    /// The operator's sign.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Matches => "=~",
            Self::MatchesNot => "!~",
        }
    }

    /// The operator of that sign.
    pub fn by_sign(sign: &str) -> Option<Self> {
        [Self::Equal, Self::NotEqual, Self::Matches, Self::MatchesNot].into_iter().find(|own| own.sign() == sign)
    }

    /// Whether its text is a regular expression.
    pub fn is_pattern(self) -> bool {
        matches!(self, Self::Matches | Self::MatchesNot)
    }
}

impl LineOperator {
    /// The operator's sign.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Contains => "|=",
            Self::ContainsNot => "!=",
            Self::Matches => "|~",
            Self::MatchesNot => "!~",
            Self::Pattern => "|>",
            Self::PatternNot => "!>",
        }
    }

    /// The operator of that sign.
    pub fn by_sign(sign: &str) -> Option<Self> {
        use LineOperator::{Contains, ContainsNot, Matches, MatchesNot, Pattern, PatternNot};
        [Contains, ContainsNot, Matches, MatchesNot, Pattern, PatternNot].into_iter().find(|own| own.sign() == sign)
    }

    /// Whether lines that fit are those that go.
    pub fn is_negated(self) -> bool {
        matches!(self, Self::ContainsNot | Self::MatchesNot | Self::PatternNot)
    }
}

impl Comparison {
    /// The operator's sign.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
        }
    }

    /// The operator of that sign; `=` counts as `==`.
    pub fn by_sign(sign: &str) -> Option<Self> {
        use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        let sign = if sign == "=" { "==" } else { sign };
        [Equal, NotEqual, Greater, GreaterOrEqual, Less, LessOrEqual].into_iter().find(|own| own.sign() == sign)
    }

    /// Whether it holds between two numbers.
    pub fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
        }
    }
}

impl Conversion {
    /// The conversion's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Duration => "duration",
            Self::DurationSeconds => "duration_seconds",
            Self::Bytes => "bytes",
        }
    }

    /// The conversion of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Duration, Self::DurationSeconds, Self::Bytes].into_iter().find(|own| own.name() == name)
    }
}

impl BinaryOperator {
    /// The operator's sign.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Or => "or",
            Self::And => "and",
            Self::Unless => "unless",
            Self::Compare(comparison) => comparison.sign(),
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Power => "^",
        }
    }

    /// The operator of that sign or keyword.
    pub fn by_sign(sign: &str) -> Option<Self> {
        let plain = [
            Self::Or,
            Self::And,
            Self::Unless,
            Self::Add,
            Self::Subtract,
            Self::Multiply,
            Self::Divide,
            Self::Modulo,
            Self::Power,
        ];
        if let Some(operator) = plain.into_iter().find(|own| own.sign().eq_ignore_ascii_case(sign)) {
            return Some(operator);
        }
        if sign == "=" { None } else { Comparison::by_sign(sign).map(Self::Compare) }
    }

    /// How tightly it binds; a higher number binds tighter.
    pub fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Compare(_) => 3,
            Self::Add | Self::Subtract => 4,
            Self::Multiply | Self::Divide | Self::Modulo => 5,
            Self::Power => 6,
        }
    }

    /// Whether it is `and`, `or` or `unless`.
    pub fn is_set(self) -> bool {
        matches!(self, Self::Or | Self::And | Self::Unless)
    }
}
