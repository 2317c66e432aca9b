//! Pipelines over the spans of one trace.

use tidemill_lang::traceql::ast::{Aggregate, Operator, Pipeline, Scalar, SpansetOperator, Spansets, Stage, Static};
use tidemill_lang::traceql::print::{print_field, print_scalar};

use super::aggregate::aggregate;
use super::condition::{Expression, View};
use super::structure::Trace;
use super::value::{Value, calculate, compare};
use crate::error::Result;

/// Spans of a trace, with what the pipeline found out about them together.
#[derive(Debug, Clone, Default)]
pub(super) struct Spanset {
    pub spans: Vec<View>,
    /// Names with values, such as `count()`.
    pub attributes: Vec<(String, Value)>,
}

/// A pipeline, ready to run.
#[derive(Debug)]
pub(super) struct Stages(Vec<Step>);

#[derive(Debug)]
enum Step {
    Spansets(Node),
    Scalar { left: ScalarNode, operator: Operator, right: ScalarNode },
    By(String, Expression),
    Coalesce,
}

#[derive(Debug)]
enum Node {
    Every,
    Filter(Expression),
    Operation(SpansetOperator, Box<Node>, Box<Node>),
    Pipeline(Stages),
}

#[derive(Debug)]
enum ScalarNode {
    Static(Value),
    Aggregate { name: String, function: Aggregate, of: Option<Expression> },
    Operation(Operator, Box<ScalarNode>, Box<ScalarNode>),
}

impl Stages {
    pub fn new(pipeline: &Pipeline) -> Result<Self> {
        let mut steps = Vec::new();
        for stage in &pipeline.stages {
            match stage {
                Stage::Spansets(spansets) => steps.push(Step::Spansets(Node::new(spansets)?)),
                Stage::Scalar(filter) => steps.push(Step::Scalar {
                    left: ScalarNode::new(&filter.left)?,
                    operator: filter.operator,
                    right: ScalarNode::new(&filter.right)?,
                }),
                Stage::By(field) => {
                    steps.push(Step::By(format!("by({})", print_field(field)), Expression::new(field)?));
                }
                Stage::Coalesce => steps.push(Step::Coalesce),
                Stage::Select(_) => {}
            }
        }
        Ok(Self(steps))
    }

    /// The spansets that the trace gives; none of them is empty.
    pub fn run(&self, trace: &Trace<'_>) -> Vec<Spanset> {
        let every = Spanset { spans: (0..trace.rows.len()).map(View::of).collect(), attributes: Vec::new() };
        self.run_over(trace, every)
    }

    fn run_over(&self, trace: &Trace<'_>, start: Spanset) -> Vec<Spanset> {
        let mut spansets = vec![start];
        for step in &self.0 {
            spansets = match step {
                Step::Spansets(node) => spansets
                    .into_iter()
                    .map(|own| {
                        let found = node.run(trace, &own);
                        Spanset { spans: found.spans, attributes: joined(own.attributes, found.attributes) }
                    })
                    .filter(|own| !own.spans.is_empty())
                    .collect(),
                Step::Scalar { left, operator, right } => spansets
                    .into_iter()
                    .filter_map(|mut own| {
                        let mut found = Vec::new();
                        let (left, right) = (left.value(trace, &own, &mut found), right.value(trace, &own, &mut found));
                        own.attributes = joined(own.attributes, found);
                        compare(*operator, &left, &right).then_some(own)
                    })
                    .collect(),
                Step::By(name, expression) => {
                    spansets.into_iter().flat_map(|own| split(trace, own, name, expression)).collect()
                }
                Step::Coalesce => coalesce(spansets),
            };
        }
        spansets
    }
}

/// The attributes with more; of a name that occurs twice the last value stands.
fn joined(mut attributes: Vec<(String, Value)>, more: Vec<(String, Value)>) -> Vec<(String, Value)> {
    for (name, value) in more {
        match attributes.iter_mut().find(|(own, _)| *own == name) {
            Some((_, own)) => *own = value,
            None => attributes.push((name, value)),
        }
    }
    attributes
}

