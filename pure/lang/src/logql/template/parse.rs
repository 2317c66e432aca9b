//! Reads templates.

use super::literal::{self, quoted_end};
use super::{BranchKind, Command, FUNCTIONS, Node, Operand, Pipeline, Template};

/// How deep branches and parentheses may nest.
const DEPTH_LIMIT: usize = 32;

/// Why a text is no template: the byte of its place, and what is wrong.
pub type Refusal = (usize, String);

/// Reads a template.
///
/// # Errors
/// The first place that is wrong.
pub fn parse_template(text: &str) -> Result<Template, Refusal> {
    let pieces = split(text)?;
    let mut reader = Reader { text, pieces: &pieces, at: 0, depth: 0, ranges: 0, variables: vec![String::new()] };
    let (nodes, end) = reader.nodes()?;
    match end {
        None => Ok(Template { text: text.to_owned(), nodes }),
        Some((keyword, at)) => Err((at, format!("unexpected {{{{{keyword}}}}}"))),
    }
}

/// Text between actions, or the inside of an action with its place.
enum Piece<'a> {
    Text(&'a str),
    Action(&'a str, usize),
}

/// Cuts a template at its braces; trims text beside `{{-` and `-}}`, drops comments.
fn split(text: &str) -> Result<Vec<Piece<'_>>, Refusal> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut trims_start = false;
    loop {
        let rest = &text[at..];
        let opening = rest.find("{{");
        let mut plain = &rest[..opening.unwrap_or(rest.len())];
        if trims_start {
            plain = plain.trim_start_matches(is_blank);
        }
        let Some(opening) = opening else {
            pieces.push(Piece::Text(plain));
            return Ok(pieces);
        };
        let mut start = at + opening + 2;
        let inner = &text[start..];
        if inner.starts_with('-') && inner[1..].starts_with(is_blank) {
            plain = plain.trim_end_matches(is_blank);
            start += 1;
        }
        pieces.push(Piece::Text(plain));
        let inner = text[start..].trim_start_matches(is_blank);
        if inner.starts_with("/*") {
            let from = text.len() - inner.len();
            let end = inner.find("*/").ok_or((from, "unclosed comment".to_owned()))? + 2;
            let behind = &inner[end..];
            let (length, trims) = if behind.starts_with("}}") {
                (2, false)
            } else if behind.trim_start_matches(is_blank).starts_with("-}}") {
                (behind.len() - behind.trim_start_matches(is_blank).len() + 3, true)
            } else {
                return Err((from, "comment ends before closing delimiter".to_owned()));
            };
            at = from + end + length;
            trims_start = trims;
            continue;
        }
        let end = action_end(text, start)?;
        let mut body = &text[start..end];
        trims_start = body.ends_with('-') && body[..body.len() - 1].ends_with(is_blank);
        if trims_start {
            body = &body[..body.len() - 1];
        }
        pieces.push(Piece::Action(body, start));
        at = end + 2;
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Where the `}}` of the action that begins at `start` stands.
fn action_end(text: &str, start: usize) -> Result<usize, Refusal> {
    let bytes = text.as_bytes();
    let mut at = start;
    while at < bytes.len() {
        match bytes[at] {
            b'"' | b'\'' => at = quoted_end(text, at)?,
            b'`' => {
                let length = text[at + 1..].find('`').ok_or((at, "unterminated raw quoted string".to_owned()))?;
                at += length + 2;
            }
            b'}' if bytes.get(at + 1) == Some(&b'}') => return Ok(at),
            _ => at += 1,
        }
    }
    Err((start.saturating_sub(2), "unclosed action".to_owned()))
}

struct Reader<'a> {
    text: &'a str,
    pieces: &'a [Piece<'a>],
    at: usize,
    depth: usize,
    /// How many ranges stand open.
    ranges: usize,
    variables: Vec<String>,
}

/// The keyword that ended a list of nodes, with what stands behind it, and its place.
type Ending<'a> = Option<(&'a str, usize)>;

