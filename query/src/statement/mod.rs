//! From text to one allowed statement.
//!
//! Owns: what may be said at all (T-1, [`check`]) and how attribute calls become columns ([`rewrite`]). Never plans or runs.
//! Start with [`parse_statement`].

mod bounds;
mod check;
mod rewrite;

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParserBuilder, ExplainStatement, Statement as ParsedStatement};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::ParserError;
use tidemill_types::Signal;

use crate::attributes::AttributeKey;
use crate::{Error, Result};

/// Longer statements are refused unread.
const LONGEST_STATEMENT_BYTES: usize = 1 << 20;

/// One allowed statement.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one per request")]
pub(crate) enum Statement {
    /// A query, or an explanation of one.
    Query(QueryStatement),
    /// `SHOW TABLES`.
    ShowTables,
    /// `DESCRIBE <table>`.
    Describe(Signal),
}

/// A checked query whose attribute calls are columns now.
#[derive(Debug, Clone)]
pub(crate) struct QueryStatement {
    /// As it was written.
    pub(crate) text: Arc<str>,
    /// What DataFusion plans.
    pub(crate) parsed: ParsedStatement,
    /// The tables that it reads.
    pub(crate) tables: BTreeSet<Signal>,
    /// The attributes that it names.
    pub(crate) attributes: BTreeSet<AttributeKey>,
}

/// Reads one statement.
///
/// # Errors
/// What is wrong with it, where, and what is allowed.
pub(crate) fn parse_statement(text: &str) -> Result<Statement> {
    if text.len() > LONGEST_STATEMENT_BYTES {
        return Err(Error::statement(format!(
            "the statement has {} bytes; at most {LONGEST_STATEMENT_BYTES}",
            text.len()
        )));
    }
    bounds::check_text(text)?;
    let invalid = |error: DataFusionError| Error::statement(syntax_problem(&error));
    let mut parser = DFParserBuilder::new(text).build().map_err(invalid)?;
    let mut statements = parser.parse_statements().map_err(invalid)?;
    let parsed = match (statements.pop_front(), statements.len()) {
        (None, _) => return Err(Error::statement("the statement is empty")),
        (Some(parsed), 0) => parsed,
        (Some(_), more) => return Err(Error::statement(format!("{} statements; one at a time", more + 1))),
    };
    match parsed {
        ParsedStatement::Statement(statement) => read_sql(text, *statement),
        ParsedStatement::Explain(explain) => read_explain(text, explain),
        other => Err(check::refused(&other.to_string())),
    }
}

/// What a parser says, without the names of the types that it says it with.
fn syntax_problem(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::SQL(problem, _) => match problem.as_ref() {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.clone(),
            ParserError::RecursionLimitExceeded => "the statement is nested too deeply".to_owned(),
        },
        other => other.strip_backtrace(),
    }
}

fn read_sql(text: &str, statement: ast::Statement) -> Result<Statement> {
    match statement {
        ast::Statement::Query(query) => {
            let mut query = *query;
            bounds::check_relations(&query)?;
            let (tables, attributes) = rewrite::check_and_rewrite(&mut query)?;
            let parsed = ParsedStatement::Statement(Box::new(ast::Statement::Query(Box::new(query))));
            Ok(Statement::Query(QueryStatement { text: Arc::from(text), parsed, tables, attributes }))
        }
        ast::Statement::ShowTables { .. } => Ok(Statement::ShowTables),
        ast::Statement::ExplainTable { table_name, .. } => Ok(Statement::Describe(check::table(&table_name)?)),
        other => Err(check::refused(&other.to_string())),
    }
}

fn read_explain(text: &str, explain: ExplainStatement) -> Result<Statement> {
    let ParsedStatement::Statement(inner) = *explain.statement else {
        return Err(Error::statement("EXPLAIN takes a SELECT"));
    };
    match read_sql(text, *inner)? {
        Statement::Query(query) => {
            let parsed = ParsedStatement::Explain(ExplainStatement { statement: Box::new(query.parsed), ..explain });
            Ok(Statement::Query(QueryStatement { parsed, ..query }))
        }
        _ => Err(Error::statement("EXPLAIN takes a SELECT")),
    }
}

#[cfg(test)]
mod tests;
