//! Runs templates over the labels of a line.

mod decimal;
mod functions;
mod methods;
mod numbers;
mod printf;
mod quoted;
mod text;
mod time;
mod value;
mod verbs;

use tidemill_lang::logql::template::{BranchKind, Command, Node, Operand, Pipeline, Template};

use super::labels::RowLabels;
use value::Value;

/// The most bytes that a template may write for one line.
const OUTPUT_LIMIT_BYTES: usize = 1 << 20;
/// The most bytes that all values together may have that a template handles for one line.
const HANDLED_LIMIT_BYTES: usize = 4 << 20;
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
    let dot = Value::Labels(labels);
    let variables = vec![(String::new(), dot.clone())];
    let mut run = Run { context, variables, output: Vec::new(), visited: 0, handled: 0 };
    run.nodes(&template.nodes, &dot)?;
    Ok(text::lossy(&run.output))
}

/// Where a template goes on behind a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// At the next node.
    Next,
    /// Behind the innermost range.
    Break,
    /// At the next element of the innermost range.
    Continue,
}

struct Run<'r> {
    context: TemplateContext<'r>,
    variables: Vec<(String, Value<'r>)>,
    output: Vec<u8>,
    visited: usize,
    /// The bytes of all values so far.
    handled: usize,
}

impl<'r> Run<'r> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value<'r>) -> Result<Flow, String> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if self.output.len() > OUTPUT_LIMIT_BYTES {
                return Err(format!("the template writes more than {OUTPUT_LIMIT_BYTES} bytes"));
            }
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &Node, dot: &Value<'r>) -> Result<Flow, String> {
        match node {
            Node::Text(text) => self.output.extend_from_slice(text.as_bytes()),
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    self.output.extend_from_slice(&value.to_text());
                } else {
                    self.assign(pipeline, vec![value]);
                }
            }
            Node::Branch { kind, pipeline, body, otherwise } => {
                let known = self.variables.len();
                let flow = self.branch(*kind, pipeline, body, otherwise, dot)?;
                self.variables.truncate(known);
                return Ok(flow);
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn branch(
        &mut self,
        kind: BranchKind,
        pipeline: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value<'r>,
    ) -> Result<Flow, String> {
        let value = self.pipeline(pipeline, dot)?;
        if kind == BranchKind::Range {
            return self.range(pipeline, value, body, otherwise, dot);
        }
        if !pipeline.variables.is_empty() {
            self.assign(pipeline, vec![value.clone()]);
        }
        match (value.is_true(), kind) {
            (false, _) => self.nodes(otherwise, dot),
            (true, BranchKind::With) => self.nodes(body, &value),
            (true, _) => self.nodes(body, dot),
        }
    }

    fn range(
        &mut self,
        pipeline: &Pipeline,
        value: Value<'r>,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value<'r>,
    ) -> Result<Flow, String> {
        if let Value::Int(count, _) = value
            && pipeline.variables.len() > 1
        {
            return Err(format!("can't use {count} to iterate over more than one variable"));
        }
        let mut elements = value.into_elements()?.peekable();
        if elements.peek().is_none() {
            // Of a range within a range, a break here ends the inner one, as in Go.
            let flow = self.nodes(otherwise, dot)?;
            return Ok(if flow == Flow::Break { Flow::Next } else { flow });
        }
        let known = self.variables.len();
        for (key, element) in elements {
            self.visited += 1;
            if self.visited > RANGE_LIMIT {
                return Err(format!("the template visits more than {RANGE_LIMIT} elements"));
            }
            match pipeline.variables.len() {
                0 => {}
                1 => self.assign(pipeline, vec![element.clone()]),
                _ => self.assign(pipeline, vec![key, element.clone()]),
            }
            let flow = self.nodes(body, &element)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn assign(&mut self, pipeline: &Pipeline, values: Vec<Value<'r>>) {
        for (name, value) in pipeline.variables.iter().zip(values) {
            let known = self.variables.iter_mut().rev().find(|(own, _)| own == name);
            match known {
                Some((_, own)) if pipeline.is_assignment => *own = value,
                _ => self.variables.push((name.clone(), value)),
            }
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value<'r>) -> Result<Value<'r>, String> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.unwrap_or(Value::Nil))
    }

    fn command(&mut self, command: &Command, dot: &Value<'r>, last: Option<Value<'r>>) -> Result<Value<'r>, String> {
        let Some((first, rest)) = command.operands.split_first() else { return Ok(Value::Nil) };
        if let Operand::Function(name) = first
            && (name == "and" || name == "or")
            && !rest.is_empty()
        {
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
        self.called(first, arguments, dot)
    }

    fn operand(&mut self, operand: &Operand, dot: &Value<'r>) -> Result<Value<'r>, String> {
        self.called(operand, Vec::new(), dot)
    }

    /// The value of an operand; of a function or method what it gives for the arguments.
    fn called(&mut self, operand: &Operand, arguments: Vec<Value<'r>>, dot: &Value<'r>) -> Result<Value<'r>, String> {
        let value = self.value(operand, arguments, dot)?;
        self.handled = self.handled.saturating_add(value.bytes());
        if self.handled > HANDLED_LIMIT_BYTES {
            return Err(format!("the template handles more than {HANDLED_LIMIT_BYTES} bytes"));
        }
        Ok(value)
    }

    fn value(&mut self, operand: &Operand, arguments: Vec<Value<'r>>, dot: &Value<'r>) -> Result<Value<'r>, String> {
        match operand {
            Operand::Dot(path) => fields(dot.clone(), path, &arguments),
            Operand::Variable(name, path) => {
                let value = self.variables.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.clone());
                fields(value.unwrap_or(Value::Nil), path, &arguments)
            }
            Operand::Text(text) => Ok(Value::Text(text.clone().into_bytes())),
            Operand::Int(value) => Ok(Value::int(*value)),
            Operand::Float(value) => Ok(Value::Float(*value)),
            Operand::Bool(value) => Ok(Value::Bool(*value)),
            Operand::Nil => Ok(Value::Nil),
            Operand::Function(name) if name == "and" || name == "or" => {
                arguments.into_iter().next_back().ok_or_else(|| format!("{name} needs an argument"))
            }
            Operand::Function(name) => {
                functions::call(name, arguments, self.context).map_err(|why| format!("calling {name}: {why}"))
            }
            Operand::Pipeline(pipeline, path) => {
                let value = self.pipeline(pipeline, dot)?;
                fields(value, path, &arguments)
            }
        }
    }
}

