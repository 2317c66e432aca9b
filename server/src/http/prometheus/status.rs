//! What is asked about the server itself, and the tree of a query.

use axum::extract::State;
use serde_json::{Value, json};
use tidemill_lang::promql::{
    Arity, At, Cardinality, Expr, ExprKind, Extension, Function, LabelMatcher, Length, LengthKind, Matching, Selector,
    ValueType, When,
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
            "func": function_json(call.function),
            "args": call.args.iter().map(tree_json).collect::<Vec<_>>(),
        }),
        ExprKind::Vector(selector) => selector_json("vectorSelector", selector),
        ExprKind::Matrix(matrix) => {
            let mut told = selector_json("matrixSelector", &matrix.selector);
            told["range"] = json!(length_ms(&matrix.range));
            told
        }
        ExprKind::Subquery(subquery) => {
            let mut told = when_json(&subquery.when);
            told["type"] = json!("subquery");
            told["expr"] = tree_json(&subquery.expr);
            told["range"] = json!(length_ms(&subquery.range));
            told["step"] = json!(subquery.step.as_ref().map_or(0, length_ms));
            told
        }
    }
}

fn function_json(function: &Function) -> Value {
    let variadic = match function.arity {
        Arity::Exact => json!(0),
        Arity::UpTo(times) => json!(times),
        Arity::Any => json!(-1),
    };
    json!({
        "name": function.name,
        "argTypes": function.args.iter().map(|kind| type_name(*kind)).collect::<Vec<_>>(),
        "variadic": variadic,
        "returnType": type_name(function.result),
    })
}

fn type_name(kind: ValueType) -> &'static str {
    match kind {
        ValueType::Scalar => "scalar",
        ValueType::Vector => "vector",
        ValueType::Matrix => "matrix",
        ValueType::Text => "string",
    }
}

fn matching_json(matching: &Matching) -> Value {
    let card = match matching.cardinality {
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    };
    json!({
        "card": card,
        "labels": matching.labels,
        "on": matching.is_on,
        "include": matching.include,
        "fillValues": { "lhs": matching.fill_left, "rhs": matching.fill_right },
    })
}

fn selector_json(kind: &str, selector: &Selector) -> Value {
    let mut told = when_json(&selector.when);
    told["type"] = json!(kind);
    told["name"] = json!(selector.name.clone().unwrap_or_default());
    let mut written: Vec<&LabelMatcher> = selector.matchers.iter().collect();
    written.sort_by_key(|matcher| matcher.span.start);
    let named = selector.name.iter().map(|name| json!({ "name": "__name__", "value": name, "type": "=" }));
    told["matchers"] = written.into_iter().map(matcher_json).chain(named).collect();
    told["anchored"] = json!(selector.extension == Some(Extension::Anchored));
    told["smoothed"] = json!(selector.extension == Some(Extension::Smoothed));
    told
}

fn matcher_json(matcher: &LabelMatcher) -> Value {
    json!({ "name": matcher.name, "value": matcher.value, "type": matcher.op.as_str() })
}

/// A length of time in whole milliseconds; 0 for an expression, of which only the evaluation tells how long it is.
fn length_ms(length: &Length) -> i64 {
    match &length.kind {
        LengthKind::Number(number) => (number.value * 1e9).round() as i64 / 1_000_000,
        LengthKind::Paren(inner) => length_ms(inner),
        LengthKind::Unary { is_negative, length } => {
            if *is_negative {
                -length_ms(length)
            } else {
                length_ms(length)
            }
        }
        LengthKind::Step | LengthKind::Range | LengthKind::Binary { .. } | LengthKind::Extreme { .. } => 0,
    }
}

fn when_json(when: &When) -> Value {
    let (timestamp, start_or_end) = match &when.at {
        Some(At::Time(time)) => (json!(time), Value::Null),
        Some(At::Start) => (Value::Null, json!("start")),
        Some(At::End) => (Value::Null, json!("end")),
        None => (Value::Null, Value::Null),
    };
    let offset = when.offset.as_ref().map_or(0, length_ms);
    json!({ "offset": offset, "timestamp": timestamp, "startOrEnd": start_or_end })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(query: &str) -> Value {
        let expr = tidemill_lang::promql::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        tree_json(&expr)
    }

    #[test]
    fn calls_tell_the_signature_of_their_function() {
        for (query, signature) in [
            ("rate(up[5m])", json!(["rate", ["matrix"], 0, "vector"])),
            ("time()", json!(["time", [], 0, "scalar"])),
            ("round(up)", json!(["round", ["vector", "scalar"], 1, "vector"])),
            ("sort_by_label(up, \"a\")", json!(["sort_by_label", ["vector", "string"], -1, "vector"])),
        ] {
            let function = &tree(query)["func"];
            let told = json!([function["name"], function["argTypes"], function["variadic"], function["returnType"]]);
            assert_eq!(told, signature, "{query}");
        }
    }

    #[test]
    fn selectors_are_told_as_they_are_written() {
        let expected = json!({
            "type": "vectorSelector",
            "name": "up",
            "matchers": [
                { "name": "job", "value": "a", "type": "=" },
                { "name": "instance", "value": "b.*", "type": "!~" },
                { "name": "__name__", "value": "up", "type": "=" },
            ],
            "offset": -300_000,
            "timestamp": 1_500,
            "startOrEnd": null,
            "anchored": false,
            "smoothed": true,
        });
        assert_eq!(tree("up{job=\"a\",instance!~\"b.*\"} smoothed @ 1.5 offset -5m"), expected);
        let anchored = tree("up[5m] anchored @ end()");
        assert_eq!([&anchored["anchored"], &anchored["smoothed"]], [&json!(true), &json!(false)]);
        assert_eq!([&anchored["range"], &anchored["startOrEnd"]], [&json!(300_000), &json!("end")]);
    }

    #[test]
    fn lengths_are_milliseconds_and_expressions_none() {
        for (query, [range, step, offset]) in [
            ("up[5m:1m] offset 1h", [300_000, 60_000, 3_600_000]),
            ("up[90.5:] offset -0.001", [90_500, 0, -1]),
            ("up[(5m):-(-30s)]", [300_000, 30_000, 0]),
            ("up[step() + 1s:2 * 1m] offset max(1m, 2m)", [0, 0, 0]),
        ] {
            let told = tree(query);
            let lengths = [&told["range"], &told["step"], &told["offset"]];
            assert_eq!(lengths, [&json!(range), &json!(step), &json!(offset)], "{query}");
        }
    }

    #[test]
    fn matching_tells_what_missing_series_are_filled_with() {
        let told = tree("a + on(x) group_left(y) fill_right(2.5) b");
        let expected = json!({
            "card": "many-to-one",
            "labels": ["x"],
            "on": true,
            "include": ["y"],
            "fillValues": { "lhs": null, "rhs": 2.5 },
        });
        assert_eq!(told["matching"], expected);
        assert_eq!(tree("a + 1")["matching"], Value::Null);
    }
}