impl<'a> Reader<'a> {
    /// Nodes up to `end`, `else` or the template's end.
    fn nodes(&mut self) -> Result<(Vec<Node>, Ending<'a>), Refusal> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.get(self.at) {
            self.at += 1;
            match piece {
                Piece::Text("") => {}
                Piece::Text(text) => nodes.push(Node::Text((*text).to_owned())),
                Piece::Action(body, place) => {
                    let trimmed = body.trim();
                    let place = place + (body.len() - body.trim_start().len());
                    let keyword = trimmed.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                    let rest = &trimmed[keyword.len()..];
                    let rest_place = place + keyword.len();
                    match keyword {
                        "end" | "else" => return Ok((nodes, Some((trimmed, place)))),
                        "if" => nodes.push(self.branch(BranchKind::If, rest, rest_place)?),
                        "with" => nodes.push(self.branch(BranchKind::With, rest, rest_place)?),
                        "range" => nodes.push(self.branch(BranchKind::Range, rest, rest_place)?),
                        "break" | "continue" => nodes.push(self.jump(keyword, rest, place)?),
                        "define" | "template" | "block" => {
                            return Err((place, format!("{{{{{keyword}}}}} is not supported in a template")));
                        }
                        _ => nodes.push(Node::Action(self.pipeline(trimmed, place, false)?)),
                    }
                }
            }
        }
        Ok((nodes, None))
    }

    /// A `break` or `continue`.
    fn jump(&self, keyword: &str, rest: &str, place: usize) -> Result<Node, Refusal> {
        if self.ranges == 0 {
            return Err((place, format!("{{{{{keyword}}}}} outside {{{{range}}}}")));
        }
        if !rest.trim().is_empty() {
            return Err((place, format!("unexpected {:?} in {{{{{keyword}}}}}", rest.trim())));
        }
        Ok(if keyword == "break" { Node::Break } else { Node::Continue })
    }

    fn branch(&mut self, kind: BranchKind, condition: &str, place: usize) -> Result<Node, Refusal> {
        self.depth += 1;
        if self.depth > DEPTH_LIMIT {
            return Err((place, format!("more than {DEPTH_LIMIT} nested branches")));
        }
        let known = self.variables.len();
        let is_range = kind == BranchKind::Range;
        let pipeline = self.pipeline(condition, place, is_range)?;
        self.ranges += usize::from(is_range);
        let (body, ending) = self.nodes()?;
        self.ranges -= usize::from(is_range);
        let otherwise = self.otherwise(kind, ending)?;
        self.variables.truncate(known);
        self.depth -= 1;
        Ok(Node::Branch { kind, pipeline, body, otherwise })
    }

    fn otherwise(&mut self, kind: BranchKind, ending: Ending<'a>) -> Result<Vec<Node>, Refusal> {
        let Some((action, place)) = ending else {
            return Err((self.text.len(), "unexpected end of the template, expected {{end}}".to_owned()));
        };
        if action == "end" {
            return Ok(Vec::new());
        }
        let rest = action.strip_prefix("else").unwrap_or_default();
        let condition = rest.trim_start();
        if condition.is_empty() {
            let (nodes, ending) = self.nodes()?;
            return match ending {
                Some(("end", _)) => Ok(nodes),
                Some((action, place)) => Err((place, format!("unexpected {{{{{action}}}}}"))),
                None => Err((self.text.len(), "unexpected end of the template, expected {{end}}".to_owned())),
            };
        }
        let at = place + action.len() - condition.len();
        match (kind, condition.strip_prefix("if"), condition.strip_prefix("with")) {
            (BranchKind::If, Some(condition), _) if condition.starts_with(is_blank) => {
                Ok(vec![self.branch(BranchKind::If, condition, at + 2)?])
            }
            (BranchKind::With, _, Some(condition)) if condition.starts_with(is_blank) => {
                Ok(vec![self.branch(BranchKind::With, condition, at + 4)?])
            }
            _ => Err((at, format!("unexpected {condition:?} behind else"))),
        }
    }

    fn pipeline(&mut self, text: &str, place: usize, is_range: bool) -> Result<Pipeline, Refusal> {
        let tokens = tokens(text, place)?;
        let mut at = 0;
        let pipeline = self.pipeline_of(&tokens, &mut at, is_range)?;
        match tokens.get(at) {
            None => Ok(pipeline),
            Some((token, place)) => Err((*place, format!("unexpected {token:?}"))),
        }
    }

    fn pipeline_of(&mut self, tokens: &[(String, usize)], at: &mut usize, is_range: bool) -> Result<Pipeline, Refusal> {
        let token = |at: usize| tokens.get(at).map(|(token, _)| token.as_str());
        let place = |at: usize| tokens.get(at).or(tokens.last()).map_or(0, |(_, place)| *place);
        let mut variables = Vec::new();
        let mut is_assignment = false;
        let is_variable = |text: Option<&str>| text.is_some_and(|text| text.starts_with('$') && !text.contains('.'));
        let width = match (token(*at + 1), token(*at + 3)) {
            (Some(":=" | "="), _) if is_variable(token(*at)) => 1,
            (Some(","), Some(":=" | "=")) if is_range && is_variable(token(*at)) && is_variable(token(*at + 2)) => 2,
            _ => 0,
        };
        for number in 0..width {
            variables.push(token(*at + 2 * number).unwrap_or_default()[1..].to_owned());
        }
        if width > 0 {
            is_assignment = token(*at + 2 * width - 1) == Some("=");
            for variable in &variables {
                if is_assignment && !self.variables.contains(variable) {
                    return Err((place(*at), format!("undefined variable \"${variable}\"")));
                }
            }
            *at += 2 * width;
        }
        let mut commands = Vec::new();
        loop {
            let mut operands = Vec::new();
            while let Some(text) = token(*at) {
                if text == "|" || text == ")" {
                    break;
                }
                operands.push(self.operand(tokens, at)?);
            }
            if operands.is_empty() {
                return Err((place(*at), "missing value for command".to_owned()));
            }
            if !takes_arguments(&operands[0]) && (operands.len() > 1 || !commands.is_empty()) {
                return Err((place(at.saturating_sub(1)), "only a function or a method can take arguments".to_owned()));
            }
            commands.push(Command { operands });
            if token(*at) != Some("|") {
                break;
            }
            *at += 1;
        }
        if !is_assignment {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipeline { variables, is_assignment, commands })
    }

    fn operand(&mut self, tokens: &[(String, usize)], at: &mut usize) -> Result<Operand, Refusal> {
        let (token, place) = &tokens[*at];
        *at += 1;
        let first = token.chars().next().unwrap_or(' ');
        match first {
            '(' => {
                self.depth += 1;
                if self.depth > DEPTH_LIMIT {
                    return Err((*place, format!("more than {DEPTH_LIMIT} nested parentheses")));
                }
                let inner = self.pipeline_of(tokens, at, false)?;
                self.depth -= 1;
                match tokens.get(*at) {
                    Some((closing, _)) if closing == ")" => *at += 1,
                    _ => return Err((*place, "unclosed left paren".to_owned())),
                }
                let mut path = Vec::new();
                let closing = tokens[*at - 1].1;
                if let Some((field, _)) =
                    tokens.get(*at).filter(|(text, place)| is_field(text) && *place == closing + 1)
                {
                    path = path_of(field, closing + 1)?;
                    *at += 1;
                }
                Ok(Operand::Pipeline(Box::new(inner), path))
            }
            '.' if token.len() == 1 => Ok(Operand::Dot(Vec::new())),
            '.' if token[1..].starts_with(|c: char| c.is_ascii_digit()) => literal::number(token, *place),
            '.' => Ok(Operand::Dot(path_of(token, *place)?)),
            '$' => {
                let (name, path) = token[1..].split_once('.').map_or((&token[1..], None), |(n, p)| (n, Some(p)));
                if !self.variables.iter().any(|known| known == name) {
                    return Err((*place, format!("undefined variable \"${name}\"")));
                }
                let path = path.map_or(Ok(Vec::new()), |path| path_of(&format!(".{path}"), *place))?;
                Ok(Operand::Variable(name.to_owned(), path))
            }
            '"' => literal::text(token, *place),
            '\'' => literal::character(token, *place),
            '`' => Ok(Operand::Text(token[1..token.len() - 1].to_owned())),
            '0'..='9' | '+' | '-' => literal::number(token, *place),
            _ => named(token, *place),
        }
    }
}

