//! What is asked about the server itself, and the tree of a query.

use axum::extract::State;
use serde_json::{Value, json};
use tidemill_lang::promql::{
    At, Cardinality, Expr, ExprKind, LabelMatcher, Length, LengthKind, MatchOp, Matching, Selector, ValueType, When,
};

use super::super::ApiState;
use super::super::caller::Member;
use super::answer::{Answer, success};

/// The version of Prometheus whose language and API these are; clients decide by it what they may ask.
const PROMETHEUS_VERSION: &str = "3.5.0";

/// There are no rules.
pub(super) async fn rules(Member(_): Member) -> Answer {
    Ok(success(json!({ "groups": [] }), &[]))
}

/// There are no alerts.
pub(super) async fn alerts(Member(_): Member) -> Answer {
    Ok(success(json!({ "alerts": [] }), &[]))
}

pub(super) async fn build_info(Member(_): Member) -> Answer {
    let told = json!({
        "version": PROMETHEUS_VERSION,
        "revision": "",
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
        "application": "tidemill",
        "applicationVersion": env!("CARGO_PKG_VERSION"),
    });
    Ok(success(told, &[]))
}

pub(super) async fn runtime_info(State(state): State<ApiState>, Member(_): Member) -> Answer {
    let told = json!({
        "reloadConfigSuccess": true,
        "corruptionCount": 0,
        "goroutineCount": 0,
        "GOMAXPROCS": std::thread::available_parallelism().map_or(1, usize::from),
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": "",
        "queries": state.queries.is_some(),
    });
    Ok(success(told, &[]))
}

/// There are none of Prometheus's flags.
pub(super) async fn flags(Member(_): Member) -> Answer {
    Ok(success(json!({}), &[]))
}

/// There is none of Prometheus's configuration; the scrape interval that clients look for is not known.
pub(super) async fn config(Member(_): Member) -> Answer {
    Ok(success(json!({ "yaml": "" }), &[]))
}

/// There is no head block: what is stored is told by `/api/v1/segments`.
pub(super) async fn tsdb(Member(_): Member) -> Answer {
    let told = json!({
        "headStats": { "numSeries": 0, "numLabelPairs": 0, "chunkCount": 0, "minTime": 0, "maxTime": 0 },
        "seriesCountByMetricName": [],
        "labelValueCountByLabelName": [],
        "memoryInBytesByLabelName": [],
        "seriesCountByLabelValuePair": [],
    });
    Ok(success(told, &[]))
}

/// The tree of a query as `parse_query` tells it.
pub(super) fn tree_json(expr: &Expr) -> Value {
    match &expr.kind {
        ExprKind::Number(number) => {
            json!({ "type": "numberLiteral", "val": tidemill_eval::format_number(number.value) })
        }
        ExprKind::Text(text) => json!({ "type": "stringLiteral", "val": String::from_utf8_lossy(&text.0) }),
        ExprKind::Paren(inner) => json!({ "type": "parenExpr", "expr": tree_json(inner) }),
        ExprKind::Unary { is_negative, expr } => {
            json!({ "type": "unaryExpr", "op": if *is_negative { "-" } else { "+" }, "expr": tree_json(expr) })
        }
        ExprKind::Binary(binary) => {
            let are_vectors = [&binary.left, &binary.right].iter().all(|side| side.value_type() == ValueType::Vector);
            json!({
                "type": "binaryExpr",
                "op": binary.op.as_str(),
                "lhs": tree_json(&binary.left),
                "rhs": tree_json(&binary.right),
                "matching": if are_vectors { matching_json(&binary.matching) } else { Value::Null },
                "bool": binary.returns_bool,
            })
        }
        ExprKind::Aggregate(aggregate) => json!({
            "type": "aggregation",
            "op": aggregate.op.as_str(),
            "expr": tree_json(&aggregate.expr),
            "param": aggregate.param.as_ref().map(tree_json),
            "grouping": aggregate.grouping,
            "without": aggregate.is_without,
        }),
        ExprKind::Call(call) => json!({
            "type": "call",
            "func": { "name": call.function.name },
            "args": call.args.iter().map(tree_json).collect::<Vec<_>>(),
        }),
        ExprKind::Vector(selector) => selector_json("vectorSelector", selector),
        ExprKind::Matrix(matrix) => {
            let mut told = selector_json("matrixSelector", &matrix.selector);
            told["range"] = length_json(&matrix.range);
            told
        }
        ExprKind::Subquery(subquery) => {
            let mut told = when_json(&subquery.when);
            told["type"] = json!("subquery");
            told["expr"] = tree_json(&subquery.expr);
            told["range"] = length_json(&subquery.range);
            told["step"] = subquery.step.as_ref().map_or_else(|| json!(0), length_json);
            told
        }
    }
}

fn matching_json(matching: &Matching) -> Value {
    let card = match matching.cardinality {
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    };
    json!({ "card": card, "labels": matching.labels, "on": matching.is_on, "include": matching.include })
}

fn selector_json(kind: &str, selector: &Selector) -> Value {
    let mut told = when_json(&selector.when);
    told["type"] = json!(kind);
    told["name"] = json!(selector.name.clone().unwrap_or_default());
    let named = selector.name.iter().map(|name| json!({ "name": "__name__", "value": name, "type": "=" }));
    told["matchers"] = selector.matchers.iter().map(matcher_json).chain(named).collect();
    told
}

fn matcher_json(matcher: &LabelMatcher) -> Value {
    let op = match matcher.op {
        MatchOp::Equal => "=",
        MatchOp::NotEqual => "!=",
        MatchOp::Matches => "=~",
        MatchOp::MatchesNot => "!~",
    };
    json!({ "name": matcher.name, "value": matcher.value, "type": op })
}

/// A length of time in milliseconds; one that is an expression, as it is written.
fn length_json(length: &Length) -> Value {
    match &length.kind {
        LengthKind::Number(number) => json!((number.value * 1e3) as i64),
        _ => json!(length.to_string()),
    }
}

fn when_json(when: &When) -> Value {
    let (timestamp, start_or_end) = match &when.at {
        Some(At::Time(time)) => (json!(time), Value::Null),
        Some(At::Start) => (Value::Null, json!("start")),
        Some(At::End) => (Value::Null, json!("end")),
        None => (Value::Null, Value::Null),
    };
    let offset = when.offset.as_ref().map_or_else(|| json!(0), length_json);
    json!({ "offset": offset, "timestamp": timestamp, "startOrEnd": start_or_end })
}
