//! What a statement may say: one SELECT over our tables and its own subqueries (T-1).

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::ast::{ObjectName, Query, Select, SetExpr, TableFactor};
use tidemill_types::Signal;

use super::bounds;
use crate::tables::table_signal;
use crate::{Error, Result};

/// Functions that make rows out of their arguments alone.
const TABLE_FUNCTIONS: [&str; 3] = ["generate_series", "range", "unnest"];

pub(super) fn refused(statement: &str) -> Error {
    let word: String = statement.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    Error::statement(format!(
        "{word:?} is refused: one read-only statement may run: SELECT (also WITH and UNION), EXPLAIN, DESCRIBE <table>, SHOW TABLES"
    ))
}

/// The table that a name outside any FROM means.
pub(super) fn table(name: &ObjectName) -> Result<Signal> {
    single_name(name).and_then(table_signal).ok_or_else(|| unknown_table(name, &BTreeSet::new()))
}

/// A query's own clauses; its tables and expressions are checked as they are visited.
pub(super) fn query(query: &Query) -> Result<()> {
    let refuse = |what: &str| Err(Error::statement(format!("{what} is not supported")));
    if !query.locks.is_empty() {
        return refuse("FOR UPDATE or FOR SHARE");
    }
    if query.for_clause.is_some() || query.settings.is_some() || query.format_clause.is_some() {
        return refuse("a FOR, SETTINGS or FORMAT clause");
    }
    if !query.pipe_operators.is_empty() {
        return refuse("the |> operator");
    }
    for table in query.with.iter().flat_map(|with| &with.cte_tables) {
        if table_signal(&table.alias.name.value).is_some() {
            let problem =
                format!("WITH {}: a subquery may not be named like a table; choose another name", table.alias.name);
            return Err(Error::statement(problem));
        }
    }
    if query.with.as_ref().is_some_and(|with| with.recursive) {
        return refuse("WITH RECURSIVE");
    }
    set_expression(&query.body)
}

fn set_expression(body: &SetExpr) -> Result<()> {
    match body {
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => Ok(()),
        SetExpr::SetOperation { left, right, .. } => set_expression(left).and_then(|()| set_expression(right)),
        other => Err(refused(&other.to_string())),
    }
}

pub(super) fn select(select: &Select) -> Result<()> {
    if select.into.is_some() {
        return Err(Error::statement("SELECT INTO is refused: statements here only read"));
    }
    bounds::check_groupings(&select.group_by)
}

/// A relation of a FROM clause; answers the table it reads, `None` for a subquery or a name of WITH.
pub(super) fn relation(factor: &TableFactor, named: &BTreeSet<String>) -> Result<Option<Signal>> {
    match factor {
        TableFactor::Table { name, args: None, version: None, json_path: None, sample: None, .. } => {
            let Some(single) = single_name(name) else { return Err(unknown_table(name, named)) };
            if named.contains(&single.to_ascii_lowercase()) {
                return Ok(None);
            }
            table_signal(single).map(Some).ok_or_else(|| unknown_table(name, named))
        }
        TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => {
            let allowed =
                single_name(name).is_some_and(|name| TABLE_FUNCTIONS.contains(&name.to_ascii_lowercase().as_str()));
            if allowed {
                return Ok(None);
            }
            Err(Error::statement(format!("table function {name} is refused; only {}", TABLE_FUNCTIONS.join(", "))))
        }
        TableFactor::Derived { sample: None, .. } | TableFactor::NestedJoin { .. } | TableFactor::UNNEST { .. } => {
            Ok(None)
        }
        other => Err(Error::statement(format!("FROM {other} is not supported; a table, a subquery or a join"))),
    }
}

fn single_name(name: &ObjectName) -> Option<&str> {
    match name.0.as_slice() {
        [part] => part.as_ident().map(|ident| ident.value.as_str()),
        _ => None,
    }
}

fn unknown_table(name: &ObjectName, named: &BTreeSet<String>) -> Error {
    let mut known: Vec<&str> = Signal::ALL.map(Signal::table).to_vec();
    known.extend(named.iter().map(String::as_str));
    Error::statement(format!("table {name} does not exist; there are {}", known.join(", ")))
}
