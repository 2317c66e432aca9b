//! The tree of a PromQL query.

use std::fmt;

use super::functions::Function;
use crate::span::Span;

/// An expression and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// The bytes of the query that it covers.
    pub span: Span,
}

/// The kinds of expression.
#[derive(Debug, Clone, PartialEq)]
pub enum ExprKind {
    /// A number, or a duration in seconds.
    Number(Number),
    /// A quoted text.
    Text(Text),
    /// An expression in parentheses.
    Paren(Box<Expr>),
    /// `+expr` or `-expr`.
    Unary {
        /// Whether it is `-expr`.
        is_negative: bool,
        /// What the sign stands before.
        expr: Box<Expr>,
    },
    /// `left op right`.
    Binary(Box<Binary>),
    /// `sum by (label) (expr)` and its like.
    Aggregate(Box<Aggregate>),
    /// A call of a function.
    Call(Call),
    /// The current sample of each series that a selector names.
    Vector(Selector),
    /// The samples of a range of time of each series that a selector names.
    Matrix(Matrix),
    /// An expression evaluated again and again over a range of time.
    Subquery(Box<Subquery>),
}

/// What an expression gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One number.
    Scalar,
    /// One sample per series.
    Vector,
    /// A range of samples per series.
    Matrix,
    /// A text.
    Text,
}

/// A quoted text. Escapes may name single bytes, so it need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub Vec<u8>);

/// A number as written.
#[derive(Debug, Clone, Copy)]
pub struct Number {
    /// The number; seconds for a duration.
    pub value: f64,
    /// Whether it was written with units of time.
    pub is_duration: bool,
}

/// A binary operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Where the operator stands.
    pub op_span: Span,
    /// Whether a comparison gives 0 or 1 instead of filtering.
    pub returns_bool: bool,
    /// How series of the two sides find each other.
    pub matching: Matching,
    /// The left side.
    pub left: Expr,
    /// The right side.
    pub right: Expr,
}

/// The binary operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Modulo,
    /// `^`
    Power,
    /// `atan2`
    Atan2,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `<`
    Less,
    /// `>=`
    GreaterOrEqual,
    /// `<=`
    LessOrEqual,
    /// `</`: the part of a histogram below a value.
    TrimUpper,
    /// `>/`: the part of a histogram above a value.
    TrimLower,
    /// `and`
    And,
    /// `or`
    Or,
    /// `unless`
    Unless,
}

/// How series of two sides find each other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matching {
    /// Whether the labels named are the only ones compared (`on`) instead of the only ones ignored (`ignoring`).
    pub is_on: bool,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// How many of one side may meet how many of the other.
    pub cardinality: Cardinality,
    /// The labels of `group_left` or `group_right`, taken from the side of which there is one.
    pub include: Vec<String>,
    /// The value of a series missing on the left.
    pub fill_left: Option<f64>,
    /// The value of a series missing on the right.
    pub fill_right: Option<f64>,
}

/// How many series of one side may meet how many of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cardinality {
    /// One meets one.
    #[default]
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// An aggregation.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// Which.
    pub op: AggregateOp,
    /// What is aggregated.
    pub expr: Expr,
    /// The parameter of those that take one.
    pub param: Option<Expr>,
    /// The labels of `by` or `without`.
    pub grouping: Vec<String>,
    /// Whether the labels are those left out.
    pub is_without: bool,
}

/// The aggregations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateOp {
    /// `sum`
    Sum,
    /// `avg`
    Avg,
    /// `count`
    Count,
    /// `min`
    Min,
    /// `max`
    Max,
    /// `group`
    Group,
    /// `stddev`
    Stddev,
    /// `stdvar`
    Stdvar,
    /// `topk`
    Topk,
    /// `bottomk`
    Bottomk,
    /// `count_values`
    CountValues,
    /// `quantile`
    Quantile,
    /// `limitk`
    Limitk,
    /// `limit_ratio`
    LimitRatio,
}

/// A call of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Which.
    pub function: &'static Function,
    /// Its arguments.
    pub args: Vec<Expr>,
}

/// Which series, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    /// The name that stands before the braces.
    pub name: Option<String>,
    /// The conditions inside the braces, in their order; a bare quoted name is an equality on `__name__`.
    pub matchers: Vec<LabelMatcher>,
    /// The time modifiers.
    pub when: When,
    /// `anchored` or `smoothed`.
    pub extension: Option<Extension>,
}

/// A condition on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMatcher {
    /// The label.
    pub name: String,
    /// How it is compared.
    pub op: MatchOp,
    /// With what.
    pub value: String,
    /// Where it stands.
    pub span: Span,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Matches,
    /// `!~`
    MatchesNot,
}

/// How the edges of a range are filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extension {
    /// By the nearest sample before.
    Anchored,
    /// By interpolation.
    Smoothed,
}

/// The modifiers `@` and `offset`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct When {
    /// The time that `@` fixes.
    pub at: Option<At>,
    /// How far back `offset` shifts.
    pub offset: Option<Length>,
}

/// The time that `@` fixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// A time in milliseconds since 1970.
    Time(i64),
    /// The start of the query.
    Start,
    /// The end of the query.
    End,
}

/// A selector with a range.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Which series; holds the time modifiers too.
    pub selector: Selector,
    /// How long the range is.
    pub range: Length,
}

/// A subquery.
#[derive(Debug, Clone, PartialEq)]
pub struct Subquery {
    /// What is evaluated again and again.
    pub expr: Expr,
    /// How long the range is.
    pub range: Length,
    /// How far the evaluations are apart, where that is said.
    pub step: Option<Length>,
    /// The time modifiers.
    pub when: When,
}

