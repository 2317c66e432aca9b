//! The tree of a TraceQL query.

use crate::span::Span;

/// A whole query.
#[derive(Debug, Clone)]
pub struct Query {
    /// What it asks for.
    pub kind: QueryKind,
    /// `with (…)`, in order.
    pub hints: Vec<Hint>,
}

/// What a query asks for.
#[derive(Debug, Clone)]
pub enum QueryKind {
    /// Traces.
    Search(Pipeline),
    /// Numbers over time.
    Metrics(Metrics),
}

/// A hint to the engine.
#[derive(Debug, Clone)]
pub struct Hint {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Static,
    /// Where it stands.
    pub span: Span,
}

/// Stages, each of which gets the spansets of the one before.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// The stages; the first is of spansets.
    pub stages: Vec<Stage>,
}

/// A stage of a pipeline.
#[derive(Debug, Clone)]
pub enum Stage {
    /// Spansets by filters and the relations between them.
    Spansets(Spansets),
    /// Keeps spansets by a comparison of aggregates.
    Scalar(ScalarFilter),
    /// Splits spansets by a value.
    By(Field),
    /// Joins the spansets of a trace.
    Coalesce,
    /// Names attributes to be shown.
    Select(Vec<Attribute>),
}

/// Spansets.
#[derive(Debug, Clone)]
pub enum Spansets {
    /// `{ … }`; every span where there is no condition.
    Filter(Option<Field>),
    /// Two of them in relation.
    Operation {
        /// The relation.
        operator: SpansetOperator,
        /// The left side.
        left: Box<Spansets>,
        /// The right side.
        right: Box<Spansets>,
    },
    /// `( … | … )`
    Pipeline(Box<Pipeline>),
}

/// How two spansets of one trace are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpansetOperator {
    /// `&&`: both, where neither is empty.
    And,
    /// `||`: both.
    Or,
    /// A structural relation.
    Structural {
        /// Which relation.
        relation: Relation,
        /// Which spans are the result.
        result: StructuralResult,
    },
}

/// How a span of the right side stands to one of the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// `>`: it is its child.
    Child,
    /// `>>`: it is its descendant.
    Descendant,
    /// `<`: it is its parent.
    Parent,
    /// `<<`: it is its ancestor.
    Ancestor,
    /// `~`: they have one parent.
    Sibling,
}

/// Which spans a structural operator gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StructuralResult {
    /// Those of the right side that stand so.
    Right,
    /// Those of the right side that stand so to none (`!`).
    RightWithout,
    /// Those of both sides that stand so (`&`).
    Both,
}

/// A comparison of aggregates.
#[derive(Debug, Clone)]
pub struct ScalarFilter {
    /// The left side.
    pub left: Scalar,
    /// How it is compared.
    pub operator: Operator,
    /// The right side.
    pub right: Scalar,
    /// Where it stands.
    pub span: Span,
}

/// A number of a spanset.
#[derive(Debug, Clone)]
pub enum Scalar {
    /// A number or duration.
    Static(Static),
    /// An aggregate over the spans.
    Aggregate {
        /// The function.
        function: Aggregate,
        /// Of what; nothing in `count()`.
        of: Option<Field>,
    },
    /// Arithmetic.
    Operation {
        /// The operator.
        operator: Operator,
        /// The left side.
        left: Box<Scalar>,
        /// The right side.
        right: Box<Scalar>,
    },
}

/// A function over the spans of a spanset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the function of its name")]
pub enum Aggregate {
    Count,
    Min,
    Max,
    Avg,
    Sum,
}

/// An expression over one span.
#[derive(Debug, Clone)]
pub struct Field {
    /// What it is.
    pub kind: FieldKind,
    /// Where it stands.
    pub span: Span,
}

