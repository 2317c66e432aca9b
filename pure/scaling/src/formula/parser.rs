//! Words of a formula as a tree.

use super::FormulaError;
use super::lexer::Token;

/// The deepest tree.
const MAX_DEPTH: usize = 64;

/// Functions of numbers and lists, with the least and the largest number of arguments.
const FUNCTIONS: &[(&str, usize, usize)] = &[
    ("abs", 1, 1),
    ("ceil", 1, 1),
    ("floor", 1, 1),
    ("round", 1, 1),
    ("float", 1, 1),
    ("int", 1, 1),
    ("len", 1, 1),
    ("max", 1, usize::MAX),
    ("min", 1, usize::MAX),
    ("sum", 1, 2),
    ("mean", 1, usize::MAX),
    ("median", 1, usize::MAX),
    ("count", 1, 2),
    ("all", 2, 2),
    ("any", 2, 2),
    ("none", 2, 2),
    ("one", 2, 2),
    ("filter", 2, 2),
    ("map", 2, 2),
];

/// Binary operators with how tightly they bind, `expr`'s own numbers.
const BINARY: &[(&str, u32, bool)] = &[
    ("||", 10, false),
    ("or", 10, false),
    ("&&", 15, false),
    ("and", 15, false),
    ("==", 20, false),
    ("!=", 20, false),
    ("<", 20, false),
    (">", 20, false),
    ("<=", 20, false),
    (">=", 20, false),
    ("in", 20, false),
    ("+", 30, false),
    ("-", 30, false),
    ("*", 60, false),
    ("/", 60, false),
    ("%", 60, false),
    ("**", 100, true),
    ("^", 100, true),
    ("??", 500, false),
];

const NOT_BINDS: u32 = 50;
const SIGN_BINDS: u32 = 90;