/// A length of time, as an expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Length {
    /// What it is.
    pub kind: LengthKind,
    /// Where it stands.
    pub span: Span,
}

/// The kinds of length.
#[derive(Debug, Clone, PartialEq)]
pub enum LengthKind {
    /// A duration or a number of seconds.
    Number(Number),
    /// `step()`
    Step,
    /// `range()`
    Range,
    /// `+length` or `-length`
    Unary {
        /// Whether it is `-length`.
        is_negative: bool,
        /// What the sign stands before.
        length: Box<Length>,
    },
    /// `left op right`, with an arithmetic operator.
    Binary {
        /// The operator.
        op: BinaryOp,
        /// The left side.
        left: Box<Length>,
        /// The right side.
        right: Box<Length>,
    },
    /// `min(left, right)` or `max(left, right)`
    Extreme {
        /// Whether it is `max`.
        is_max: bool,
        /// The first argument.
        left: Box<Length>,
        /// The second argument.
        right: Box<Length>,
    },
    /// A length in parentheses.
    Paren(Box<Length>),
}

impl Expr {
    /// What the expression gives.
    pub fn value_type(&self) -> ValueType {
        match &self.kind {
            ExprKind::Number(_) => ValueType::Scalar,
            ExprKind::Text(_) => ValueType::Text,
            ExprKind::Paren(expr) | ExprKind::Unary { expr, .. } => expr.value_type(),
            ExprKind::Binary(binary) => match (binary.left.value_type(), binary.right.value_type()) {
                (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
                _ => ValueType::Vector,
            },
            ExprKind::Aggregate(_) | ExprKind::Vector(_) => ValueType::Vector,
            ExprKind::Call(call) => call.function.result,
            ExprKind::Matrix(_) | ExprKind::Subquery(_) => ValueType::Matrix,
        }
    }

    /// The expression inside any parentheses.
    pub fn bare(&self) -> &Self {
        match &self.kind {
            ExprKind::Paren(inner) => inner.bare(),
            _ => self,
        }
    }

    /// The expressions directly inside.
    pub fn children(&self) -> Vec<&Self> {
        match &self.kind {
            ExprKind::Paren(expr) | ExprKind::Unary { expr, .. } => vec![expr],
            ExprKind::Binary(binary) => vec![&binary.left, &binary.right],
            ExprKind::Aggregate(aggregate) => aggregate.param.iter().chain([&aggregate.expr]).collect(),
            ExprKind::Call(call) => call.args.iter().collect(),
            ExprKind::Subquery(subquery) => vec![&subquery.expr],
            _ => Vec::new(),
        }
    }

    /// The expressions directly inside, to be changed.
    pub fn children_mut(&mut self) -> Vec<&mut Self> {
        match &mut self.kind {
            ExprKind::Paren(expr) | ExprKind::Unary { expr, .. } => vec![expr],
            ExprKind::Binary(binary) => vec![&mut binary.left, &mut binary.right],
            ExprKind::Aggregate(aggregate) => aggregate.param.iter_mut().chain([&mut aggregate.expr]).collect(),
            ExprKind::Call(call) => call.args.iter_mut().collect(),
            ExprKind::Subquery(subquery) => vec![&mut subquery.expr],
            _ => Vec::new(),
        }
    }
}

impl BinaryOp {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Power => "^",
            Self::Atan2 => "atan2",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::Less => "<",
            Self::GreaterOrEqual => ">=",
            Self::LessOrEqual => "<=",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
        }
    }

    /// Whether it compares.
    pub fn is_comparison(self) -> bool {
        use BinaryOp::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        matches!(self, Equal | NotEqual | Greater | Less | GreaterOrEqual | LessOrEqual)
    }

    /// Whether it works on sets of series.
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }

    /// Whether the result is another quantity than the left side was, so that it loses the metric's name.
    pub fn changes_quantity(self) -> bool {
        use BinaryOp::{Add, Atan2, Divide, Modulo, Multiply, Power, Subtract};
        matches!(self, Add | Subtract | Divide | Multiply | Power | Modulo | Atan2)
    }
}

impl AggregateOp {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Sum,
        Self::Avg,
        Self::Count,
        Self::Min,
        Self::Max,
        Self::Group,
        Self::Stddev,
        Self::Stdvar,
        Self::Topk,
        Self::Bottomk,
        Self::CountValues,
        Self::Quantile,
        Self::Limitk,
        Self::LimitRatio,
    ];

    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::CountValues => "count_values",
            Self::Quantile => "quantile",
            Self::Limitk => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }

    /// What the parameter must be, of those that take one.
    pub fn param_type(self) -> Option<ValueType> {
        match self {
            Self::CountValues => Some(ValueType::Text),
            Self::Topk | Self::Bottomk | Self::Quantile | Self::Limitk | Self::LimitRatio => Some(ValueType::Scalar),
            _ => None,
        }
    }
}

impl MatchOp {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Matches => "=~",
            Self::MatchesNot => "!~",
        }
    }
}

impl Text {
    /// The text, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl PartialEq for Number {
    /// NaN equals NaN here: the same was written.
    fn eq(&self, other: &Self) -> bool {
        self.is_duration == other.is_duration
            && (self.value == other.value || (self.value.is_nan() && other.value.is_nan()))
    }
}

impl fmt::Display for ValueType {
    /// As Prometheus's documentation calls it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Scalar => "scalar",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            Self::Text => "string",
        })
    }
}
