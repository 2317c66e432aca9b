//! The value of a formula's tree.

use super::FormulaError;
use super::parser::{Node, NodeKind};

/// Nodes that one evaluation visits at most.
const MAX_STEPS: usize = 100_000;

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Number(f64),
    Bool(bool),
    Nil,
    List(Vec<Self>),
}

pub(super) fn evaluate(root: &Node, value_of: &dyn Fn(&str) -> Option<f64>) -> Result<Option<f64>, FormulaError> {
    let mut evaluation = Evaluation { value_of, steps: 0, items: Vec::new() };
    match evaluation.value(root)? {
        Value::Number(number) if number.is_finite() => Ok(Some(number)),
        Value::Number(number) => Err(wrong(root, format!("the result is {number}"))),
        Value::Nil => Ok(None),
        Value::Bool(_) => Err(wrong(root, "the result is a truth value; write condition ? 1 : 0".to_owned())),
        Value::List(_) => Err(wrong(root, "the result is a list".to_owned())),
    }
}

struct Evaluation<'a> {
    value_of: &'a dyn Fn(&str) -> Option<f64>,
    steps: usize,
    items: Vec<Value>,
}

impl Evaluation<'_> {
    fn value(&mut self, node: &Node) -> Result<Value, FormulaError> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(wrong(node, format!("takes more than {MAX_STEPS} steps")));
        }
        match &node.kind {
            NodeKind::Number(value) => Ok(Value::Number(*value)),
            NodeKind::Bool(value) => Ok(Value::Bool(*value)),
            NodeKind::Nil => Ok(Value::Nil),
            NodeKind::Variable(name) => Ok((self.value_of)(name).map_or(Value::Nil, Value::Number)),
            NodeKind::Item => Ok(self.items.last().cloned().unwrap_or(Value::Nil)),
            NodeKind::List(items) => {
                let values: Result<Vec<Value>, FormulaError> = items.iter().map(|item| self.value(item)).collect();
                values.map(Value::List)
            }
            NodeKind::Unary("!", inner) => Ok(Value::Bool(!self.truth(inner)?)),
            NodeKind::Unary("-", inner) => Ok(Value::Number(-self.number(inner)?)),
            NodeKind::Unary(_, inner) => Ok(Value::Number(self.number(inner)?)),
            NodeKind::Binary(operator, left, right) => self.binary(operator, left, right),
            NodeKind::Choice(parts) => {
                let [condition, then, otherwise] = &**parts;
                let chosen = if self.truth(condition)? { then } else { otherwise };
                self.value(chosen)
            }
            NodeKind::Call(function, arguments) => self.call(node, function, arguments),
            NodeKind::Each(_) => Err(wrong(node, "is no value".to_owned())),
        }
    }

    fn binary(&mut self, operator: &str, left: &Node, right: &Node) -> Result<Value, FormulaError> {
        match operator {
            "??" => match self.value(left)? {
                Value::Nil => self.value(right),
                value => Ok(value),
            },
            "&&" | "and" => Ok(Value::Bool(self.truth(left)? && self.truth(right)?)),
            "||" | "or" => Ok(Value::Bool(self.truth(left)? || self.truth(right)?)),
            "==" => Ok(Value::Bool(self.value(left)? == self.value(right)?)),
            "!=" => Ok(Value::Bool(self.value(left)? != self.value(right)?)),
            "in" => {
                let value = self.value(left)?;
                Ok(Value::Bool(self.list(right)?.contains(&value)))
            }
            _ => {
                let (a, b) = (self.number(left)?, self.number(right)?);
                Ok(match operator {
                    "<" => Value::Bool(a < b),
                    "<=" => Value::Bool(a <= b),
                    ">" => Value::Bool(a > b),
                    ">=" => Value::Bool(a >= b),
                    "+" => Value::Number(a + b),
                    "-" => Value::Number(a - b),
                    "*" => Value::Number(a * b),
                    "/" if b == 0.0 => return Err(wrong(right, "divides by 0".to_owned())),
                    "/" => Value::Number(a / b),
                    "%" if b.trunc() == 0.0 => return Err(wrong(right, "divides by 0".to_owned())),
                    "%" => Value::Number(a.trunc() % b.trunc()),
                    _ => Value::Number(a.powf(b)),
                })
            }
        }
    }

    fn call(&mut self, node: &Node, function: &str, arguments: &[Node]) -> Result<Value, FormulaError> {
        match function {
            "abs" => Ok(Value::Number(self.number(&arguments[0])?.abs())),
            "ceil" => Ok(Value::Number(self.number(&arguments[0])?.ceil())),
            "floor" => Ok(Value::Number(self.number(&arguments[0])?.floor())),
            "round" => Ok(Value::Number(self.number(&arguments[0])?.round())),
            "float" => Ok(Value::Number(self.number(&arguments[0])?)),
            "int" => Ok(Value::Number(self.number(&arguments[0])?.trunc())),
            "len" => Ok(Value::Number(self.list(&arguments[0])?.len() as f64)),
            "max" | "min" | "mean" | "median" => {
                let numbers = self.numbers(arguments)?;
                aggregate(function, numbers)
                    .map(Value::Number)
                    .ok_or_else(|| wrong(node, format!("{function} of nothing")))
            }
            "sum" if arguments.len() == 1 => {
                let numbers = self.numbers(arguments)?;
                Ok(Value::Number(numbers.iter().sum()))
            }
            _ => self.over_list(node, function, arguments),
        }
    }

    /// Functions of a list and, mostly, a `{…}`.
    fn over_list(&mut self, node: &Node, function: &str, arguments: &[Node]) -> Result<Value, FormulaError> {
        let list = self.list(&arguments[0])?;
        let mut results = Vec::with_capacity(list.len());
        for item in list {
            self.items.push(item.clone());
            let result = match arguments.get(1).map(|argument| &argument.kind) {
                Some(NodeKind::Each(inner)) => self.value(inner),
                // `count` of truth values needs no `{…}`.
                _ => Ok(item.clone()),
            };
            self.items.pop();
            results.push((item, result?));
        }
        let truths = || -> Result<Vec<bool>, FormulaError> {
            results.iter().map(|(_, result)| truth_of(node, result)).collect()
        };
        let count = |truths: &[bool]| truths.iter().filter(|truth| **truth).count();
        Ok(match function {
            "count" => Value::Number(count(&truths()?) as f64),
            "all" => Value::Bool(truths()?.iter().all(|truth| *truth)),
            "any" => Value::Bool(count(&truths()?) > 0),
            "none" => Value::Bool(count(&truths()?) == 0),
            "one" => Value::Bool(count(&truths()?) == 1),
            "filter" => {
                let kept = truths()?;
                Value::List(
                    results.into_iter().zip(kept).filter(|(_, keep)| *keep).map(|((item, _), _)| item).collect(),
                )
            }
            "sum" => {
                let numbers: Result<Vec<f64>, _> = results.iter().map(|(_, result)| number_of(node, result)).collect();
                Value::Number(numbers?.iter().sum())
            }
            _ => Value::List(results.into_iter().map(|(_, result)| result).collect()),
        })
    }

    fn numbers(&mut self, arguments: &[Node]) -> Result<Vec<f64>, FormulaError> {
        let mut numbers = Vec::new();
        for argument in arguments {
            match self.value(argument)? {
                Value::List(items) => {
                    for item in &items {
                        numbers.push(number_of(argument, item)?);
                    }
                }
                value => numbers.push(number_of(argument, &value)?),
            }
        }
        Ok(numbers)
    }

    fn number(&mut self, node: &Node) -> Result<f64, FormulaError> {
        let value = self.value(node)?;
        number_of(node, &value)
    }

    fn truth(&mut self, node: &Node) -> Result<bool, FormulaError> {
        let value = self.value(node)?;
        truth_of(node, &value)
    }

    fn list(&mut self, node: &Node) -> Result<Vec<Value>, FormulaError> {
        match self.value(node)? {
            Value::List(items) => Ok(items),
            value => Err(wrong(node, format!("expected a list, found {}", kind(&value)))),
        }
    }
}

fn aggregate(function: &str, mut numbers: Vec<f64>) -> Option<f64> {
    match function {
        "max" => numbers.into_iter().reduce(f64::max),
        "min" => numbers.into_iter().reduce(f64::min),
        "mean" => (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64),
        _ => {
            numbers.sort_by(f64::total_cmp);
            let middle = numbers.len() / 2;
            let upper = *numbers.get(middle)?;
            Some(if numbers.len() % 2 == 1 { upper } else { f64::midpoint(numbers[middle - 1], upper) })
        }
    }
}

fn number_of(node: &Node, value: &Value) -> Result<f64, FormulaError> {
    match value {
        Value::Number(number) => Ok(*number),
        value => Err(wrong(node, format!("expected a number, found {}", kind(value)))),
    }
}

fn truth_of(node: &Node, value: &Value) -> Result<bool, FormulaError> {
    match value {
        Value::Bool(truth) => Ok(*truth),
        value => Err(wrong(node, format!("expected true or false, found {}", kind(value)))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Number(_) => "a number",
        Value::Bool(_) => "true or false",
        Value::Nil => "nil",
        Value::List(_) => "a list",
    }
}

fn wrong(node: &Node, message: String) -> FormulaError {
    FormulaError { offset: node.offset, message }
}