/// The field of a field of a value, and so on; the arguments are the last one's.
fn fields<'l>(mut value: Value<'l>, path: &[String], arguments: &[Value<'l>]) -> Result<Value<'l>, String> {
    let Some((last, path)) = path.split_last() else { return Ok(value) };
    for name in path {
        value = field(value, name, &[])?;
    }
    field(value, last, arguments)
}

fn field<'l>(value: Value<'l>, name: &str, arguments: &[Value<'l>]) -> Result<Value<'l>, String> {
    match value {
        Value::Labels(_) | Value::Map(_) if !arguments.is_empty() => {
            Err(format!("{name} is not a method but has arguments"))
        }
        Value::Labels(labels) => Ok(Value::text(labels.get(name).unwrap_or_default())),
        Value::Map(map) => Ok(map.into_iter().find(|(own, _)| own == name).map_or(Value::Nil, |(_, value)| value)),
        Value::Nil => Err(format!("nil has no field {name}")),
        other => methods::call_method(&other, name, arguments),
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

    /// Texts that grow with each step, of which no step alone is large.
    #[test]
    fn what_grows_without_end_is_refused() {
        let doubled: String =
            (0..40).map(|step| format!("{{{{ $a{} := print $a{step} $a{step} }}}}", step + 1)).collect();
        let replaced: String =
            (0..9).map(|step| format!("{{{{ $a{} := replace `a` $a{step} $a{step} }}}}", step + 1)).collect();
        let expanded = replaced.replace("replace `a` ", "regexReplaceAll `a` ");
        for steps in [doubled, replaced, expanded, "{{ $b := $a0 }}".repeat(9)] {
            let error = run(&format!("{{{{ $a0 := repeat 900000 `a` }}}}{steps}")).expect_err("is refused");
            assert!(error.contains("bytes"), "{error}");
        }
        assert!(run("{{ replace `a` (repeat 1000 `b`) (repeat 2000 `a`) }}").is_err());
        assert_eq!(run("{{ len (replace `a` (repeat 1000 `b`) (repeat 1000 `a`)) }}").as_deref(), Ok("1000000"));
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
    }

    #[test]
    fn the_dot_is_a_map() {
        let all = r#"a=Ab ab json={"l":[1,"x"],"m":{"k":2}} n=7 url=a b&c "#;
        let printed = r#"map[a:Ab ab json:{"l":[1,"x"],"m":{"k":2}} n:7 url:a b&c]"#;
        let cases = [
            ("{{ range $k, $v := . }}{{$k}}={{$v}} {{ end }}", all),
            ("{{ range . }}{{ len . }};{{ end }}", "5;25;1;5;"),
            ("{{ range $k, $v := . }}{{ if eq $k `json` }}{{ break }}{{ end }}{{ $v }}{{ end }}", "Ab ab"),
            ("{{ index . `n` }}|{{ index . `nope` }}|{{ index . `n` 0 }}", "7||55"),
            ("{{ . | len }} {{ len . }} {{ len $ }} {{ (index .) | len }}", "4 4 4 4"),
            ("{{ $m := . }}{{ $m.n }} {{ index $m `a` | upper }} {{ (default . .nope).n }}", "7 AB AB 7"),
            ("{{ with . }}{{ .n }}{{ end }}{{ if . }}yes{{ end }}{{ not . }}", "7yesfalse"),
            ("{{ . }}", printed),
            ("{{ printf `%v` . }}", printed),
            ("{{ print . }}", printed),
            ("{{ printf `%T` . }} {{ eq (index . `nope`) `` }}", "map[string]string true"),
        ];
        for (text, expected) in cases {
            assert_eq!(run(text).as_deref(), Ok(expected), "{text}");
        }
        assert!(run("{{ printf `%d` . }}").is_ok_and(|text| text.contains("%!d(string=n):%!d(string=7)")));
        assert!(run("{{ printf `%#v` . }}").is_ok_and(|text| text.starts_with(r#"map[string]string{"a":"Ab ab", "#)));
    }

    #[test]
    fn times_have_methods() {
        let cases = [
            ("{{ __timestamp__.Unix }} {{ __timestamp__.Year }} {{ now.IsZero }}", "1 1970 false"),
            ("{{ __timestamp__.Format `2006` }} {{ (__timestamp__).Format `05.0` }}", "1970 01.5"),
            ("{{ $t := __timestamp__ }}{{ $t.Month }} {{ $t.UTC.Hour }} {{ (now).Year }}", "January 0 1970"),
            ("{{ $t := __timestamp__ }}{{ $t.Month.String | upper }}", "JANUARY"),
            ("{{ with __timestamp__ }}{{ .Format `15:04` }} {{ .Weekday }}{{ end }}", "00:00 Thursday"),
            ("{{ `2006` | __timestamp__.Format | printf `%s!` }}", "1970!"),
            ("{{ if __timestamp__.After now }}later{{ end }}{{ eq __timestamp__.Month 1 }}", "latertrue"),
            ("{{ printf `%d %T %T` now.Month now.Weekday now }}", "1 time.Weekday time.Time"),
        ];
        for (text, expected) in cases {
            assert_eq!(run(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn loops_and_literals() {
        let cases = [
            ("{{ 0x10 }} {{ 1_000 }} {{ 'a' }} {{ '\\'' }} {{ -0x10 }} {{ 1e3 }}", "16 1000 97 39 -16 1000"),
            ("{{ range 3 }}x{{ end }}{{ range $i := 3 }}{{ $i }}{{ end }}{{ range 2 }}{{ . }}{{ end }}", "xxx01201"),
            ("{{ range 0 }}x{{ else }}none{{ end }} {{ range -1 }}x{{ else }}none{{ end }}", "none none"),
            ("{{ range $i := 4 }}{{ if eq $i 1 }}{{ continue }}{{ end }}{{ $i }}{{ end }}", "023"),
            ("{{ range $i := 4 }}{{ if gt $i 1 }}{{ break }}{{ end }}{{ $i }}{{ end }}", "01"),
            ("{{ range 2 }}{{ range 3 }}{{ if . }}{{ break }}{{ end }}{{ . }}{{ end }};{{ end }}", "0;0;"),
            ("{{ range 2 }}{{ range 0 }}{{ else }}{{ break }}{{ end }}x{{ end }}|", "xx|"),
            ("{{ range 3 }}{{ with . }}{{ continue }}{{ end }}a{{ end }}", "a"),
            ("{{ $i := 9 }}{{ range $i = 3 }}{{ end }}{{ $i }}", "2"),
            ("{{ printf `%[2]s %[1]s %s` `a` `b` }}", "b a b"),
            ("{{ printf `%T %T` (add 1 2) (len .a) }} {{ printf `%s` 5 }}", "int64 int %!s(int=5)"),
        ];
        for (text, expected) in cases {
            assert_eq!(run(text).as_deref(), Ok(expected), "{text}");
        }
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
            ("{{ .a 3 }}", "a is not a method but has arguments"),
            ("{{ .a.x }}", "can't evaluate field x in type string"),
            ("{{ index . 1 }}", "can't index"),
            ("{{ range 10001 }}x{{ end }}", "more than 10000 elements"),
            ("{{ range 9223372036854775807 }}{{ end }}", "more than 10000 elements"),
            ("{{ range $i, $e := 3 }}{{ end }}", "more than one variable"),
            ("{{ range 1.5 }}x{{ end }}", "can't iterate over 1.5"),
            ("{{ now.Format }}", "want 1 got 0"),
            ("{{ printf `%1000000d%1000000d` 1 1 }}", "more than"),
        ] {
            let why = run(text).expect_err(text);
            assert!(why.contains(part), "{text}: {why}");
        }
    }
}
