//! What commands print: data on stdout as a table or JSON, talk on stderr.

use std::io::{self, Write};

use serde::Serialize;

use crate::admin::MAX_ROWS;
use crate::error::{Error, Result};

/// What may stand behind a number in a table.
const UNITS: &[&str] = &["", "B", "KiB", "MiB", "GiB", "TiB", "s", "min", "h", "d"];

/// Rows of a list unless told otherwise.
const LISTED_ROWS: usize = 100;

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// Aligned columns for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// Comma-separated values with a head line.
    Csv,
    /// One page with charts; for simulations only.
    Html,
    /// A form of objects: `yaml`, `wide`, `name`, `jsonpath=…`, `custom-columns=…`; for the fleet's commands only.
    Object(&'static str),
}

impl Output {
    /// What `--output` may say.
    ///
    /// # Errors
    /// What it may not, and what it may.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let is_template = ["jsonpath=", "custom-columns="].iter().any(|start| text.starts_with(start));
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            "html" => Ok(Self::Html),
            // It is said once, on the command line.
            _ if is_template || matches!(text, "yaml" | "wide" | "name") => Ok(Self::Object(text.to_owned().leak())),
            _ => Err("expected table, json or csv; of objects also yaml, wide, name, jsonpath=… or custom-columns=…"
                .to_owned()),
        }
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Html => "html",
            Self::Object(text) => text,
        })
    }
}

/// A table being printed.
#[derive(Debug, Default)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column names.
    pub fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as the head.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.head.len(), "a row has a cell for each column");
        self.rows.push(cells);
    }

    /// The table as aligned text.
    pub fn render(&self) -> String {
        let mut widths: Vec<usize> = self.head.iter().map(|name| name.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        let head: Vec<String> = self.head.iter().map(|name| (*name).to_owned()).collect();
        let numeric: Vec<bool> = (0..head.len()).map(|column| self.is_numeric(column)).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), is_numeric) in row.iter().zip(&widths).zip(&numeric) {
                let pad = std::iter::repeat_n(' ', width - cell.chars().count());
                if *is_numeric {
                    line.extend(pad);
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.extend(pad);
                }
                line.push_str("  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Whether a column holds numbers, with or without a unit: they are compared by their ends.
    fn is_numeric(&self, column: usize) -> bool {
        let is_number = |cell: &str| {
            let (number, unit) = cell.split_once(' ').unwrap_or((cell, ""));
            let is_digits = number.chars().all(|c| c.is_ascii_digit() || c == '.') && !number.is_empty();
            is_digits && UNITS.contains(&unit)
        };
        let mut cells = self.rows.iter().map(|row| row[column].as_str()).filter(|cell| *cell != "-").peekable();
        cells.peek().is_some() && cells.all(is_number)
    }

    fn render_csv(&self) -> String {
        let head: Vec<String> = self.head.iter().map(|name| (*name).to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&head).chain(&self.rows) {
            let cells: Vec<String> = row.iter().map(|cell| csv_cell(cell)).collect();
            text.push_str(&cells.join(","));
            text.push('\n');
        }
        text
    }
}

fn csv_cell(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}

/// Writes a line to stderr: talk for people. Nobody may be listening any more, which is no reason to stop working.
macro_rules! say {
    ($($words:tt)*) => { $crate::output::write_line(format_args!($($words)*)) };
}
pub(crate) use say;

/// What `say!` does.
pub fn write_line(words: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{words}");
}

/// What a list asks for: one row more than it shows, to know whether there are more.
pub fn asked_rows(limit: Option<usize>) -> Option<usize> {
    match limit.unwrap_or(LISTED_ROWS) {
        // Refused where it is asked.
        0 => Some(0),
        shown if shown < MAX_ROWS => Some(shown + 1),
        shown => Some(shown),
    }
}

/// Prints at most `limit` rows of a list, and says on stderr when there are more.
///
/// # Errors
/// Those of [`print`].
pub fn print_list<T: Serialize>(
    output: Output,
    mut rows: Vec<T>,
    limit: Option<usize>,
    table: impl FnOnce(&[T]) -> Table,
) -> Result<()> {
    let shown = limit.unwrap_or(LISTED_ROWS);
    let found = rows.len();
    rows.truncate(shown);
    print(output, &rows, |rows| table(rows))?;
    if found > shown {
        say!("{shown} shown, there are more: --limit N shows up to {MAX_ROWS}");
    } else if found == MAX_ROWS {
        say!("{MAX_ROWS} shown, there may be more");
    }
    Ok(())
}

/// Prints `data` as JSON, or the table that `table` makes of it.
///
/// # Errors
/// A closed stdout is no error; any other failure to write is.
pub fn print<T: Serialize>(output: Output, data: &T, table: impl FnOnce(&T) -> Table) -> Result<()> {
    match output {
        Output::Json => {
            let text = serde_json::to_string_pretty(data).map_err(|error| Error::invalid(error.to_string()))?;
            print_text(&format!("{text}\n"))
        }
        Output::Table => print_text(&table(data).render()),
        Output::Csv => print_text(&table(data).render_csv()),
        Output::Html => {
            Err(Error::invalid("--output html: only `tidemill simulate` and `tidemill replay` print a page"))
        }
        Output::Object(_) => Err(Error::invalid(format!("--output {output}: only commands about objects print that"))),
    }
}

/// Writes data to stdout.
///
/// # Errors
/// As [`print`].
pub fn print_text(text: &str) -> Result<()> {
    print_bytes(text.as_bytes()).map(drop)
}

/// Whether anybody reads what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Go on.
    Listening,
    /// Closed by its reader, as `head` does: nothing more is wanted.
    Gone,
}

/// Writes data to stdout as it is.
///
/// # Errors
/// As [`print`].
pub fn print_bytes(bytes: &[u8]) -> Result<Reader> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::Listening),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Error::io("writing to stdout", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_aligned_by_their_ends() {
        let mut table = Table::new(&["ROWS", "SIZE", "ID"]);
        table.row(vec!["5".to_owned(), "-".to_owned(), "7a".to_owned()]);
        table.row(vec!["12000".to_owned(), "1.5 KiB".to_owned(), "10".to_owned()]);
        assert_eq!(table.render(), " ROWS     SIZE  ID\n    5        -  7a\n12000  1.5 KiB  10\n");
    }

    #[test]
    fn columns_are_aligned_and_csv_is_quoted() {
        let mut table = Table::new(&["name", "state"]);
        table.row(vec!["a, b".to_owned(), "ok".to_owned()]);
        table.row(vec!["long name".to_owned(), "\"x\"".to_owned()]);
        assert_eq!(table.render(), "name       state\na, b       ok\nlong name  \"x\"\n");
        assert_eq!(table.render_csv(), "name,state\n\"a, b\",ok\nlong name,\"\"\"x\"\"\"\n");
    }
}
