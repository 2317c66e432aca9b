//! The JSONPath of kubectl: `{.items[*].metadata.name}`, ranges, filters, indices, slices, `..`.
//!
//! The template language is that of <https://kubernetes.io/docs/reference/kubectl/jsonpath/>.

use serde_json::Value;

/// A template that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Part>),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Member(String),
    Anywhere(String),
    All,
    Index(i64),
    Slice(Option<i64>, Option<i64>, i64),
    Union(Vec<String>),
    Filter(Vec<Step>, Option<(Operator, Value)>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Template {
    /// Reads a template; one without braces is a path.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim_matches('\'');
        if text.contains('{') {
            let mut rest = text;
            let parts = parse_parts(&mut rest, false)?;
            return Ok(Self(parts));
        }
        let path = if text.starts_with(['.', '[', '$']) { text.to_owned() } else { format!(".{text}") };
        Ok(Self(vec![Part::Path(parse_path(&path)?)]))
    }

    /// What it shows of a value; names that are not there show nothing.
    pub fn render(&self, value: &Value) -> String {
        let mut out = String::new();
        render(&self.0, value, &mut out);
        out
    }

    /// The values that the first path finds.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self.0.first() {
            Some(Part::Path(steps)) => walk(steps, value),
            _ => Vec::new(),
        }
    }
}

fn render(parts: &[Part], value: &Value, out: &mut String) {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(steps) => {
                let shown: Vec<String> = walk(steps, value).into_iter().map(show).collect();
                out.push_str(&shown.join(" "));
            }
            Part::Range(steps, inner) => {
                for item in walk(steps, value) {
                    render(inner, item, out);
                }
            }
        }
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn parse_parts(rest: &mut &str, is_in_range: bool) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let Some(open) = rest.find('{') else {
            parts.push(Part::Text((*rest).to_owned()));
            *rest = "";
            break;
        };
        if open > 0 {
            parts.push(Part::Text(rest[..open].to_owned()));
        }
        let close = close_of(&rest[open..]).ok_or_else(|| format!("unclosed {{ in {rest:?}"))?;
        let inner = rest[open + 1..open + close].trim();
        *rest = &rest[open + close + 1..];
        if inner == "end" {
            return if is_in_range { Ok(parts) } else { Err("{end} without {range}".to_owned()) };
        } else if let Some(path) = inner.strip_prefix("range ") {
            let steps = parse_path(path.trim())?;
            parts.push(Part::Range(steps, parse_parts(rest, true)?));
        } else if inner.starts_with(['"', '\'']) {
            parts.push(Part::Text(unquote(inner)?));
        } else {
            parts.push(Part::Path(parse_path(inner)?));
        }
    }
    if is_in_range { Err("{range} without {end}".to_owned()) } else { Ok(parts) }
}

/// The brace that closes the first one, quotes left aside.
fn close_of(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            _ => {}
        }
    }
    None
}

fn unquote(text: &str) -> Result<String, String> {
    let inner = text.get(1..text.len().saturating_sub(1)).filter(|_| text.len() > 1 && text.ends_with(&text[..1]));
    let inner = inner.ok_or_else(|| format!("unclosed quote in {text}"))?;
    Ok(inner.replace("\\n", "\n").replace("\\t", "\t").replace("\\\"", "\"").replace("\\\\", "\\"))
}

fn parse_path(text: &str) -> Result<Vec<Step>, String> {
    let mut rest = text.strip_prefix('$').or_else(|| text.strip_prefix('@')).unwrap_or(text);
    let mut steps = Vec::new();
    if rest.is_empty() || rest == "." {
        return Ok(steps);
    }
    if !rest.starts_with(['.', '[']) {
        return Err(format!("{text:?} begins with neither . nor ["));
    }
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            let (name, after) = member(after);
            steps.push(Step::Anywhere(name));
            rest = after;
        } else if let Some(after) = rest.strip_prefix('.') {
            let (name, after) = member(after);
            match name.as_str() {
                "" if after.starts_with('[') => {}
                "" => return Err(format!("a name is missing in {text:?}")),
                "*" => steps.push(Step::All),
                _ => steps.push(Step::Member(name)),
            }
            rest = after;
        } else if rest.starts_with('[') {
            let close = bracket_end(rest).ok_or_else(|| format!("unclosed [ in {text:?}"))?;
            steps.push(parse_bracket(&rest[1..close])?);
            rest = &rest[close + 1..];
        } else {
            return Err(format!("{rest:?} is no step of a path"));
        }
    }
    Ok(steps)
}

/// A name up to the next `.` or `[`; `\.` is a dot of the name.
fn member(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => name.extend(characters.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &text[at..]),
            c => name.push(c),
        }
    }
    (name, "")
}

fn bracket_end(text: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn parse_bracket(inner: &str) -> Result<Step, String> {
    let inner = inner.trim();
    if inner == "*" {
        return Ok(Step::All);
    }
    if let Some(condition) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return parse_filter(condition.trim());
    }
    if inner.starts_with(['"', '\'']) {
        let names: Result<Vec<String>, String> = inner.split(',').map(|name| unquote(name.trim())).collect();
        return Ok(Step::Union(names?));
    }
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        text => text.parse::<i64>().map(Some).map_err(|_| format!("{text:?} is no index")),
    };
    if inner.contains(':') {
        let parts: Vec<&str> = inner.split(':').collect();
        let step = parts.get(2).map(|text| number(text)).transpose()?.flatten().unwrap_or(1);
        if step < 1 || parts.len() > 3 {
            return Err(format!("[{inner}] is no slice"));
        }
        return Ok(Step::Slice(number(parts[0])?, number(parts[1])?, step));
    }
    number(inner)?.map(Step::Index).ok_or_else(|| "[] is empty".to_owned())
}

