//! Selectors by themselves, as parameters of an API hold them.

use tidemill_lang::promql::{Expr, ExprKind, parse, parse_selector};

use super::selection::matchers;
use crate::error::Result;
use crate::matcher::Matcher;

/// The conditions of a text that is one selector.
///
/// # Errors
/// It is none, or a pattern of it is no regular expression.
pub fn selector_of(text: &str) -> Result<Vec<Matcher>> {
    matchers(&parse_selector(text)?)
}

/// The conditions of every selector in a query.
///
/// # Errors
/// The query is wrong, or a pattern of it is no regular expression.
pub fn selectors_in(query: &str) -> Result<Vec<Vec<Matcher>>> {
    fn collect(expr: &Expr, all: &mut Vec<Vec<Matcher>>) -> Result<()> {
        match &expr.kind {
            ExprKind::Vector(selector) => all.push(matchers(selector)?),
            ExprKind::Matrix(matrix) => all.push(matchers(&matrix.selector)?),
            _ => expr.children().into_iter().try_for_each(|child| collect(child, all))?,
        }
        Ok(())
    }
    let mut all = Vec::new();
    collect(&parse(query)?, &mut all)?;
    Ok(all)
}