/// A constant or a function by its name, or a field of what the function gives.
fn named(token: &str, place: usize) -> Result<Operand, Refusal> {
    let (name, fields) = token.split_at(token.find('.').unwrap_or(token.len()));
    let value = match name {
        "true" => Operand::Bool(true),
        "false" => Operand::Bool(false),
        "nil" => Operand::Nil,
        name if FUNCTIONS.contains(&name) => Operand::Function(name.to_owned()),
        name if name.starts_with(|first: char| first.is_alphabetic() || first == '_') => {
            return Err((place, format!("function {name:?} not defined")));
        }
        other => return Err((place, format!("unexpected {other:?} in a template"))),
    };
    if fields.is_empty() {
        return Ok(value);
    }
    if !matches!(value, Operand::Function(_)) {
        return Err((place, format!("unexpected . after term {name:?}")));
    }
    let path = path_of(fields, place + name.len())?;
    let commands = vec![Command { operands: vec![value] }];
    Ok(Operand::Pipeline(Box::new(Pipeline { variables: Vec::new(), is_assignment: false, commands }), path))
}

/// Whether arguments may stand behind an operand: it is a function, or a field that may be a method.
fn takes_arguments(operand: &Operand) -> bool {
    match operand {
        Operand::Function(_) => true,
        Operand::Dot(path) | Operand::Variable(_, path) | Operand::Pipeline(_, path) => !path.is_empty(),
        _ => false,
    }
}

