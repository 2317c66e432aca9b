//! One walk over the statement: every part is checked, and attribute calls become quoted columns that `*` leaves out.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join, JoinConstraint,
    JoinOperator, ObjectName, ObjectNamePart, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, TableFactor,
    Value, ValueWithSpan, VisitMut, VisitorMut, WildcardAdditionalOptions,
};
use tidemill_types::Signal;

use super::check;
use crate::attributes::{AttributeKey, function_scope, scope_function};
use crate::{Error, Result};

/// Longer keys do not exist in segments.
const LONGEST_KEY_BYTES: usize = 4 << 10;
/// More attributes in one statement are a mistake.
const MOST_ATTRIBUTES: usize = 1_000;

/// Checks every part, replaces attribute calls, and answers the tables and attributes named.
pub(super) fn check_and_rewrite(query: &mut Query) -> Result<(BTreeSet<Signal>, BTreeSet<AttributeKey>)> {
    let mut names = CollectNames::default();
    finish(query.visit(&mut names))?;
    let mut rewriter = Rewriter { named: names.0, tables: BTreeSet::new(), attributes: BTreeSet::new() };
    finish(query.visit(&mut rewriter))?;
    let Rewriter { tables, attributes, .. } = rewriter;
    if !attributes.is_empty() {
        finish(query.visit(&mut HideAttributes(&attributes)))?;
    }
    Ok((tables, attributes))
}

fn finish(flow: ControlFlow<Error>) -> Result<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

fn go_on(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

/// The names that WITH gives to subqueries, anywhere in the statement. A name out of its scope is refused by the planner.
#[derive(Default)]
struct CollectNames(BTreeSet<String>);

impl VisitorMut for CollectNames {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.0.insert(table.alias.name.value.to_ascii_lowercase());
        }
        go_on(check::query(query))
    }
}

struct Rewriter {
    named: BTreeSet<String>,
    tables: BTreeSet<Signal>,
    attributes: BTreeSet<AttributeKey>,
}

impl VisitorMut for Rewriter {
    type Break = Error;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        go_on(check::select(select))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        match check::relation(factor, &self.named) {
            Ok(table) => {
                self.tables.extend(table);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        match attribute_call(function) {
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
            Ok(Some((qualifier, key))) => {
                let column = Ident::with_quote('"', key.column_name());
                *expr = match qualifier {
                    None => Expr::Identifier(column),
                    Some(table) => Expr::CompoundIdentifier(vec![table, column]),
                };
                self.attributes.insert(key);
                if self.attributes.len() > MOST_ATTRIBUTES {
                    let problem = format!("more than {MOST_ATTRIBUTES} attributes in one statement");
                    return ControlFlow::Break(Error::statement(problem));
                }
                ControlFlow::Continue(())
            }
        }
    }
}

/// `attr('k')` or `alias.attr('k')`.
fn attribute_call(function: &Function) -> Result<Option<(Option<Ident>, AttributeKey)>> {
    let parts: Option<Vec<&Ident>> = function.name.0.iter().map(ObjectNamePart::as_ident).collect();
    let (qualifier, name) = match parts.as_deref() {
        Some([name]) => (None, *name),
        Some([table, name]) => (Some((*table).clone()), *name),
        _ => return Ok(None),
    };
    let Some(scope) = function_scope(&name.value) else { return Ok(None) };
    let usage = || {
        Error::statement(format!(
            "{function}: {0} takes one key in single quotes, as {0}('http.method')",
            scope_function(scope)
        ))
    };
    let FunctionArguments::List(list) = &function.args else { return Err(usage()) };
    let [
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(ValueWithSpan {
            value: Value::SingleQuotedString(key),
            ..
        }))),
    ] = list.args.as_slice()
    else {
        return Err(usage());
    };
    if function.over.is_some() || function.filter.is_some() || key.len() > LONGEST_KEY_BYTES {
        return Err(usage());
    }
    Ok(Some((qualifier, AttributeKey { scope, key: key.clone() })))
}

