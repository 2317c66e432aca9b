//! Runs templates over the labels of a line.

mod decimal;
mod functions;
mod printf;
mod text;
mod time;
mod value;

use tidemill_lang::logql::template::{BranchKind, Command, Node, Operand, Pipeline, Template};

use super::labels::RowLabels;
use value::Value;

/// The most bytes that a template may write for one line.
const OUTPUT_LIMIT_BYTES: usize = 1 << 20;
/// The most elements that ranges may visit for one line.
const RANGE_LIMIT: usize = 10_000;

/// What a template may ask about the line beside its labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct TemplateContext<'c> {
    /// The line.
    pub line: &'c str,
    /// Its time, in nanoseconds.
    pub time_ns: i64,
    /// The time of the query, in nanoseconds.
    pub now_ns: i64,
}

/// What the template writes.
///
/// # Errors
/// Why it failed on this line, in words.
pub(super) fn run_template(
    template: &Template,
    labels: &RowLabels<'_>,
    context: TemplateContext<'_>,
) -> Result<String, String> {
    let mut run =
        Run { labels, context, variables: vec![(String::new(), Value::Labels)], output: Vec::new(), visited: 0 };
    run.nodes(&template.nodes, &Value::Labels)?;
    Ok(text::lossy(&run.output))
}

