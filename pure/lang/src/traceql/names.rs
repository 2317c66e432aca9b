//! The names of operators, intrinsics and values.

use super::ast::{
    Aggregate, Attribute, Intrinsic, MetricsFunction, Operator, Relation, Scope, SpanKind, SpansetOperator, Status,
    StructuralResult,
};

/// Every intrinsic: the name by which answers call it, and the others that a query may use.
const INTRINSICS: &[(Intrinsic, &str, &[&str])] = &[
    (Intrinsic::Duration, "duration", &["span:duration"]),
    (Intrinsic::Name, "name", &["span:name"]),
    (Intrinsic::Status, "status", &["span:status"]),
    (Intrinsic::StatusMessage, "statusMessage", &["span:statusMessage"]),
    (Intrinsic::Kind, "kind", &["span:kind"]),
    (Intrinsic::ChildCount, "span:childCount", &["childCount"]),
    (Intrinsic::SpanId, "span:id", &[]),
    (Intrinsic::ParentId, "span:parentID", &[]),
    (Intrinsic::NestedSetLeft, "nestedSetLeft", &[]),
    (Intrinsic::NestedSetRight, "nestedSetRight", &[]),
    (Intrinsic::NestedSetParent, "nestedSetParent", &[]),
    (Intrinsic::TraceId, "trace:id", &[]),
    (Intrinsic::TraceDuration, "traceDuration", &["trace:duration"]),
    (Intrinsic::RootName, "rootName", &["trace:rootName"]),
    (Intrinsic::RootServiceName, "rootServiceName", &["trace:rootService"]),
    (Intrinsic::EventName, "event:name", &[]),
    (Intrinsic::EventTimeSinceStart, "event:timeSinceStart", &[]),
    (Intrinsic::LinkTraceId, "link:traceID", &[]),
    (Intrinsic::LinkSpanId, "link:spanID", &[]),
    (Intrinsic::InstrumentationName, "instrumentation:name", &[]),
    (Intrinsic::InstrumentationVersion, "instrumentation:version", &[]),
];

const SCOPES: &[(Scope, &str)] = &[
    (Scope::Any, "."),
    (Scope::Span, "span."),
    (Scope::Resource, "resource."),
    (Scope::Event, "event."),
    (Scope::Link, "link."),
    (Scope::Instrumentation, "instrumentation."),
];

impl Intrinsic {
    /// The intrinsic that a query calls so.
    pub fn by_name(name: &str) -> Option<Self> {
        INTRINSICS.iter().find(|(_, own, others)| *own == name || others.contains(&name)).map(|(own, _, _)| *own)
    }

    /// The name by which answers call it.
    pub fn name(self) -> &'static str {
        INTRINSICS.iter().find(|(own, _, _)| *own == self).map_or("", |(_, name, _)| name)
    }

    /// Every intrinsic.
    pub fn all() -> impl Iterator<Item = Self> {
        INTRINSICS.iter().map(|(own, _, _)| *own)
    }
}

impl Scope {
    /// What the names of its attributes begin with.
    pub fn prefix(self) -> &'static str {
        SCOPES.iter().find(|(own, _)| *own == self).map_or("", |(_, prefix)| prefix)
    }

    /// The scope of an attribute written so, and how long its prefix is.
    pub fn of(text: &str) -> Option<(Self, usize)> {
        SCOPES.iter().find(|(_, prefix)| text.starts_with(prefix)).map(|(own, prefix)| (*own, prefix.len()))
    }
}

impl Attribute {
    /// As a query writes it, and as the labels of metrics do.
    pub fn text(&self) -> String {
        match self {
            Self::Intrinsic(intrinsic) => intrinsic.name().to_owned(),
            Self::Named(scope, name) => {
                let needs_quotes = |c: char| c.is_whitespace() || "{}()=~!<>&|^,\"`\\".contains(c);
                if name.is_empty() || name.contains(needs_quotes) {
                    let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
                    return format!("{}\"{escaped}\"", scope.prefix());
                }
                format!("{}{name}", scope.prefix())
            }
        }
    }

    /// As the attributes of spans in answers call it: without its scope.
    pub fn short(&self) -> &str {
        match self {
            Self::Intrinsic(intrinsic) => intrinsic.name(),
            Self::Named(_, name) => name,
        }
    }
}