/// What an expression is.
#[derive(Debug, Clone)]
pub enum FieldKind {
    /// A value.
    Static(Static),
    /// An attribute or intrinsic.
    Attribute(Attribute),
    /// `!x`
    Not(Box<Field>),
    /// `-x`
    Negative(Box<Field>),
    /// Two joined by an operator.
    Binary {
        /// The operator.
        operator: Operator,
        /// The left side.
        left: Box<Field>,
        /// The right side.
        right: Box<Field>,
    },
}

/// A value that a query says.
#[derive(Debug, Clone, PartialEq)]
pub enum Static {
    /// No value.
    Nil,
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(String),
    /// A boolean.
    Bool(bool),
    /// Nanoseconds.
    Duration(i64),
    /// A status.
    Status(Status),
    /// A kind of span.
    Kind(SpanKind),
}

/// A span's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the status of its name")]
pub enum Status {
    Error,
    Ok,
    Unset,
}

/// A span's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the kind of its name")]
pub enum SpanKind {
    Unspecified,
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

/// An operator between values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the operator of its name")]
pub enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Matches,
    MatchesNot,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
}

/// An attribute or intrinsic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attribute {
    /// An attribute of the scope.
    Named(Scope, String),
    /// What every span has.
    Intrinsic(Intrinsic),
}

/// Whose attribute it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// `.name`: the span's, else the resource's.
    Any,
    /// `span.name`
    Span,
    /// `resource.name`
    Resource,
    /// `event.name`
    Event,
    /// `link.name`
    Link,
    /// `instrumentation.name`
    Instrumentation,
}

/// What every span, trace, event, link or scope has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the intrinsic of its name")]
pub enum Intrinsic {
    Duration,
    Name,
    Status,
    StatusMessage,
    Kind,
    ChildCount,
    SpanId,
    ParentId,
    NestedSetLeft,
    NestedSetRight,
    NestedSetParent,
    TraceId,
    TraceDuration,
    RootName,
    RootServiceName,
    EventName,
    EventTimeSinceStart,
    LinkTraceId,
    LinkSpanId,
    InstrumentationName,
    InstrumentationVersion,
}

/// A query for numbers over time.
#[derive(Debug, Clone)]
pub enum Metrics {
    /// Spans, a function of them over time, and functions of its series.
    Pipeline {
        /// Which spans.
        spans: Pipeline,
        /// The function.
        function: MetricsFunction,
        /// By which attributes series are made.
        by: Vec<Attribute>,
        /// What is done with the series.
        seconds: Vec<SecondStage>,
    },
    /// Arithmetic between two, or with a number.
    Operation {
        /// The operator.
        operator: Operator,
        /// The left side.
        left: Box<Metrics>,
        /// The right side.
        right: Box<Metrics>,
        /// What is done with the series.
        seconds: Vec<SecondStage>,
    },
    /// A number.
    Number(f64),
}

/// A function of spans over time.
#[derive(Debug, Clone)]
pub enum MetricsFunction {
    /// `rate()`
    Rate,
    /// `count_over_time()`
    CountOverTime,
    /// `min_over_time(x)`
    MinOverTime(Attribute),
    /// `max_over_time(x)`
    MaxOverTime(Attribute),
    /// `avg_over_time(x)`
    AvgOverTime(Attribute),
    /// `sum_over_time(x)`
    SumOverTime(Attribute),
    /// `histogram_over_time(x)`
    HistogramOverTime(Attribute),
    /// `quantile_over_time(x, q, …)`
    QuantileOverTime(Attribute, Vec<f64>),
    /// `compare({ … }, n, start, end)`
    Compare {
        /// Which spans are selected; the others are the baseline.
        selection: Box<Option<Field>>,
        /// How many values of each attribute are shown.
        top: usize,
        /// The first and last nanosecond of the selection.
        window_ns: Option<(i64, i64)>,
    },
}

/// A function of series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SecondStage {
    /// `topk(n)`
    Topk(usize),
    /// `bottomk(n)`
    Bottomk(usize),
    /// A comparison with a number, which keeps the values for which it holds.
    Compare(Operator, f64),
}
