//! Which attributes spans have, and which values those take: what clients complete queries with.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_lang::traceql::ast::{Attribute, Query, QueryKind, Scope};

use super::attributes::{Attributes, Wanted};
use super::batch::SpanBatch;
use super::condition::{View, attribute_value};
use super::spanset::{Spanset, Stages};
use super::structure::Trace;
use super::value::Value;
use crate::error::{Error, Result};

/// Gathers the names of attributes.
#[derive(Debug)]
pub struct TagNamesRun {
    filter: Filter,
    names: BTreeMap<Scope, BTreeSet<String>>,
}

/// Gathers the values of one attribute.
#[derive(Debug)]
pub struct TagValuesRun {
    filter: Filter,
    attribute: Attribute,
    values: BTreeSet<(&'static str, String)>,
}

/// Which spans count, and what is decoded of them.
#[derive(Debug)]
struct Filter {
    stages: Option<Stages>,
    wanted: Wanted,
    start_ns: i64,
    end_ns: i64,
}

impl Filter {
    fn new(query: Option<&Query>, mut wanted: Wanted, start_ns: i64, end_ns: i64) -> Result<Self> {
        let stages = match query.map(|query| &query.kind) {
            None => None,
            Some(QueryKind::Search(pipeline)) => {
                wanted.add_pipeline(pipeline);
                Some(Stages::new(pipeline)?)
            }
            Some(QueryKind::Metrics(_)) => return Err(Error::Data("a metrics query filters no tags".to_owned())),
        };
        Ok(Self { stages, wanted, start_ns, end_ns })
    }

    /// Hands every span that counts to `visit`.
    fn each(&self, batch: &SpanBatch, mut visit: impl FnMut(&Trace<'_>, View)) -> Result<()> {
        let attributes = Attributes::decode(batch, &self.wanted)?;
        for rows in batch.traces() {
            let trace = Trace::new(batch, &attributes, rows);
            if trace.end_ns < self.start_ns || trace.start_ns > self.end_ns {
                continue;
            }
            let spansets = match &self.stages {
                Some(stages) => stages.run(&trace),
                None => vec![Spanset { spans: (0..trace.rows.len()).map(View::of).collect(), attributes: Vec::new() }],
            };
            spansets.iter().flat_map(|own| &own.spans).for_each(|view| visit(&trace, *view));
        }
        Ok(())
    }
}

impl TagNamesRun {
    /// A run over the spans that `filter` matches, of traces within the nanoseconds from `start_ns` to `end_ns`.
    ///
    /// # Errors
    /// The filter is a metrics query, or a pattern of it is too large.
    pub fn new(filter: Option<&Query>, start_ns: i64, end_ns: i64) -> Result<Self> {
        let wanted = Wanted { all: true, events: true, links: true, ..Wanted::default() };
        Ok(Self { filter: Filter::new(filter, wanted, start_ns, end_ns)?, names: BTreeMap::new() })
    }

    /// Takes spans; every trace of the batch must be there as a whole.
    ///
    /// # Errors
    /// The attributes of a span cannot be read.
    pub fn push(&mut self, batch: &SpanBatch) -> Result<()> {
        let names = &mut self.names;
        let mut add = |scope: Scope, name: &str| {
            let known = names.entry(scope).or_default();
            if !known.contains(name) {
                known.insert(name.to_owned());
            }
        };
        self.filter.each(batch, |trace, view| {
            let row = trace.rows[view.span];
            trace.attributes.all(row).for_each(|(scope, name, _)| add(scope.query_scope(), name));
            let events = trace.attributes.events(row).iter().flat_map(|event| &event.attributes);
            events.for_each(|(name, _)| add(Scope::Event, name));
            let links = trace.attributes.links(row).iter().flat_map(|link| &link.attributes);
            links.for_each(|(name, _)| add(Scope::Link, name));
        })
    }

    /// The names of each scope.
    pub fn finish(self) -> BTreeMap<Scope, BTreeSet<String>> {
        self.names
    }
}

impl TagValuesRun {
    /// A run over the values of `attribute`, of the spans that `filter` matches, as for names.
    ///
    /// # Errors
    /// As [`TagNamesRun::new`].
    pub fn new(attribute: Attribute, filter: Option<&Query>, start_ns: i64, end_ns: i64) -> Result<Self> {
        let mut wanted = Wanted::default();
        wanted.add(&attribute);
        wanted.add_root();
        Ok(Self { filter: Filter::new(filter, wanted, start_ns, end_ns)?, attribute, values: BTreeSet::new() })
    }

    /// Takes spans; every trace of the batch must be there as a whole.
    ///
    /// # Errors
    /// The attributes of a span cannot be read.
    pub fn push(&mut self, batch: &SpanBatch) -> Result<()> {
        let (attribute, values) = (&self.attribute, &mut self.values);
        self.filter.each(batch, |trace, view| {
            for view in views(trace, view, attribute) {
                let scopes: &[Scope] = match attribute {
                    // Both values count where span and resource have the attribute.
                    Attribute::Named(Scope::Any, _) => &[Scope::Span, Scope::Resource],
                    _ => &[Scope::Any],
                };
                for scope in scopes {
                    let own = match (attribute, scope) {
                        (Attribute::Named(_, name), Scope::Span | Scope::Resource) => {
                            Attribute::Named(*scope, name.clone())
                        }
                        _ => attribute.clone(),
                    };
                    add(values, &attribute_value(&own, trace, view));
                }
            }
        })
    }

    /// The values with their types (`string`, `int`, `float`, `bool`, `keyword`, `duration`), sorted.
    pub fn finish(self) -> Vec<(&'static str, String)> {
        self.values.into_iter().collect()
    }
}

/// The span seen with each of its events or links, where the attribute is one of theirs.
fn views(trace: &Trace<'_>, view: View, attribute: &Attribute) -> Vec<View> {
    use tidemill_lang::traceql::ast::Intrinsic as I;
    let row = trace.rows[view.span];
    match attribute {
        Attribute::Named(Scope::Event, _) | Attribute::Intrinsic(I::EventName | I::EventTimeSinceStart) => {
            (0..trace.attributes.events(row).len()).map(|event| View { event: Some(event), ..view }).collect()
        }
        Attribute::Named(Scope::Link, _) | Attribute::Intrinsic(I::LinkSpanId | I::LinkTraceId) => {
            (0..trace.attributes.links(row).len()).map(|link| View { link: Some(link), ..view }).collect()
        }
        _ => vec![view],
    }
}

fn add(values: &mut BTreeSet<(&'static str, String)>, value: &Value) {
    let typed = match value {
        Value::Nil | Value::Other => return,
        Value::Array(list) => return list.iter().for_each(|element| add(values, element)),
        Value::Text(text) => ("string", text.to_string()),
        Value::Int(value) => ("int", value.to_string()),
        Value::Float(value) => ("float", format!("{value:?}")),
        Value::Bool(value) => ("bool", value.to_string()),
        Value::Duration(value) => ("duration", super::value::duration_text(*value)),
        Value::Status(status) => ("keyword", status.name().to_owned()),
        Value::Kind(kind) => ("keyword", kind.name().to_owned()),
    };
    values.insert(typed);
}