/// Makes `*` mean the fixed columns only.
struct HideAttributes<'a>(&'a BTreeSet<AttributeKey>);

impl VisitorMut for HideAttributes<'_> {
    type Break = Error;

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        go_on(self.hide_in(select))
    }
}

impl HideAttributes<'_> {
    fn hide_in(&self, select: &mut Select) -> Result<()> {
        let mut relations: Vec<Relation> = Vec::new();
        for from in &select.from {
            relations.extend(relation(&from.relation));
            relations.extend(from.joins.iter().filter_map(|join| relation(&join.relation)));
        }
        if !relations.iter().any(|relation| relation.is_table) {
            return Ok(());
        }
        let merges_columns = select.from.iter().flat_map(|from| &from.joins).any(merges_columns);
        let mut projection = Vec::with_capacity(select.projection.len());
        for item in std::mem::take(&mut select.projection) {
            match item {
                SelectItem::Wildcard(mut options) if relations.len() == 1 => {
                    self.exclude(&mut options)?;
                    projection.push(SelectItem::Wildcard(options));
                }
                SelectItem::Wildcard(options) => {
                    if merges_columns || options.opt_exclude.is_some() || options.opt_except.is_some() {
                        return Err(Error::statement(
                            "* of several tables together with attr(), resource() or scope(): write alias.* for each table, or name the columns",
                        ));
                    }
                    for relation in &relations {
                        let mut options = options.clone();
                        if relation.is_table {
                            self.exclude(&mut options)?;
                        }
                        let name = ObjectName(vec![ObjectNamePart::Identifier(relation.name.clone())]);
                        projection.push(SelectItem::QualifiedWildcard(
                            SelectItemQualifiedWildcardKind::ObjectName(name),
                            options,
                        ));
                    }
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), mut options) => {
                    let text = name.to_string();
                    if relations.iter().any(|relation| relation.is_table && relation.name.to_string() == text) {
                        self.exclude(&mut options)?;
                    }
                    projection.push(SelectItem::QualifiedWildcard(
                        SelectItemQualifiedWildcardKind::ObjectName(name),
                        options,
                    ));
                }
                other => projection.push(other),
            }
        }
        select.projection = projection;
        Ok(())
    }

    fn exclude(&self, options: &mut WildcardAdditionalOptions) -> Result<()> {
        let mut names = match options.opt_exclude.take() {
            None => Vec::new(),
            Some(ExcludeSelectItem::Single(name)) => vec![name],
            Some(ExcludeSelectItem::Multiple(names)) => names,
        };
        names.extend(
            self.0
                .iter()
                .map(|key| ObjectName(vec![ObjectNamePart::Identifier(Ident::with_quote('"', key.column_name()))])),
        );
        options.opt_exclude = Some(ExcludeSelectItem::Multiple(names));
        Ok(())
    }
}

struct Relation {
    name: Ident,
    is_table: bool,
}

/// How a relation of FROM is called, and whether it is one of our tables.
fn relation(factor: &TableFactor) -> Option<Relation> {
    match factor {
        TableFactor::Table { name, alias, args: None, .. } => {
            let own = name.0.last()?.as_ident()?;
            let is_table = name.0.len() == 1 && crate::tables::table_signal(&own.value).is_some();
            Some(Relation { name: alias.as_ref().map_or(own, |alias| &alias.name).clone(), is_table })
        }
        TableFactor::Derived { alias, .. } | TableFactor::UNNEST { alias, .. } | TableFactor::Table { alias, .. } => {
            Some(Relation { name: alias.as_ref()?.name.clone(), is_table: false })
        }
        _ => None,
    }
}

/// Whether a join shows some columns of both sides once.
fn merges_columns(join: &Join) -> bool {
    let constraint = match &join.join_operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => constraint,
        _ => return false,
    };
    matches!(constraint, JoinConstraint::Using(_) | JoinConstraint::Natural)
}
