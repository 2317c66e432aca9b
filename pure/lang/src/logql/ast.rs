//! The tree of a LogQL query.
//!
//! Every part that can be refused or asked about keeps its span. Patterns, templates and addresses are read already.

use super::address::AddressRange;
use super::json_path::PathStep;
use super::pattern::Pattern;
use super::template::Template;
use crate::span::Span;

/// A whole query.
#[derive(Debug, Clone)]
pub enum Query {
    /// Asks for lines.
    Log(LogQuery),
    /// Asks for numbers.
    Metric(Metric),
}

/// Streams, and what happens to their lines.
#[derive(Debug, Clone)]
pub struct LogQuery {
    /// The selector's conditions, all of which a stream must meet.
    pub matchers: Vec<Matcher>,
    /// The pipeline.
    pub stages: Vec<Stage>,
    /// Where selector and pipeline stand.
    pub span: Span,
}

/// A condition on a label's text.
#[derive(Debug, Clone, PartialEq)]
pub struct Matcher {
    /// The label.
    pub name: String,
    /// How it is compared.
    pub operator: MatchOperator,
    /// The text or pattern.
    pub value: String,
    /// Where the condition stands.
    pub span: Span,
}

/// How a text is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchOperator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Matches,
    /// `!~`
    MatchesNot,
}

/// One stage of a pipeline.
#[derive(Debug, Clone)]
pub struct Stage {
    /// What it does.
    pub kind: StageKind,
    /// Where it stands, from its bar or operator.
    pub span: Span,
}

/// What a stage does.
#[derive(Debug, Clone)]
pub enum StageKind {
    /// Keeps lines by their text.
    LineFilter(LineFilter),
    /// `json`, with what it extracts; everything where the list is empty.
    Json(Vec<JsonExtraction>),
    /// `logfmt`
    Logfmt {
        /// `--strict`: a malformed line is an error.
        is_strict: bool,
        /// `--keep-empty`: keys without values become labels.
        keeps_empty: bool,
        /// What it extracts; everything where the list is empty.
        extractions: Vec<Extraction>,
    },
    /// `regexp`, by its named groups.
    Regexp(String),
    /// `pattern`
    Pattern(Pattern),
    /// `unpack`
    Unpack,
    /// Keeps lines by their labels.
    LabelFilter(LabelFilter),
    /// `line_format`
    LineFormat(Template),
    /// `label_format`
    LabelFormat(Vec<LabelFormat>),
    /// `decolorize`
    Decolorize,
    /// `drop`
    Drop(Vec<LabelPick>),
    /// `keep`
    Keep(Vec<LabelPick>),
    /// `unwrap`
    Unwrap(Unwrap),
}

/// A line filter with its alternatives.
#[derive(Debug, Clone)]
pub struct LineFilter {
    /// How lines are compared.
    pub operator: LineOperator,
    /// Any of which suffices (`|=`, `|~`, `|>`), or none of which may hold (`!=`, `!~`, `!>`).
    pub alternatives: Vec<LineMatch>,
}

/// How a line is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineOperator {
    /// `|=`
    Contains,
    /// `!=`
    ContainsNot,
    /// `|~`
    Matches,
    /// `!~`
    MatchesNot,
    /// `|>`
    Pattern,
    /// `!>`
    PatternNot,
}

/// What a line is compared with.
#[derive(Debug, Clone)]
pub enum LineMatch {
    /// A text, or a regular expression, by the operator.
    Text(String),
    /// A pattern of texts and `<_>`.
    Pattern(Pattern),
    /// `ip("…")`: the line holds an address of the range.
    Address(AddressRange),
}

/// A label and the path in the JSON line that it takes its value from.
#[derive(Debug, Clone)]
pub struct JsonExtraction {
    /// The label to set.
    pub label: String,
    /// The path as written.
    pub expression: String,
    /// The path as read.
    pub path: Vec<PathStep>,
}

/// A label and the key that it takes its value from.
#[derive(Debug, Clone)]
pub struct Extraction {
    /// The label to set.
    pub label: String,
    /// The key in the line.
    pub key: String,
}

/// A condition on labels.
#[derive(Debug, Clone)]
pub enum LabelFilter {
    /// Both hold.
    And(Box<LabelFilter>, Box<LabelFilter>),
    /// One holds.
    Or(Box<LabelFilter>, Box<LabelFilter>),
    /// A text.
    Text(Matcher),
    /// A number, duration or size.
    Quantity {
        /// The label.
        label: String,
        /// How it is compared.
        operator: Comparison,
        /// With what.
        quantity: Quantity,
    },
    /// An address: `label = ip("…")`.
    Address {
        /// The label.
        label: String,
        /// Whether it must lie outside (`!=`).
        is_negated: bool,
        /// The range.
        range: AddressRange,
    },
}

/// A quantity in a label filter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quantity {
    /// A plain number.
    Number(f64),
    /// Nanoseconds.
    Duration(i64),
    /// Bytes.
    Bytes(f64),
}

/// How numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `==`, in label filters also `=`.
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
}

