//! What to tell about a text that is no YAML.

use saphyr::{LoadError, ScanError};

use super::problems::Problem;

/// The problem behind a parser's error, with the way to write it where the mistake is a known one.
pub(crate) fn explain(text: &str, error: &impl SyntaxError) -> Problem {
    if let Some(problem) = items_after_empty_list(text) {
        return problem;
    }
    let (line, column, message) = error.describe();
    Problem { line, column, path: String::new(), message: format!("is no YAML: {message}") }
}

/// A parser's error with a place.
pub(crate) trait SyntaxError {
    /// Line and column, both from 1, and what is wrong.
    fn describe(&self) -> (usize, usize, String);
}

impl SyntaxError for ScanError {
    fn describe(&self) -> (usize, usize, String) {
        (self.marker().line(), self.marker().col() + 1, self.info().to_owned())
    }
}

impl SyntaxError for LoadError {
    fn describe(&self) -> (usize, usize, String) {
        match self {
            Self::Scan(error) => error.describe(),
            other => (1, 1, other.to_string()),
        }
    }
}

/// `name: []` with items of a list below it: printed in a public README, and no YAML.
fn items_after_empty_list(text: &str) -> Option<Problem> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| {
        let content = line.trim_start();
        !content.is_empty() && !content.starts_with('#')
    });
    // The mappings that the current line is inside of: indentation and name.
    let mut parents: Vec<(usize, &str)> = Vec::new();
    let mut current = lines.next();
    while let Some((index, line)) = current {
        let next = lines.next();
        let (indent, content) = split_indent(line);
        parents.retain(|(outer, _)| *outer < indent);
        if let Some((name, value)) = content.split_once(':') {
            let value = value.split(" #").next().unwrap_or_default().trim();
            if let Some((below_index, below)) = next
                && value == "[]"
                && split_indent(below).0 >= indent
                && split_indent(below).1.starts_with("- ")
            {
                let path: Vec<&str> = parents.iter().map(|(_, name)| *name).chain([name]).collect();
                let first = split_indent(below).1;
                let pad = " ".repeat(indent);
                let message = format!(
                    "is no YAML: `{name}: []` is an empty list, so the items from line {} on cannot belong to it; \
                     leave out the `[]`:\n{pad}{name}:\n{pad}  {first}",
                    below_index + 1,
                );
                return Some(Problem { line: index + 1, column: indent + 1, path: path.join("."), message });
            }
            parents.push((indent, name));
        }
        current = next;
    }
    None
}

fn split_indent(line: &str) -> (usize, &str) {
    let content = line.trim_start_matches(' ');
    (line.len() - content.len(), content.trim_end())
}