struct Run<'r> {
    labels: &'r RowLabels<'r>,
    context: TemplateContext<'r>,
    variables: Vec<(String, Value)>,
    output: Vec<u8>,
    visited: usize,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        for node in nodes {
            match node {
                Node::Text(text) => self.output.extend_from_slice(text.as_bytes()),
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        let text = match value {
                            Value::Labels => text::labels_text(self.labels),
                            value => value.to_text(),
                        };
                        self.output.extend_from_slice(&text);
                    } else {
                        self.assign(pipeline, vec![value]);
                    }
                }
                Node::Branch { kind, pipeline, body, otherwise } => {
                    let known = self.variables.len();
                    self.branch(*kind, pipeline, body, otherwise, dot)?;
                    self.variables.truncate(known);
                }
            }
            if self.output.len() > OUTPUT_LIMIT_BYTES {
                return Err(format!("the template writes more than {OUTPUT_LIMIT_BYTES} bytes"));
            }
        }
        Ok(())
    }

    fn branch(
        &mut self,
        kind: BranchKind,
        pipeline: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<(), String> {
        let value = self.pipeline(pipeline, dot)?;
        if kind == BranchKind::Range {
            return self.range(pipeline, value, body, otherwise, dot);
        }
        if !pipeline.variables.is_empty() {
            self.assign(pipeline, vec![value.clone()]);
        }
        let known = self.variables.len();
        match (value.is_true(), kind) {
            (false, _) => self.nodes(otherwise, dot)?,
            (true, BranchKind::With) => self.nodes(body, &value)?,
            (true, _) => self.nodes(body, dot)?,
        }
        self.variables.truncate(known);
        Ok(())
    }

    fn range(
        &mut self,
        pipeline: &Pipeline,
        value: Value,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<(), String> {
        let elements: Vec<(Value, Value)> = match value {
            Value::List(list) => list.into_iter().enumerate().map(|(at, own)| (Value::Int(at as i64), own)).collect(),
            Value::Map(map) => map.into_iter().map(|(key, own)| (Value::Text(key.into_bytes()), own)).collect(),
            Value::Nil => Vec::new(),
            other => return Err(format!("range can't iterate over {}", text::lossy(&other.to_text()))),
        };
        if elements.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, element) in elements {
            self.visited += 1;
            if self.visited > RANGE_LIMIT {
                return Err(format!("the template visits more than {RANGE_LIMIT} elements"));
            }
            let known = self.variables.len();
            match pipeline.variables.len() {
                0 => {}
                1 => self.assign(pipeline, vec![element.clone()]),
                _ => self.assign(pipeline, vec![key, element.clone()]),
            }
            self.nodes(body, &element)?;
            if !pipeline.is_assignment {
                self.variables.truncate(known);
            }
        }
        Ok(())
    }

    fn assign(&mut self, pipeline: &Pipeline, values: Vec<Value>) {
        for (name, value) in pipeline.variables.iter().zip(values) {
            let known = self.variables.iter_mut().rev().find(|(own, _)| own == name);
            match known {
                Some((_, own)) if pipeline.is_assignment => *own = value,
                _ => self.variables.push((name.clone(), value)),
            }
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.unwrap_or(Value::Nil))
    }

    fn command(&mut self, command: &Command, dot: &Value, last: Option<Value>) -> Result<Value, String> {
        let Some((first, rest)) = command.operands.split_first() else { return Ok(Value::Nil) };
        let Operand::Function(name) = first else { return self.operand(first, dot) };
        if name == "and" || name == "or" {
            let mut value = Value::Nil;
            for operand in rest {
                value = self.operand(operand, dot)?;
                if value.is_true() == (name == "or") {
                    return Ok(value);
                }
            }
            return Ok(last.unwrap_or(value));
        }
        let mut arguments = rest.iter().map(|operand| self.operand(operand, dot)).collect::<Result<Vec<_>, _>>()?;
        arguments.extend(last);
        functions::call(name, arguments, self.context).map_err(|why| format!("calling {name}: {why}"))
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        match operand {
            Operand::Dot(path) => self.fields(dot.clone(), path),
            Operand::Variable(name, path) => {
                let value = self.variables.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.clone());
                self.fields(value.unwrap_or(Value::Nil), path)
            }
            Operand::Text(text) => Ok(Value::Text(text.clone().into_bytes())),
            Operand::Int(value) => Ok(Value::Int(*value)),
            Operand::Float(value) => Ok(Value::Float(*value)),
            Operand::Bool(value) => Ok(Value::Bool(*value)),
            Operand::Nil => Ok(Value::Nil),
            Operand::Function(name) if name == "and" || name == "or" => Err(format!("{name} needs an argument")),
            Operand::Function(name) => {
                functions::call(name, Vec::new(), self.context).map_err(|why| format!("calling {name}: {why}"))
            }
            Operand::Pipeline(pipeline, path) => {
                let value = self.pipeline(pipeline, dot)?;
                self.fields(value, path)
            }
        }
    }

    fn fields(&self, mut value: Value, path: &[String]) -> Result<Value, String> {
        for name in path {
            value = match value {
                Value::Labels => Value::Text(self.labels.get(name).unwrap_or_default().as_bytes().to_vec()),
                Value::Map(map) => map.into_iter().find(|(own, _)| own == name).map_or(Value::Nil, |(_, value)| value),
                Value::Nil => return Err(format!("nil has no field {name}")),
                other => return Err(format!("can't evaluate field {name} in {}", other.kind())),
            };
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use tidemill_lang::logql::template::parse_template;

    use super::*;

    fn run(text: &str) -> Result<String, String> {
        let mut labels = RowLabels::default();
        let pairs = [("a", "Ab ab"), ("url", "a b&c"), ("json", r#"{"l":[1,"x"],"m":{"k":2}}"#), ("n", "7")];
        for (name, value) in pairs {
            labels.add_parsed(Cow::Borrowed(name), Cow::Borrowed(value));
        }
        let template = parse_template(text).unwrap_or_else(|(at, why)| panic!("{text} at {at}: {why}"));
        run_template(&template, &labels, TemplateContext { line: "the line", time_ns: 1_500_000_000, now_ns: 0 })
    }

    #[test]
    fn functions_by_example() {
        let cases = [
            ("{{ Replace .a `b` `c` 1 }} {{ Replace .a `b` `c` -1 }} {{ replace `b` `c` .a }}", "Ac ab Ac ac Ac ac"),
            ("{{ ToLower .a }} {{ TrimPrefix .a `Ab` }}|{{ TrimSuffix .a `ab` }}|", "ab ab  ab|Ab |"),
            ("{{ trimPrefix `Ab` .a }}|{{ trimSuffix `ab` .a }}|{{ count `[ab]` .a }}", " ab|Ab |3"),
            ("{{ regexReplaceAll `(.)b` .a `<$1>` }} {{ regexReplaceAllLiteral `b` .a `$1` }}", "<A> <a> A$1 a$1"),
            (
                "{{ alignLeft 7 .a }}|{{ alignLeft 2 .a }}|{{ alignRight 7 .a }}|{{ alignRight 2 .a }}",
                "Ab ab  |Ab|  Ab ab|ab",
            ),
            ("{{ substr 1 3 .a }}|{{ substr -1 2 .a }}|{{ substr 3 -1 .a }}|{{ trunc -2 .a }}", "b |Ab|ab|ab"),
            ("{{ add 1 2 3 }} {{ sub 5 7 }} {{ mul 2 3 4 }} {{ max 1 9 3 }} {{ min 4 2 3 }}", "6 -2 24 9 2"),
            ("{{ maxf 1 2.5 }} {{ minf 1.5 2 }} {{ subf 1 0.9 }} {{ float64 `1.5` }}", "2.5 1.5 0.1 1.5"),
            (
                "{{ unixEpochMillis __timestamp__ }} {{ unixEpochNanos __timestamp__ }} {{ unixEpoch now }}",
                "1500 1500000000 0",
            ),
            ("{{ toDate `2006-01-02` `2025-06-01` | unixEpoch }} {{ now | date `2006` }}", "1748736000 1970"),
            ("{{ range $i, $e := (fromJson .json).l }}{{ $i }}={{ $e }};{{ end }}", "0=1;1=x;"),
            ("{{ with fromJson .json }}{{ .m.k }} {{ len .l }} {{ index .l 1 }}{{ end }}", "2 2 x"),
            ("{{ range (fromJson .json).none }}x{{ else }}none{{ end }}", "none"),
            ("{{ slice .a 1 3 }}|{{ len .a }}|{{ print .n 1 2 }}|{{ println .n 1 }}", "b |5|71 2|7 1\n"),
            ("{{ urlquery .url }} {{ html `<a>` }} {{ js `it's` }}", "a+b%26c &lt;a&gt; it\\'s"),
            (
                "{{ lt 1 2 }} {{ le `a` `a` }} {{ ge 2 3 }} {{ ne .n `7` }} {{ not .none }}",
                "true true false false true",
            ),
            ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }} {{ title .a }}", "2 Ab Ab"),
            (
                "{{ bytes `2KB` }} {{ bytes `4.5MiB` }} {{ duration `1m30s` }} {{ default `d` .none }}",
                "2000 4.718592e+06 90 d",
            ),
        ];
        for (text, expected) in &cases {
            assert_eq!(run(text).as_deref(), Ok(*expected), "{text}");
        }
        assert_eq!(run("{{ printf `%s` . }}").as_deref(), Ok("%!s(map[string]interface {}=map[])"));
    }

    #[test]
    fn failures_say_which_function_and_are_bounded() {
        for (text, part) in [
            ("{{ div 1 0 }}", "divide by zero"),
            ("{{ lt 1 `a` }}", "incompatible types"),
            ("{{ index (fromJson `[1]`) 5 }}", "out of range"),
            ("{{ repeat 100000000 .a }}", "bad count"),
            ("{{ regexReplaceAll `(` .a `b` }}", "regexReplaceAll"),
            ("{{ upper }}", "wrong number of args"),
            ("{{ range .a }}x{{ end }}", "can't iterate"),
            ("{{ (fromJson `nope`).x }}", "nil has no field"),
        ] {
            let why = run(text).expect_err(text);
            assert!(why.contains(part), "{text}: {why}");
        }
    }
}