/// One assignment of `label_format`.
#[derive(Debug, Clone)]
pub struct LabelFormat {
    /// The label to set.
    pub label: String,
    /// From what.
    pub value: LabelFormatValue,
}

/// What `label_format` sets a label from.
#[derive(Debug, Clone)]
pub enum LabelFormatValue {
    /// Another label, which disappears.
    Rename(String),
    /// A template.
    Template(Template),
}

/// A label of `drop` or `keep`: by name, or by name and value.
#[derive(Debug, Clone)]
pub enum LabelPick {
    /// Whatever its value.
    Name(String),
    /// Where its value fits.
    Matching(Matcher),
}

/// `unwrap`
#[derive(Debug, Clone)]
pub struct Unwrap {
    /// The label whose value becomes the sample.
    pub label: String,
    /// How the value is read.
    pub conversion: Option<Conversion>,
}

/// How `unwrap` reads a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversion {
    /// `duration`, in seconds.
    Duration,
    /// `duration_seconds`, the same.
    DurationSeconds,
    /// `bytes`
    Bytes,
}

/// A query for numbers.
#[derive(Debug, Clone)]
pub struct Metric {
    /// What it computes.
    pub kind: MetricKind,
    /// Where it stands.
    pub span: Span,
}

/// What a metric query computes.
#[derive(Debug, Clone)]
pub enum MetricKind {
    /// A number.
    Literal(f64),
    /// `vector(n)`
    Vector(f64),
    /// An aggregation of lines over a range.
    Range(RangeAggregation),
    /// An aggregation of series.
    Aggregation(Box<VectorAggregation>),
    /// An operator between two metrics.
    Binary(Box<Binary>),
    /// `label_replace`
    LabelReplace(Box<LabelReplace>),
}

/// A function of the lines of a range.
#[derive(Debug, Clone)]
pub struct RangeAggregation {
    /// The function.
    pub function: RangeFunction,
    /// The number before the range, in `quantile_over_time`.
    pub parameter: Option<f64>,
    /// Selector and pipeline.
    pub query: LogQuery,
    /// The range, in nanoseconds.
    pub range_ns: i64,
    /// How far it is moved back, in nanoseconds.
    pub offset_ns: i64,
    /// By which labels the lines are grouped; by all where there is none.
    pub grouping: Option<Grouping>,
}

/// A function over a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the function of its name")]
pub enum RangeFunction {
    CountOverTime,
    Rate,
    RateCounter,
    BytesOverTime,
    BytesRate,
    AvgOverTime,
    SumOverTime,
    MinOverTime,
    MaxOverTime,
    FirstOverTime,
    LastOverTime,
    StddevOverTime,
    StdvarOverTime,
    QuantileOverTime,
    AbsentOverTime,
}

/// `by (…)` or `without (…)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grouping {
    /// Whether the labels are those that go.
    pub is_without: bool,
    /// The labels.
    pub labels: Vec<String>,
}

/// A function over the series of one instant.
#[derive(Debug, Clone)]
pub struct VectorAggregation {
    /// The function.
    pub function: VectorFunction,
    /// How many series `topk`, `bottomk` and `approx_topk` keep.
    pub count: Option<usize>,
    /// Of what.
    pub of: Metric,
    /// By which labels; all series together where there is none.
    pub grouping: Option<Grouping>,
}

/// A function over series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the function of its name")]
pub enum VectorFunction {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    ApproxTopk,
    Sort,
    SortDesc,
}

/// An operator between two metrics.
#[derive(Debug, Clone)]
pub struct Binary {
    /// The operator.
    pub operator: BinaryOperator,
    /// The left side.
    pub left: Metric,
    /// The right side.
    pub right: Metric,
    /// `bool`: a comparison gives 1 or 0.
    pub is_bool: bool,
    /// How series find each other.
    pub matching: Matching,
}

/// How the series of two sides find each other.
#[derive(Debug, Clone, Default)]
pub struct Matching {
    /// `on (…)` or `ignoring (…)`; all labels where there is none.
    pub labels: Option<MatchingLabels>,
    /// Which side may have many series for one of the other.
    pub cardinality: Cardinality,
    /// Labels of the one side that results keep, from `group_left (…)` and `group_right (…)`.
    pub include: Vec<String>,
}

/// `on (…)` or `ignoring (…)`.
#[derive(Debug, Clone)]
pub struct MatchingLabels {
    /// Whether only these labels count (`on`).
    pub is_on: bool,
    /// The labels.
    pub labels: Vec<String>,
}

/// Which side may have many series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cardinality {
    /// Neither.
    #[default]
    OneToOne,
    /// The left: `group_left`.
    ManyToOne,
    /// The right: `group_right`.
    OneToMany,
}

/// A binary operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the operator of its name")]
pub enum BinaryOperator {
    Or,
    And,
    Unless,
    Compare(Comparison),
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
}

/// `label_replace`
#[derive(Debug, Clone)]
pub struct LabelReplace {
    /// Whose labels.
    pub of: Metric,
    /// The label to set.
    pub destination: String,
    /// What it is set to, with `$1` and `$name`.
    pub replacement: String,
    /// The label that is read.
    pub source: String,
    /// The pattern that its whole value must fit.
    pub pattern: String,
}
