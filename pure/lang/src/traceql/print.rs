//! Trees as text again, in one line.

use super::ast::*;

/// `query` as text that reads back as the same tree.
pub fn print(query: &Query) -> String {
    let text = match &query.kind {
        QueryKind::Search(pipeline) => print_pipeline(pipeline),
        QueryKind::Metrics(metrics) => print_metrics(metrics),
    };
    if query.hints.is_empty() {
        return text;
    }
    let hints: Vec<_> = query.hints.iter().map(|hint| format!("{}={}", hint.name, print_static(&hint.value))).collect();
    format!("{text} with ({})", hints.join(", "))
}

fn print_pipeline(pipeline: &Pipeline) -> String {
    let stages: Vec<_> = pipeline.stages.iter().map(print_stage).collect();
    stages.join(" | ")
}

fn print_stage(stage: &Stage) -> String {
    match stage {
        Stage::Spansets(spansets) => print_spansets(spansets),
        Stage::Scalar(filter) => {
            format!("{} {} {}", print_scalar(&filter.left), filter.operator.sign(), print_scalar(&filter.right))
        }
        Stage::By(field) => format!("by({})", print_field(field)),
        Stage::Coalesce => "coalesce()".to_owned(),
        Stage::Select(attributes) => format!("select({})", print_attributes(attributes)),
    }
}

fn print_spansets(spansets: &Spansets) -> String {
    match spansets {
        Spansets::Filter(condition) => print_filter(condition.as_ref()),
        Spansets::Operation { operator, left, right } => {
            format!("({} {} {})", print_spansets(left), operator.sign(), print_spansets(right))
        }
        Spansets::Pipeline(pipeline) => format!("({})", print_pipeline(pipeline)),
    }
}

fn print_filter(condition: Option<&Field>) -> String {
    condition.map_or("{ }".to_owned(), |field| format!("{{ {} }}", print_field(field)))
}

/// An aggregate with its argument, as answers name it.
pub fn print_scalar(scalar: &Scalar) -> String {
    match scalar {
        Scalar::Static(value) => print_static(value),
        Scalar::Aggregate { function, of } => {
            format!("{}({})", function.name(), of.as_ref().map(print_field).unwrap_or_default())
        }
        Scalar::Operation { operator, left, right } => {
            format!("({} {} {})", print_scalar(left), operator.sign(), print_scalar(right))
        }
    }
}

/// An expression; operations stand in parentheses.
pub fn print_field(field: &Field) -> String {
    match &field.kind {
        FieldKind::Static(value) => print_static(value),
        FieldKind::Attribute(attribute) => attribute.text(),
        FieldKind::Not(inner) => format!("!{}", print_field(inner)),
        FieldKind::Negative(inner) => format!("-{}", print_field(inner)),
        FieldKind::Binary { operator, left, right } => {
            format!("({} {} {})", print_field(left), operator.sign(), print_field(right))
        }
    }
}

fn print_static(value: &Static) -> String {
    match value {
        Static::Nil => "nil".to_owned(),
        Static::Int(i64::MIN) => "minInt".to_owned(),
        Static::Int(value) => value.to_string(),
        Static::Float(value) => format!("{value:?}"),
        Static::Text(text) => crate::logql::print::quote(text),
        Static::Bool(value) => value.to_string(),
        Static::Duration(value) => print_duration(*value),
        Static::Status(status) => status.name().to_owned(),
        Static::Kind(kind) => kind.name().to_owned(),
    }
}

fn print_duration(nanoseconds: i64) -> String {
    let text = crate::logql::print::print_duration(nanoseconds.saturating_abs());
    if nanoseconds < 0 { format!("-{text}") } else { text }
}

fn print_attributes(attributes: &[Attribute]) -> String {
    attributes.iter().map(Attribute::text).collect::<Vec<_>>().join(", ")
}

fn print_metrics(metrics: &Metrics) -> String {
    match metrics {
        Metrics::Number(value) => value.to_string(),
        Metrics::Pipeline { spans, function, by, seconds } => {
            let by = if by.is_empty() { String::new() } else { format!(" by ({})", print_attributes(by)) };
            let seconds: String = seconds.iter().map(print_second).collect();
            format!("{} | {}{by}{seconds}", print_pipeline(spans), print_function(function))
        }
        Metrics::Operation { operator, left, right, seconds } => {
            let side = |metrics: &Metrics| match metrics {
                Metrics::Number(value) => value.to_string(),
                other => format!("({})", print_metrics(other)),
            };
            let seconds: String = seconds.iter().map(print_second).collect();
            format!("{} {} {}{seconds}", side(left), operator.sign(), side(right))
        }
    }
}

fn print_function(function: &MetricsFunction) -> String {
    match function {
        MetricsFunction::QuantileOverTime(of, ranks) => {
            let ranks: Vec<_> = ranks.iter().map(f64::to_string).collect();
            format!("quantile_over_time({}, {})", of.text(), ranks.join(", "))
        }
        MetricsFunction::Compare { selection, top, window_ns } => {
            let window = window_ns.map(|(start, end)| format!(", {start}, {end}")).unwrap_or_default();
            format!("compare({}, {top}{window})", print_filter(selection.as_ref().as_ref()))
        }
        other => format!("{}({})", other.name(), other.of().map(Attribute::text).unwrap_or_default()),
    }
}

fn print_second(stage: &SecondStage) -> String {
    match stage {
        SecondStage::Topk(count) => format!(" | topk({count})"),
        SecondStage::Bottomk(count) => format!(" | bottomk({count})"),
        SecondStage::Compare(operator, value) => format!(" {} {value}", operator.sign()),
    }
}
