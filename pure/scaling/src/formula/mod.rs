//! Formulas of `scalingModifiers`: the subset of the `expr` language that works on numbers.
//!
//! Owns: reading a formula once, with the place of what is wrong, and evaluating it over the triggers' values. Never: text, dates, maps or
//! anything unbounded: length, depth and steps are limited. Operators bind as in `expr` (its language definition): `??` first, then `**` and
//! `^`, `* / %`, `+ -`, comparisons, `&&`, `||`, and last `a ? b : c`. Start with [`Formula::parse`].

mod evaluate;
mod lexer;
mod parser;

use std::collections::BTreeSet;
use std::fmt;

use parser::{Node, NodeKind};

/// The longest formula, in bytes.
const MAX_BYTES: usize = 4096;

/// A formula that has been read.
#[derive(Debug, Clone, PartialEq)]
pub struct Formula {
    root: Node,
}

/// What is wrong with a formula, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormulaError {
    /// The byte where it is wrong, from 0.
    pub offset: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for FormulaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.offset + 1, self.message)
    }
}

impl std::error::Error for FormulaError {}

impl Formula {
    /// Reads a formula whose variables are all in `names`.
    ///
    /// # Errors
    /// The first mistake, an unknown name or function included.
    pub fn parse(text: &str, names: &[&str]) -> Result<Self, FormulaError> {
        if text.len() > MAX_BYTES {
            let message = format!("has {} bytes; at most {MAX_BYTES} are read", text.len());
            return Err(FormulaError { offset: 0, message });
        }
        let root = parser::parse(lexer::split(text)?, text.len())?;
        check_names(&root, names)?;
        Ok(Self { root })
    }

    /// The variables that it uses.
    pub fn variables(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.root.visit(&mut |node| {
            if let NodeKind::Variable(name) = &node.kind {
                found.insert(name.clone());
            }
        });
        found
    }

    /// The value of the formula; `None` is `nil`. `value_of` gives the value of a variable, `None` while its trigger fails.
    ///
    /// # Errors
    /// What cannot be computed, such as `nil + 1`, and where.
    pub fn evaluate(&self, value_of: &dyn Fn(&str) -> Option<f64>) -> Result<Option<f64>, FormulaError> {
        evaluate::evaluate(&self.root, value_of)
    }
}

fn check_names(root: &Node, names: &[&str]) -> Result<(), FormulaError> {
    let mut wrong = None;
    root.visit(&mut |node| {
        if let NodeKind::Variable(name) = &node.kind
            && !names.contains(&name.as_str())
            && wrong.is_none()
        {
            let known = if names.is_empty() {
                "no trigger has a name".to_owned()
            } else {
                format!("the names are {}", names.join(", "))
            };
            wrong =
                Some(FormulaError { offset: node.offset, message: format!("{name} is no trigger's name; {known}") });
        }
    });
    wrong.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