fn parse_filter(condition: &str) -> Result<Step, String> {
    for (symbol, operator) in [
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ] {
        if let Some((left, right)) = condition.split_once(symbol) {
            let right = right.trim();
            let value = if right.starts_with(['"', '\'']) {
                Value::String(unquote(right)?)
            } else {
                serde_json::from_str(right)
                    .map_err(|_| format!("{right:?} is neither a number, a text in quotes, true nor false"))?
            };
            return Ok(Step::Filter(parse_path(left.trim())?, Some((operator, value))));
        }
    }
    Ok(Step::Filter(parse_path(condition)?, None))
}

fn walk<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        found = found.into_iter().flat_map(|value| one_step(step, value)).collect();
    }
    found
}

fn one_step<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    match step {
        Step::Member(name) => value.get(name).into_iter().collect(),
        Step::Union(names) => names.iter().filter_map(|name| value.get(name)).collect(),
        Step::All => match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(members) => members.values().collect(),
            _ => Vec::new(),
        },
        Step::Anywhere(name) => {
            let mut found: Vec<&Value> = value.get(name).into_iter().collect();
            let inner: Vec<&Value> = match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(members) => members.values().collect(),
                _ => Vec::new(),
            };
            found.extend(inner.into_iter().flat_map(|value| one_step(step, value)));
            found
        }
        Step::Index(index) => {
            let Value::Array(items) = value else { return Vec::new() };
            place(*index, items.len()).and_then(|index| items.get(index)).into_iter().collect()
        }
        Step::Slice(from, to, step) => {
            let Value::Array(items) = value else { return Vec::new() };
            let bound = |index: &Option<i64>, default: usize| {
                index.map_or(default, |index| place(index, items.len()).unwrap_or_default().min(items.len()))
            };
            let (from, to) = (bound(from, 0), bound(to, items.len()));
            let step = usize::try_from(*step).unwrap_or(1);
            if from < to { items[from..to].iter().step_by(step).collect() } else { Vec::new() }
        }
        Step::Filter(path, test) => {
            let items: Vec<&Value> = match value {
                Value::Array(items) => items.iter().collect(),
                _ => Vec::new(),
            };
            let holds = |item: &&Value| {
                let found = walk(path, item);
                match test {
                    None => !found.is_empty(),
                    Some((operator, wanted)) => found.iter().any(|value| compare(value, *operator, wanted)),
                }
            };
            items.into_iter().filter(holds).collect()
        }
    }
}

/// An index from the end where it is negative.
fn place(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if index < 0 { length + index } else { index }).ok()
}

fn compare(value: &Value, operator: Operator, wanted: &Value) -> bool {
    let order = match (value, wanted) {
        (Value::String(one), Value::String(other)) => one.cmp(other),
        _ => match (value.as_f64(), wanted.as_f64()) {
            (Some(one), Some(other)) => one.total_cmp(&other),
            _ => {
                return match operator {
                    Operator::Equal => value == wanted,
                    Operator::NotEqual => value != wanted,
                    _ => false,
                };
            }
        },
    };
    match operator {
        Operator::Equal => order.is_eq(),
        Operator::NotEqual => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::LessOrEqual => order.is_le(),
        Operator::Greater => order.is_gt(),
        Operator::GreaterOrEqual => order.is_ge(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_step_of_the_language_is_walked() {
        // The object of kubectl's documentation.
        let value = json!({"kind": "List", "items": [
            {"kind": "None", "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "127.0.0.1"}}, "status": {"capacity": {"cpu": "4"}, "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.1"}]}},
            {"kind": "None", "metadata": {"name": "127.0.0.2"}, "status": {"capacity": {"cpu": "8"}, "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.2"}, {"type": "another", "address": "127.0.0.3"}]}}
        ], "users": [{"name": "myself", "user": {}}, {"name": "e2e", "user": {"username": "admin", "password": "secret"}}]});
        for (template, shown) in [
            ("the kind is {.kind}", "the kind is List"),
            ("{['kind']}", "List"),
            ("{..name}", "127.0.0.1 127.0.0.2 myself e2e"),
            ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
            ("{.items[*]['metadata.name', 'kind']}", "None None"),
            ("{.users[?(@.name==\"e2e\")].user.password}", "secret"),
            ("{.items[0].metadata.labels.kubernetes\\.io/hostname}", "127.0.0.1"),
            ("{.users[-1].name}", "e2e"),
            ("{.users[0:1].name}", "myself"),
            (
                "{range .items[*]}[{.metadata.name}, {.status.capacity.cpu}]{\"\\n\"}{end}",
                "[127.0.0.1, 4]\n[127.0.0.2, 8]\n",
            ),
            (".kind", "List"),
            ("{.missing}", ""),
            ("{.users[?(@.user.username)].name}", "e2e"),
        ] {
            assert_eq!(
                Template::parse(template).map(|template| template.render(&value)),
                Ok(shown.to_owned()),
                "{template}"
            );
        }
        for wrong in ["{.a", "{range .a}", "{end}", "{.a[}", "{.a[x]}", "{a}", "{.a[?(@.b==c)]}"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
    }
}
