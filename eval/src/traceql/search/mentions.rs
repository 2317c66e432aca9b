//! What a query mentions of spans, and which of it an answer shows.
//!
//! An attribute that a query compares with a value is shown where some of the comparisons hold, one that it uses otherwise wherever it
//! is there. Start and duration stand in every span, and what is the same for all spans of a trace in the trace.

use regex::Regex;
use tidemill_lang::go_regex::compile_anchored_regex;
use tidemill_lang::traceql::ast::{
    Attribute, Field, FieldKind, Intrinsic, Operator, Pipeline, Scalar, Spansets, Stage, Static,
};

use crate::traceql::condition::{View, attribute_value};
use crate::traceql::structure::Trace;
use crate::traceql::value::{Value, compare, matches_pattern};

/// What a query mentions.
#[derive(Debug, Default)]
pub(super) struct Mentions(Vec<Mention>);

#[derive(Debug)]
struct Mention {
    attribute: Attribute,
    /// Whether it is used other than in a comparison with a value.
    is_used: bool,
    /// Whether it is named by `select`.
    is_selected: bool,
    /// Whether it is compared with nil.
    is_absence_shown: bool,
    tests: Vec<Test>,
}

#[derive(Debug)]
enum Test {
    Compare(Operator, Value),
    Matches(Operator, Regex),
}

impl Test {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Self::Compare(operator, other) => compare(*operator, value, other),
            Self::Matches(operator, regex) => matches_pattern(*operator, value, regex),
        }
    }
}

impl Mentions {
    pub fn of(pipeline: &Pipeline) -> Self {
        let mut own = Self::default();
        own.read_pipeline(pipeline);
        own
    }

    pub fn attributes(&self) -> impl Iterator<Item = &Attribute> {
        self.0.iter().map(|mention| &mention.attribute)
    }

    /// Whether the answer names the span.
    pub fn shows_name(&self, trace: &Trace<'_>, view: View) -> bool {
        self.0
            .iter()
            .filter(|mention| mention.attribute == Attribute::Intrinsic(Intrinsic::Name))
            .any(|mention| mention.shown(trace, view).is_some())
    }

    /// The attributes that the answer shows of the span, sorted by name.
    pub fn shown(&self, trace: &Trace<'_>, view: View) -> Vec<(String, Value)> {
        use Intrinsic as I;
        let mut shown: Vec<(String, Value)> = self
            .0
            .iter()
            .filter(|mention| match mention.attribute {
                Attribute::Named(..) => true,
                Attribute::Intrinsic(intrinsic) => {
                    !matches!(
                        intrinsic,
                        I::Duration
                            | I::Name
                            | I::SpanId
                            | I::TraceId
                            | I::TraceDuration
                            | I::RootName
                            | I::RootServiceName
                    ) && (mention.is_selected || !is_place(intrinsic))
                }
            })
            .filter_map(|mention| Some((mention.attribute.short().to_owned(), mention.shown(trace, view)?)))
            .collect();
        shown.sort_by(|left, right| left.0.cmp(&right.0));
        shown
    }

    fn mention(&mut self, attribute: &Attribute) -> &mut Mention {
        let at = self.0.iter().position(|own| own.attribute == *attribute).unwrap_or_else(|| {
            let attribute = attribute.clone();
            self.0.push(Mention {
                attribute,
                is_used: false,
                is_selected: false,
                is_absence_shown: false,
                tests: Vec::new(),
            });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    fn read_pipeline(&mut self, pipeline: &Pipeline) {
        for stage in &pipeline.stages {
            match stage {
                Stage::Spansets(spansets) => self.read_spansets(spansets),
                Stage::Scalar(filter) => {
                    self.read_scalar(&filter.left);
                    self.read_scalar(&filter.right);
                }
                Stage::By(field) => self.read_field(field),
                Stage::Coalesce => {}
                Stage::Select(attributes) => {
                    for attribute in attributes {
                        let mention = self.mention(attribute);
                        (mention.is_used, mention.is_selected) = (true, true);
                    }
                }
            }
        }
    }

    fn read_spansets(&mut self, spansets: &Spansets) {
        match spansets {
            Spansets::Filter(None) => {}
            Spansets::Filter(Some(field)) => self.read_field(field),
            Spansets::Operation { left, right, .. } => {
                self.read_spansets(left);
                self.read_spansets(right);
            }
            Spansets::Pipeline(pipeline) => self.read_pipeline(pipeline),
        }
    }

    fn read_scalar(&mut self, scalar: &Scalar) {
        match scalar {
            Scalar::Static(_) | Scalar::Aggregate { of: None, .. } => {}
            Scalar::Aggregate { of: Some(field), .. } => self.read_field(field),
            Scalar::Operation { left, right, .. } => {
                self.read_scalar(left);
                self.read_scalar(right);
            }
        }
    }

    fn read_field(&mut self, field: &Field) {
        match &field.kind {
            FieldKind::Static(_) => {}
            FieldKind::Attribute(attribute) => self.mention(attribute).is_used = true,
            FieldKind::Not(inner) | FieldKind::Negative(inner) => self.read_field(inner),
            FieldKind::Binary { operator, left, right } => match (&left.kind, &right.kind) {
                (FieldKind::Attribute(attribute), FieldKind::Static(value)) if operator.is_comparison() => {
                    self.read_comparison(attribute, *operator, value);
                }
                (FieldKind::Static(value), FieldKind::Attribute(attribute)) if operator.is_comparison() => {
                    self.read_comparison(attribute, mirrored(*operator), value);
                }
                _ => {
                    self.read_field(left);
                    self.read_field(right);
                }
            },
        }
    }

    fn read_comparison(&mut self, attribute: &Attribute, operator: Operator, value: &Static) {
        let mention = self.mention(attribute);
        match value {
            Static::Nil if operator == Operator::Equal => mention.is_absence_shown = true,
            Static::Nil => mention.is_used = true,
            Static::Text(pattern) if operator.is_pattern() => {
                mention.tests.extend(compile_anchored_regex(pattern).ok().map(|regex| Test::Matches(operator, regex)));
            }
            value => mention.tests.push(Test::Compare(operator, Value::of_static(value))),
        }
    }
}

/// Whether it tells where a span stands among those of its trace, which is shown to who asks for it.
fn is_place(intrinsic: Intrinsic) -> bool {
    matches!(intrinsic, Intrinsic::NestedSetLeft | Intrinsic::NestedSetRight | Intrinsic::NestedSetParent)
}

fn mirrored(operator: Operator) -> Operator {
    match operator {
        Operator::Greater => Operator::Less,
        Operator::GreaterOrEqual => Operator::LessOrEqual,
        Operator::Less => Operator::Greater,
        Operator::LessOrEqual => Operator::GreaterOrEqual,
        other => other,
    }
}

impl Mention {
    fn shown(&self, trace: &Trace<'_>, view: View) -> Option<Value> {
        let value = attribute_value(&self.attribute, trace, view);
        let is_shown = |value: &Value| self.is_used || self.tests.iter().any(|test| test.holds(value));
        match value {
            Value::Nil => self.is_absence_shown.then(|| Value::text("nil")),
            Value::Other => None,
            Value::Array(list) => {
                let mut list: Vec<Value> = list.into_iter().filter(is_shown).collect();
                match list.len() {
                    0 => None,
                    1 => list.pop(),
                    _ => Some(Value::Array(list)),
                }
            }
            value => is_shown(&value).then_some(value),
        }
    }
}
