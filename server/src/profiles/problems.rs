//! All that is wrong with a document.

use std::fmt;

/// One thing that is wrong, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// The path inside the document: `[2].organization_id`; empty for the whole of it.
    pub path: String,
    /// What is wrong and what is expected.
    pub message: String,
}

/// Everything that is wrong with one document; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    /// Which document: a path, `env:NAME`, or a document of the metastore.
    pub label: String,
    /// What is wrong, in the order of the lines.
    pub problems: Vec<Problem>,
}

impl Problems {
    /// A document with a single problem.
    pub fn one(label: &str, problem: Problem) -> Self {
        Self { label: label.to_owned(), problems: vec![problem] }
    }

    /// `value`, unless there are problems.
    pub fn unless<T>(label: &str, mut problems: Vec<Problem>, value: T) -> Result<T, Self> {
        if problems.is_empty() {
            return Ok(value);
        }
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Err(Self { label: label.to_owned(), problems })
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{}:{}: ", self.label, problem.line, problem.column)?;
            if !problem.path.is_empty() {
                write!(f, "{}: ", problem.path)?;
            }
            f.write_str(&problem.message)?;
        }
        Ok(())
    }
}
