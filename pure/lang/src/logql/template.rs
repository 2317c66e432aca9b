//! The templates of `line_format` and `label_format`: Go's `text/template`, without definitions.
//!
//! What a template may call is [`FUNCTIONS`]; anything else is refused with its place. Evaluation lives with the evaluator.

mod literal;
mod parse;

pub use parse::parse_template;

/// A template.
#[derive(Debug, Clone)]
pub struct Template {
    /// As written.
    pub text: String,
    /// What it writes.
    pub nodes: Vec<Node>,
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// This text.
    Text(String),
    /// The value of a pipeline; nothing where it only sets a variable.
    Action(Pipeline),
    /// `{{ if }}`, `{{ with }}` or `{{ range }}`
    Branch {
        /// Which of them.
        kind: BranchKind,
        /// What decides.
        pipeline: Pipeline,
        /// What is written where it holds, for each element in a range.
        body: Vec<Node>,
        /// What is written otherwise.
        otherwise: Vec<Node>,
    },
    /// `{{ break }}`: ends the innermost range.
    Break,
    /// `{{ continue }}`: goes on with the next element of the innermost range.
    Continue,
}

/// The kinds of branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BranchKind {
    /// `if`
    If,
    /// `with`: the value becomes the dot.
    With,
    /// `range`: each element becomes the dot.
    Range,
}

/// Commands, each of which gets the value of the one before as its last argument.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// The variables that it sets: one, or index and element in a range.
    pub variables: Vec<String>,
    /// Whether the variables must exist already (`=` and not `:=`).
    pub is_assignment: bool,
    /// The commands.
    pub commands: Vec<Command>,
}

/// A function or method with its arguments, or one value.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// The first is what is called or given.
    pub operands: Vec<Operand>,
}

/// A value in a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// `.`, or with names `.a.b`
    Dot(Vec<String>),
    /// `$x`, or with names `$x.a`; `$` alone has the empty name.
    Variable(String, Vec<String>),
    /// A text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// `true` or `false`
    Bool(bool),
    /// `nil`
    Nil,
    /// A function of [`FUNCTIONS`].
    Function(String),
    /// A pipeline in parentheses, or a field or method of its value; a function with names (`now.Year`) is one too.
    Pipeline(Box<Pipeline>, Vec<String>),
}

/// Every function that a template may call.
pub const FUNCTIONS: &[&str] = &[
    "__line__",
    "__timestamp__",
    "now", // of the record
    "and",
    "or",
    "not",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "len",
    "index",
    "slice",
    "print",
    "printf",
    "println",
    "urlquery",
    "html",
    "js", // of the template language
    "ToLower",
    "ToUpper",
    "Replace",
    "Trim",
    "TrimLeft",
    "TrimRight",
    "TrimPrefix",
    "TrimSuffix",
    "TrimSpace",
    "regexReplaceAll",
    "regexReplaceAllLiteral",
    "count",
    "urldecode",
    "urlencode",
    "bytes",
    "duration",
    "duration_seconds",
    "unixEpochMillis",
    "unixEpochNanos",
    "toDateInZone",
    "unixToTime",
    "alignLeft",
    "alignRight",
    "lower",
    "upper",
    "title",
    "trunc",
    "substr",
    "contains",
    "hasPrefix",
    "hasSuffix",
    "indent",
    "nindent",
    "replace",
    "repeat",
    "trim",
    "trimAll",
    "trimSuffix",
    "trimPrefix",
    "int",
    "float64",
    "add",
    "sub",
    "mul",
    "div",
    "mod",
    "addf",
    "subf",
    "mulf",
    "divf",
    "max",
    "min",
    "maxf",
    "minf",
    "ceil",
    "floor",
    "round",
    "fromJson",
    "date",
    "toDate",
    "unixEpoch",
    "default",
    "b64enc",
    "b64dec",
];

impl Template {
    /// The names of labels that it reads; `None` where it may read any: wherever the dot stands alone (`{{ range . }}`).
    pub fn labels(&self) -> Option<Vec<String>> {
        let mut names = Vec::new();
        collect_nodes(&self.nodes, &mut names).then_some(names)
    }
}

fn collect_nodes(nodes: &[Node], names: &mut Vec<String>) -> bool {
    nodes.iter().all(|node| match node {
        Node::Text(_) | Node::Break | Node::Continue => true,
        Node::Action(pipeline) => collect(pipeline, names),
        Node::Branch { pipeline, body, otherwise, .. } => {
            collect(pipeline, names) && collect_nodes(body, names) && collect_nodes(otherwise, names)
        }
    })
}

fn collect(pipeline: &Pipeline, names: &mut Vec<String>) -> bool {
    pipeline.commands.iter().flat_map(|command| &command.operands).all(|operand| match operand {
        Operand::Dot(path) => match path.first() {
            Some(name) => {
                names.push(name.clone());
                true
            }
            None => false,
        },
        Operand::Variable(name, path) if name.is_empty() => match path.first() {
            Some(name) => {
                names.push(name.clone());
                true
            }
            None => false,
        },
        Operand::Pipeline(inner, _) => collect(inner, names),
        _ => true,
    })
}