impl Operator {
    /// The operator's sign.
    pub fn sign(self) -> &'static str {
        use Operator as O;
        match self {
            O::Or => "||",
            O::And => "&&",
            O::Equal => "=",
            O::NotEqual => "!=",
            O::Matches => "=~",
            O::MatchesNot => "!~",
            O::Greater => ">",
            O::GreaterOrEqual => ">=",
            O::Less => "<",
            O::LessOrEqual => "<=",
            O::Add => "+",
            O::Subtract => "-",
            O::Multiply => "*",
            O::Divide => "/",
            O::Modulo => "%",
            O::Power => "^",
        }
    }

    /// The operator of that sign.
    pub fn by_sign(sign: &str) -> Option<Self> {
        use Operator as O;
        [
            O::Or,
            O::And,
            O::Equal,
            O::NotEqual,
            O::Matches,
            O::MatchesNot,
            O::Greater,
            O::GreaterOrEqual,
            O::Less,
            O::LessOrEqual,
            O::Add,
            O::Subtract,
            O::Multiply,
            O::Divide,
            O::Modulo,
            O::Power,
        ]
        .into_iter()
        .find(|own| own.sign() == sign)
    }

    /// How tightly it binds; a higher number binds tighter.
    pub fn precedence(self) -> u8 {
        use Operator as O;
        match self {
            O::Or | O::And => 1,
            O::Add | O::Subtract => 4,
            O::Multiply | O::Divide | O::Modulo => 5,
            O::Power => 6,
            _ => 3,
        }
    }

    /// Whether it gives a number of numbers.
    pub fn is_arithmetic(self) -> bool {
        self.precedence() > 3
    }

    /// Whether it compares.
    pub fn is_comparison(self) -> bool {
        self.precedence() == 3
    }

    /// Whether its right side is a regular expression.
    pub fn is_pattern(self) -> bool {
        matches!(self, Self::Matches | Self::MatchesNot)
    }
}

impl SpansetOperator {
    /// The operator's sign.
    pub fn sign(self) -> String {
        let (relation, result) = match self {
            Self::And => return "&&".to_owned(),
            Self::Or => return "||".to_owned(),
            Self::Structural { relation, result } => (relation, result),
        };
        let relation = match relation {
            Relation::Child => ">",
            Relation::Descendant => ">>",
            Relation::Parent => "<",
            Relation::Ancestor => "<<",
            Relation::Sibling => "~",
        };
        let prefix = match result {
            StructuralResult::Right => "",
            StructuralResult::RightWithout => "!",
            StructuralResult::Both => "&",
        };
        format!("{prefix}{relation}")
    }

    /// The operator of that sign.
    pub fn by_sign(sign: &str) -> Option<Self> {
        let relation = match sign.trim_start_matches(['!', '&']) {
            "" if sign == "&&" => return Some(Self::And),
            _ if sign == "||" => return Some(Self::Or),
            ">" => Relation::Child,
            ">>" => Relation::Descendant,
            "<" => Relation::Parent,
            "<<" => Relation::Ancestor,
            "~" => Relation::Sibling,
            _ => return None,
        };
        let result = match sign.chars().next() {
            Some('!') => StructuralResult::RightWithout,
            Some('&') => StructuralResult::Both,
            _ => StructuralResult::Right,
        };
        Some(Self::Structural { relation, result })
    }

    /// How tightly it binds.
    pub fn precedence(self) -> u8 {
        match self {
            Self::And | Self::Or => 1,
            Self::Structural { .. } => 2,
        }
    }
}

impl Status {
    /// The status' name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Ok => "ok",
            Self::Unset => "unset",
        }
    }

    /// The status of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Error, Self::Ok, Self::Unset].into_iter().find(|own| own.name() == name)
    }
}

impl SpanKind {
    /// The kind's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }

    /// The kind of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Unspecified, Self::Internal, Self::Server, Self::Client, Self::Producer, Self::Consumer]
            .into_iter()
            .find(|own| own.name() == name)
    }
}

impl Aggregate {
    /// The function's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Avg => "avg",
            Self::Sum => "sum",
        }
    }

    /// The function of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Count, Self::Min, Self::Max, Self::Avg, Self::Sum].into_iter().find(|own| own.name() == name)
    }
}

impl MetricsFunction {
    /// The names of all.
    pub const NAMES: [&'static str; 9] = [
        "rate",
        "count_over_time",
        "min_over_time",
        "max_over_time",
        "avg_over_time",
        "sum_over_time",
        "histogram_over_time",
        "quantile_over_time",
        "compare",
    ];

    /// The function's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::CountOverTime => "count_over_time",
            Self::MinOverTime(_) => "min_over_time",
            Self::MaxOverTime(_) => "max_over_time",
            Self::AvgOverTime(_) => "avg_over_time",
            Self::SumOverTime(_) => "sum_over_time",
            Self::HistogramOverTime(_) => "histogram_over_time",
            Self::QuantileOverTime(..) => "quantile_over_time",
            Self::Compare { .. } => "compare",
        }
    }

    /// Of what it is a function, where it is one of an attribute.
    pub fn of(&self) -> Option<&Attribute> {
        match self {
            Self::Rate | Self::CountOverTime | Self::Compare { .. } => None,
            Self::MinOverTime(of)
            | Self::MaxOverTime(of)
            | Self::AvgOverTime(of)
            | Self::SumOverTime(of)
            | Self::HistogramOverTime(of)
            | Self::QuantileOverTime(of, _) => Some(of),
        }
    }
}
