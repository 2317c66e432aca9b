//! How large a statement may be: what it nests costs stack, and what its WITH queries multiply costs memory, before any limit of a
//! query is looked at.
//!
//! Both bounds are far above what people and programs write, and far below what ends a process (measured: see the tests).

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{ObjectNamePart, Query, TableFactor, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::{Error, Result};

/// Operators and keywords: each may nest what follows one deeper. Values of a list do not count.
const MOST_LINKS: usize = 2_000;
/// Relations read, once every use of a WITH query is written out, as the planner does.
const MOST_RELATIONS: u64 = 500;

/// Refuses a text that could nest too deeply to be parsed, planned and dropped on a thread's stack.
pub(super) fn check_text(text: &str) -> Result<()> {
    // What is no SQL is told by the parser, with its place.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).tokenize() else { return Ok(()) };
    let links = tokens.iter().filter(|token| is_link(token)).count();
    if links <= MOST_LINKS {
        return Ok(());
    }
    Err(Error::statement(format!(
        "the statement has {links} operators and keywords; at most {MOST_LINKS}. Write `x IN (…)` instead of many comparisons"
    )))
}

fn is_link(token: &Token) -> bool {
    match token {
        Token::Word(word) => word.keyword != Keyword::NoKeyword,
        Token::EOF
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::Comma
        | Token::Whitespace(_)
        | Token::Period
        | Token::LParen
        | Token::RParen
        | Token::SemiColon => false,
        _ => true,
    }
}

/// Refuses a query that reads too many relations once its WITH queries are written out.
pub(super) fn check_relations(query: &Query) -> Result<()> {
    let mut weigher = Weigher::default();
    let ControlFlow::Continue(()) = query.visit(&mut weigher);
    let relations = weigher.total;
    if relations <= MOST_RELATIONS {
        return Ok(());
    }
    Err(Error::statement(format!(
        "the statement reads {relations} tables, each use of a WITH query counted with all that it reads; at most {MOST_RELATIONS}"
    )))
}

#[derive(Default)]
struct Weigher {
    scopes: Vec<Scope>,
    /// What the whole statement reads, once it was visited.
    total: u64,
}

#[derive(Default)]
struct Scope {
    /// Relations read by the query so far.
    weight: u64,
    /// What each WITH query of this query reads.
    named: HashMap<String, u64>,
    /// Of the WITH queries that are still to come: where they are in memory, and their names.
    coming: HashMap<usize, String>,
}

fn address(query: &Query) -> usize {
    std::ptr::from_ref(query).addr()
}

impl Visitor for Weigher {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        let coming = tables.map(|it| (address(&it.query), it.alias.name.value.to_ascii_lowercase())).collect();
        self.scopes.push(Scope { coming, ..Scope::default() });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        let weight = self.scopes.pop().map_or(0, |scope| scope.weight).max(1);
        match self.scopes.last_mut() {
            None => self.total = weight,
            Some(outer) => match outer.coming.remove(&address(query)) {
                Some(name) => drop(outer.named.insert(name, weight)),
                None => outer.weight = outer.weight.saturating_add(weight),
            },
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Self::Break> {
        let TableFactor::Table { name, .. } = factor else { return ControlFlow::Continue(()) };
        let name = match name.0.as_slice() {
            [ObjectNamePart::Identifier(name)] => name.value.to_ascii_lowercase(),
            _ => String::new(),
        };
        let weight = self.scopes.iter().rev().find_map(|scope| scope.named.get(&name)).copied().unwrap_or(1);
        if let Some(scope) = self.scopes.last_mut() {
            scope.weight = scope.weight.saturating_add(weight);
        }
        ControlFlow::Continue(())
    }
}