/// A part of a formula.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub offset: usize,
    pub kind: NodeKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum NodeKind {
    Number(f64),
    Bool(bool),
    Nil,
    Variable(String),
    /// `#`, the item that a `{…}` looks at.
    Item,
    List(Vec<Node>),
    Unary(&'static str, Box<Node>),
    Binary(&'static str, Box<Node>, Box<Node>),
    Choice(Box<[Node; 3]>),
    Call(&'static str, Vec<Node>),
    /// `{…}`.
    Each(Box<Node>),
}

impl Node {
    pub fn visit(&self, see: &mut dyn FnMut(&Self)) {
        see(self);
        match &self.kind {
            NodeKind::List(items) | NodeKind::Call(_, items) => items.iter().for_each(|item| item.visit(see)),
            NodeKind::Unary(_, inner) | NodeKind::Each(inner) => inner.visit(see),
            NodeKind::Binary(_, left, right) => {
                left.visit(see);
                right.visit(see);
            }
            NodeKind::Choice(parts) => parts.iter().for_each(|part| part.visit(see)),
            _ => {}
        }
    }
}

pub(super) fn parse(tokens: Vec<(usize, Token)>, end: usize) -> Result<Node, FormulaError> {
    let mut parser = Parser { tokens, next: 0, end, depth: 0, each: 0 };
    let root = parser.choice()?;
    match parser.tokens.get(parser.next) {
        None => Ok(root),
        Some((offset, token)) => Err(error(*offset, format!("expected an operator, found {}", show(token)))),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    end: usize,
    depth: usize,
    /// How many `{…}` surround the place.
    each: usize,
}

impl Parser {
    fn choice(&mut self) -> Result<Node, FormulaError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(error(self.offset(), format!("is nested deeper than {MAX_DEPTH}")));
        }
        let condition = self.binary(0)?;
        let node = if self.take("?") {
            let then = self.choice()?;
            self.expect(":")?;
            let otherwise = self.choice()?;
            Node { offset: condition.offset, kind: NodeKind::Choice(Box::new([condition, then, otherwise])) }
        } else {
            condition
        };
        self.depth -= 1;
        Ok(node)
    }

    fn binary(&mut self, least: u32) -> Result<Node, FormulaError> {
        let mut left = self.unary()?;
        while let Some((operator, binds, is_right)) = self.peek_binary()
            && binds >= least
        {
            let offset = self.offset();
            self.next += 1;
            let right = self.binary(if is_right { binds } else { binds + 1 })?;
            left = Node { offset, kind: NodeKind::Binary(operator, Box::new(left), Box::new(right)) };
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Node, FormulaError> {
        let offset = self.offset();
        let (operator, binds) = match self.tokens.get(self.next) {
            Some((_, Token::Symbol("-"))) => ("-", SIGN_BINDS),
            Some((_, Token::Symbol("+"))) => ("+", SIGN_BINDS),
            Some((_, Token::Symbol("!"))) => ("!", NOT_BINDS),
            Some((_, Token::Name(name))) if name == "not" => ("!", NOT_BINDS),
            _ => return self.primary(),
        };
        self.next += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(error(offset, format!("is nested deeper than {MAX_DEPTH}")));
        }
        let inner = self.binary(binds)?;
        self.depth -= 1;
        Ok(Node { offset, kind: NodeKind::Unary(operator, Box::new(inner)) })
    }

    fn primary(&mut self) -> Result<Node, FormulaError> {
        let offset = self.offset();
        let Some((_, token)) = self.tokens.get(self.next).cloned() else {
            return Err(error(offset, "ends where a value is expected".to_owned()));
        };
        self.next += 1;
        let kind = match token {
            Token::Number(value) => NodeKind::Number(value),
            Token::Name(name) => match name.as_str() {
                "true" => NodeKind::Bool(true),
                "false" => NodeKind::Bool(false),
                "nil" => NodeKind::Nil,
                _ if self.take("(") => self.call(&name, offset)?,
                _ => NodeKind::Variable(name),
            },
            Token::Symbol("(") => {
                let inner = self.choice()?;
                self.expect(")")?;
                inner.kind
            }
            Token::Symbol("[") => NodeKind::List(self.list("]")?),
            Token::Symbol("#") if self.each > 0 => NodeKind::Item,
            Token::Symbol("{") => {
                return Err(error(
                    offset,
                    "a {…} stands as the second argument of count, all, any, none, one, sum, filter or map".to_owned(),
                ));
            }
            token => return Err(error(offset, format!("expected a value, found {}", show(&token)))),
        };
        Ok(Node { offset, kind })
    }

    fn call(&mut self, name: &str, offset: usize) -> Result<NodeKind, FormulaError> {
        let Some((function, least, most)) = FUNCTIONS.iter().find(|(known, ..)| *known == name) else {
            let known: Vec<&str> = FUNCTIONS.iter().map(|(known, ..)| *known).collect();
            return Err(error(offset, format!("unknown function {name}; the functions are {}", known.join(", "))));
        };
        let arguments = self.list(")")?;
        let takes_each = matches!(*function, "count" | "all" | "any" | "none" | "one" | "sum" | "filter" | "map");
        let misplaced = arguments
            .iter()
            .enumerate()
            .any(|(index, argument)| matches!(argument.kind, NodeKind::Each(_)) != (takes_each && index == 1));
        if arguments.len() < *least || arguments.len() > *most || misplaced {
            let shape = if takes_each { "a list and a {…}" } else { "numbers" };
            return Err(error(offset, format!("{name} takes {shape}")));
        }
        Ok(NodeKind::Call(function, arguments))
    }

    fn list(&mut self, close: &'static str) -> Result<Vec<Node>, FormulaError> {
        let mut items = Vec::new();
        while !self.take(close) {
            if !items.is_empty() {
                self.expect(",")?;
                if self.take(close) {
                    break;
                }
            }
            let offset = self.offset();
            if close == ")" && self.take("{") {
                self.each += 1;
                let inner = self.choice()?;
                self.each -= 1;
                self.expect("}")?;
                items.push(Node { offset, kind: NodeKind::Each(Box::new(inner)) });
            } else {
                items.push(self.choice()?);
            }
        }
        Ok(items)
    }

    fn peek_binary(&self) -> Option<(&'static str, u32, bool)> {
        let word = match &self.tokens.get(self.next)?.1 {
            Token::Symbol(symbol) => *symbol,
            Token::Name(name) => name.as_str(),
            Token::Number(_) => return None,
        };
        BINARY.iter().find(|(operator, ..)| *operator == word).copied()
    }

    fn offset(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(offset, _)| *offset)
    }

    fn take(&mut self, symbol: &'static str) -> bool {
        let is_next = matches!(self.tokens.get(self.next), Some((_, Token::Symbol(found))) if *found == symbol);
        self.next += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, symbol: &'static str) -> Result<(), FormulaError> {
        if self.take(symbol) {
            return Ok(());
        }
        let found = self.tokens.get(self.next).map_or("the end".to_owned(), |(_, token)| show(token));
        Err(error(self.offset(), format!("expected {symbol}, found {found}")))
    }
}

fn error(offset: usize, message: String) -> FormulaError {
    FormulaError { offset, message }
}

fn show(token: &Token) -> String {
    match token {
        Token::Number(value) => value.to_string(),
        Token::Name(name) => name.clone(),
        Token::Symbol(symbol) => (*symbol).to_owned(),
    }
}