fn split(trace: &Trace<'_>, spanset: Spanset, name: &str, by: &Expression) -> Vec<Spanset> {
    let mut groups: Vec<(Value, Spanset)> = Vec::new();
    for view in spanset.spans {
        let value = by.value(trace, view);
        if value == Value::Nil {
            continue;
        }
        match groups.iter_mut().find(|(own, _)| *own == value) {
            Some((_, group)) => group.spans.push(view),
            None => {
                let attributes = joined(spanset.attributes.clone(), vec![(name.to_owned(), value.clone())]);
                groups.push((value, Spanset { spans: vec![view], attributes }));
            }
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

fn coalesce(spansets: Vec<Spanset>) -> Vec<Spanset> {
    let spans = union(spansets.into_iter().flat_map(|own| own.spans));
    if spans.is_empty() { Vec::new() } else { vec![Spanset { spans, attributes: Vec::new() }] }
}

/// The views, each span once, in order of the spans.
fn union(views: impl Iterator<Item = View>) -> Vec<View> {
    let mut all: Vec<View> = views.collect();
    all.sort_by_key(|view| view.span);
    all.dedup_by_key(|view| view.span);
    all
}

impl Node {
    fn new(spansets: &Spansets) -> Result<Self> {
        Ok(match spansets {
            Spansets::Filter(None) => Self::Every,
            Spansets::Filter(Some(field)) => Self::Filter(Expression::new(field)?),
            Spansets::Operation { operator, left, right } => {
                Self::Operation(*operator, Box::new(Self::new(left)?), Box::new(Self::new(right)?))
            }
            Spansets::Pipeline(pipeline) => Self::Pipeline(Stages::new(pipeline)?),
        })
    }

    fn run(&self, trace: &Trace<'_>, input: &Spanset) -> Spanset {
        match self {
            Self::Every => Spanset { spans: input.spans.clone(), attributes: Vec::new() },
            Self::Filter(condition) => {
                let spans = input.spans.iter().filter_map(|view| condition.find(trace, *view)).collect();
                Spanset { spans, attributes: Vec::new() }
            }
            Self::Pipeline(stages) => {
                let spansets = stages.run_over(trace, input.clone());
                let attributes = spansets.iter().fold(Vec::new(), |all, own| joined(all, own.attributes.clone()));
                Spanset { spans: union(spansets.into_iter().flat_map(|own| own.spans)), attributes }
            }
            Self::Operation(operator, left, right) => {
                let (left, right) = (left.run(trace, input), right.run(trace, input));
                let spans = match operator {
                    SpansetOperator::And if left.spans.is_empty() || right.spans.is_empty() => Vec::new(),
                    SpansetOperator::And | SpansetOperator::Or => union(left.spans.into_iter().chain(right.spans)),
                    SpansetOperator::Structural { relation, result } => {
                        let set = |views: &[View]| {
                            let mut set = vec![false; trace.rows.len()];
                            views.iter().for_each(|view| set[view.span] = true);
                            set
                        };
                        let kept = trace.related(*relation, *result, &set(&left.spans), &set(&right.spans));
                        union(right.spans.into_iter().chain(left.spans).filter(|view| kept[view.span]))
                    }
                };
                Spanset { spans, attributes: Vec::new() }
            }
        }
    }
}

impl ScalarNode {
    fn new(scalar: &Scalar) -> Result<Self> {
        Ok(match scalar {
            Scalar::Static(value) => Self::Static(match value {
                Static::Duration(value) => Value::Duration(*value),
                other => Value::of_static(other),
            }),
            Scalar::Aggregate { function, of } => Self::Aggregate {
                name: print_scalar(scalar),
                function: *function,
                of: of.as_ref().map(Expression::new).transpose()?,
            },
            Scalar::Operation { operator, left, right } => {
                Self::Operation(*operator, Box::new(Self::new(left)?), Box::new(Self::new(right)?))
            }
        })
    }

    fn value(&self, trace: &Trace<'_>, spanset: &Spanset, found: &mut Vec<(String, Value)>) -> Value {
        match self {
            Self::Static(value) => value.clone(),
            Self::Aggregate { name, function, of } => {
                let value = match of {
                    None => Value::Int(spanset.spans.len() as i64),
                    Some(of) => aggregate(*function, spanset.spans.iter().map(|view| of.value(trace, *view))),
                };
                found.push((name.clone(), value.clone()));
                value
            }
            Self::Operation(operator, left, right) => {
                let (left, right) = (left.value(trace, spanset, found), right.value(trace, spanset, found));
                calculate(*operator, &left, &right)
            }
        }
    }
}
