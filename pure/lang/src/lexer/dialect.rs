//! In what the languages' tokens differ.

/// How the tokens of one language look.
pub struct Dialect {
    /// Operators, brackets and separators; at each place the longest that fits is taken.
    pub operators: &'static [&'static str],
    /// Whether a character begins a name, given the brackets that are open there.
    pub begins_name: fn(char, Nesting) -> bool,
    /// Whether a character continues a name, given the brackets that are open there.
    pub continues_name: fn(char, Nesting) -> bool,
    /// Which quotes open a text.
    pub quotes: Quotes,
    /// How comments begin.
    pub comments: Comments,
    /// Whether `.5` is a number.
    pub dot_begins_number: bool,
    /// Whether `017` is fifteen, `0x1F` thirty-one and `1_000` a thousand, as in Go.
    pub radix_prefixes: bool,
    /// Units of time, with their nanoseconds; the longest that fits is taken.
    pub durations: &'static [Unit],
    /// Whether the units of one duration must fall (`1h30m`), each standing once, and its numbers be whole.
    pub strict_durations: bool,
    /// Units of size, with their bytes; the longest that fits, in any case, is taken.
    pub sizes: &'static [Unit],
}

/// A unit and how much of the base unit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// As written.
    pub name: &'static str,
    /// In nanoseconds or bytes.
    pub factor: i64,
}

/// How many brackets of each kind are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Nesting {
    /// `{` without their `}`.
    pub braces: u32,
    /// `[` without their `]`.
    pub brackets: u32,
    /// `(` without their `)`.
    pub parentheses: u32,
}

/// The quotes that open a text. A backquoted text has no escapes; the others have Go's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quotes {
    /// `"text"`, `'text'` and `` `text` ``.
    All,
    /// `"text"` and `` `text` ``.
    DoubleAndBack,
}

/// How a comment begins; it ends with its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comments {
    /// `# comment`
    Hash,
    /// `// comment`, and `/* comment */`, which may span lines.
    Slashes,
    /// Any of them.
    HashAndSlashes,
    /// The language has none.
    None,
}

impl Quotes {
    pub(super) fn opens(self, first: char) -> bool {
        matches!(first, '"' | '`') || (first == '\'' && self == Self::All)
    }
}

impl Comments {
    /// The bytes of the comment that `rest` begins with; 0 where it begins with none.
    pub(super) fn len_at(self, rest: &str) -> usize {
        let line = |opening: &str| {
            if rest.starts_with(opening) { rest.find(['\n', '\r']).unwrap_or(rest.len()) } else { 0 }
        };
        match self {
            Self::Hash => line("#"),
            Self::Slashes if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            Self::Slashes => line("//"),
            Self::HashAndSlashes => Self::Hash.len_at(rest).max(Self::Slashes.len_at(rest)),
            Self::None => 0,
        }
    }
}

impl Nesting {
    pub(super) fn follow(&mut self, operator: &str) {
        match operator {
            "{" => self.braces += 1,
            "}" => self.braces = self.braces.saturating_sub(1),
            "[" => self.brackets += 1,
            "]" => self.brackets = self.brackets.saturating_sub(1),
            "(" => self.parentheses += 1,
            ")" => self.parentheses = self.parentheses.saturating_sub(1),
            _ => {}
        }
    }
}