/// Whether a token is a field, and not the dot alone.
fn is_field(token: &str) -> bool {
    token.starts_with('.') && token.len() > 1
}

fn path_of(token: &str, place: usize) -> Result<Vec<String>, Refusal> {
    let names: Vec<String> = token[1..].split('.').map(str::to_owned).collect();
    if names.iter().any(String::is_empty) { Err((place, format!("bad field {token:?}"))) } else { Ok(names) }
}

/// The tokens of an action with their places.
fn tokens(text: &str, place: usize) -> Result<Vec<(String, usize)>, Refusal> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let length = match first {
            c if is_blank(c) => {
                at += 1;
                continue;
            }
            '"' | '\'' => quoted_end(text, at).map_err(|(start, message)| (place + start, message))? - at,
            '`' => rest[1..].find('`').ok_or((place + at, "unterminated raw quoted string".to_owned()))? + 2,
            '(' | ')' | '|' | ',' => 1,
            ':' if rest.starts_with(":=") => 2,
            '=' => 1,
            c if c.is_alphanumeric() || matches!(c, '_' | '.' | '$' | '+' | '-') => {
                let is_fraction = c == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit());
                let is_number = c.is_ascii_digit() || matches!(c, '+' | '-') || is_fraction;
                let is_sign = |c: char| is_number && matches!(c, '+' | '-');
                let continues = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.') || is_sign(c);
                rest[c.len_utf8()..].find(|c| !continues(c)).map_or(rest.len(), |end| end + c.len_utf8())
            }
            other => return Err((place + at, format!("unexpected {other:?} in a template"))),
        };
        tokens.push((rest[..length].to_owned(), place + at));
        at += length;
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> (usize, String) {
        parse_template(text).expect_err(text)
    }

    #[test]
    fn trims_and_comments() {
        let template = parse_template("a {{- .x -}}  b {{- /* note */ -}} c").expect("a template");
        let [Node::Text(a), Node::Action(_), Node::Text(b), Node::Text(c)] = template.nodes.as_slice() else {
            panic!("{template:?}")
        };
        assert_eq!((a.as_str(), b.as_str(), c.as_str()), ("a", "b", "c"));
        assert_eq!(template.labels(), Some(vec!["x".to_owned()]));
    }

    #[test]
    fn branches_variables_and_pipelines() {
        let text = r#"{{ if and (eq .a "x") (gt (int .b) 3) }}1{{ else if .c }}2{{ else }}3{{ end }}"#;
        let template = parse_template(text).expect("a template");
        assert_eq!(template.labels().map(|names| names.join(",")), Some("a,b,c".to_owned()));
        assert!(parse_template(r#"{{ $a := .x }}{{ $a | printf "%-5s}}" | upper }}"#).is_ok());
        assert!(parse_template(r#"{{ range $i, $e := fromJson .l }}{{ $i }}{{ $e.name }}{{ end }}"#).is_ok());
        assert!(parse_template(r#"{{ (fromJson .x).name }}"#).is_ok());
        assert_eq!(parse_template("{{ . }}").expect("a template").labels(), None);
    }

    #[test]
    fn the_dot_alone_may_read_any_label() {
        for text in [
            "{{ range $k, $v := . }}{{ $k }}{{ end }}",
            "{{ range . }}x{{ end }}",
            "{{ index . `v` }}",
            "{{ . | len }}",
            "{{ len $ }}",
            "{{ printf `%v` . }}",
            "{{ $m := . }}{{ $m.v }}",
            "{{ with . }}{{ .v }}{{ end }}",
            "{{ if true }}{{ else }}{{ (default . .x).v }}{{ end }}",
        ] {
            assert_eq!(parse_template(text).expect(text).labels(), None, "{text}");
        }
        let text = "{{ range 3 }}{{ if .a }}{{ break }}{{ end }}{{ continue }}{{ end }}{{ now.Format .b }}";
        let names = ["a".to_owned(), "b".to_owned()];
        assert_eq!(parse_template(text).expect(text).labels().as_deref(), Some(names.as_slice()));
    }

    #[test]
    fn methods_and_literals() {
        for text in [
            "{{ __timestamp__.Unix }}",
            "{{ (__timestamp__).Format \"2006\" }}",
            "{{ $t := now }}{{ $t.UTC.Hour }}{{ `2006` | $t.Format | upper }}",
            "{{ with now }}{{ .Format \"15\" }}{{ end }}",
            "{{ printf `%c%c` '}' '\"' }}{{ 0x10 }}{{ 1_000 }}{{ .5e-3 }}{{ 1e+3 }}",
        ] {
            assert!(parse_template(text).is_ok(), "{text}");
        }
        let template = parse_template("{{ now.Year }}").expect("a template");
        let [Node::Action(pipeline)] = template.nodes.as_slice() else { panic!("{template:?}") };
        let [Operand::Pipeline(inner, path)] = pipeline.commands[0].operands.as_slice() else { panic!("{template:?}") };
        assert_eq!(inner.commands[0].operands, [Operand::Function("now".to_owned())]);
        assert_eq!(path.join("."), "Year");
    }

    #[test]
    fn refusals_tell_the_place() {
        assert_eq!(refusal("x {{ nosuch .a }}"), (5, "function \"nosuch\" not defined".to_owned()));
        assert_eq!(refusal("{{ .x").1, "unclosed action");
        assert!(refusal("{{ if .x }}x").1.contains("expected {{end}}"));
        assert_eq!(refusal("{{ $y }}"), (3, "undefined variable \"$y\"".to_owned()));
        assert_eq!(refusal("{{ define \"x\" }}").0, 3);
        assert!(refusal("{{ }}").1.contains("missing value"));
        assert!(refusal("{{ end }}").1.contains("unexpected"));
        for text in ["{{ \"x\" .a }}", "{{ . .a }}", "{{ .a | 3 }}", "{{ (.a) .b }}"] {
            assert!(refusal(text).1.contains("only a function"), "{text}");
        }
        assert_eq!(refusal("{{ break }}"), (3, "{{break}} outside {{range}}".to_owned()));
        assert!(refusal("{{ range 3 }}{{ else }}{{ continue }}{{ end }}").1.contains("outside {{range}}"));
        assert!(refusal("{{ range 3 }}{{ break 3 }}{{ end }}").1.contains("unexpected \"3\""));
        assert_eq!(refusal("{{ 'a }}").1, "unterminated character constant");
        assert!(refusal("{{ true.x }}").1.contains("unexpected . after term"));
        assert!(refusal("{{ now. }}").1.contains("bad field"));
        let deep = format!("{{{{ {}.a{} }}}}", "(".repeat(99), ")".repeat(99));
        assert!(refusal(&deep).1.contains("nested"));
    }
}
