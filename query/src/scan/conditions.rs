//! What a predicate tells a segment's index: conditions that every matching row meets.
//!
//! A part that an index cannot use is left out of a conjunction; that only widens the answer.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, InListExpr, LikeExpr, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use tidemill_segment::index::Condition;
use tidemill_segment::read::AttributeType;

use super::open::OpenSegment;
use crate::functions::{HAS_TOKEN, is_token};
use crate::tables::{LogicalColumn, TableColumns};

/// What the index of `open` is asked for rows that match `predicate`; `None` when it can tell nothing.
pub(super) fn index_condition(
    predicate: &Arc<dyn PhysicalExpr>,
    table: &TableColumns,
    open: &OpenSegment,
) -> Option<Condition> {
    Reader { table, open }.condition(predicate)
}

struct Reader<'a> {
    table: &'a TableColumns,
    open: &'a OpenSegment,
}

/// A physical column that an index may know.
struct Indexed {
    column: String,
    is_hex: bool,
}

impl Reader<'_> {
    fn condition(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<Condition> {
        if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
            return self.binary(binary);
        }
        if let Some(like) = expr.downcast_ref::<LikeExpr>() {
            if like.negated() || like.case_insensitive() {
                return None;
            }
            return self.all_substrings(like.expr(), &like_pieces(text(like.pattern())?));
        }
        if let Some(list) = expr.downcast_ref::<InListExpr>().filter(|list| !list.negated()) {
            let any: Option<Vec<Condition>> = list.list().iter().map(|value| self.equals(list.expr(), value)).collect();
            return any.map(Condition::Any);
        }
        let function = expr.downcast_ref::<ScalarFunctionExpr>()?;
        let [column, value] = function.args() else { return None };
        match function.fun().name() {
            HAS_TOKEN => {
                let token = text(value).filter(|token| is_token(token))?;
                Some(Condition::AllTokens { column: self.indexed(column)?.column, tokens: vec![token.to_owned()] })
            }
            "contains" | "starts_with" | "ends_with" => self.all_substrings(column, &[text(value)?.to_owned()]),
            _ => None,
        }
    }

    fn binary(&self, binary: &BinaryExpr) -> Option<Condition> {
        let sides = [binary.left(), binary.right()];
        match binary.op() {
            Operator::And => {
                let mut parts: Vec<Condition> = sides.into_iter().filter_map(|side| self.condition(side)).collect();
                match parts.len() {
                    0 | 1 => parts.pop(),
                    _ => Some(Condition::All(parts)),
                }
            }
            Operator::Or => {
                let parts: Option<Vec<Condition>> = sides.into_iter().map(|side| self.condition(side)).collect();
                parts.map(Condition::Any)
            }
            Operator::Eq => {
                self.equals(binary.left(), binary.right()).or_else(|| self.equals(binary.right(), binary.left()))
            }
            Operator::LikeMatch => self.all_substrings(binary.left(), &like_pieces(text(binary.right())?)),
            _ => None,
        }
    }

    fn equals(&self, column: &Arc<dyn PhysicalExpr>, value: &Arc<dyn PhysicalExpr>) -> Option<Condition> {
        let indexed = self.indexed(column)?;
        let value = text(value)?;
        if indexed.column == "body" {
            return self.all_substrings(column, &[value.to_owned()]);
        }
        let value = if indexed.is_hex { hex::decode(value).ok()? } else { value.as_bytes().to_vec() };
        Some(Condition::Equals { column: indexed.column, value })
    }

    fn all_substrings(&self, column: &Arc<dyn PhysicalExpr>, pieces: &[String]) -> Option<Condition> {
        let column = self.indexed(column)?.column;
        let pieces = pieces.iter().filter(|piece| !piece.is_empty());
        let parts: Vec<Condition> =
            pieces.map(|literal| Condition::Substring { column: column.clone(), literal: literal.clone() }).collect();
        (!parts.is_empty()).then_some(Condition::All(parts))
    }

    fn indexed(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<Indexed> {
        let column = expr.downcast_ref::<Column>()?;
        let (column, is_hex) = match self.table.columns.get(column.index())? {
            LogicalColumn::Plain(name) => (name.clone(), false),
            LogicalColumn::Hex(name) => (name.clone(), true),
            LogicalColumn::Object(_) => return None,
            LogicalColumn::Attribute(key, _) => {
                let place = self.open.place(key);
                let (column, kind) = place.column.filter(|_| !place.in_overflow)?;
                if kind != AttributeType::String {
                    return None;
                }
                (column, false)
            }
        };
        self.open.has_column(&column).then_some(Indexed { column, is_hex })
    }
}

/// A constant text.
fn text(expr: &Arc<dyn PhysicalExpr>) -> Option<&str> {
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        return text(cast.expr());
    }
    match expr.downcast_ref::<Literal>()?.value() {
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)) => {
            Some(text)
        }
        _ => None,
    }
}

/// The literal runs of a LIKE pattern.
fn like_pieces(pattern: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '%' | '_' => pieces.push(String::new()),
            '\\' => {
                let last = pieces.last_mut().expect("it starts with one");
                match letters.next() {
                    Some(escaped @ ('%' | '_' | '\\')) => last.push(escaped),
                    // What an escape before another letter means differs between readers, so nothing is concluded from it.
                    _ => {
                        pieces.push(String::new());
                    }
                }
            }
            other => pieces.last_mut().expect("it starts with one").push(other),
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_tells_its_literal_runs() {
        assert_eq!(like_pieces("%order 17%failed_now%"), ["order 17", "failed", "now"]);
        assert_eq!(like_pieces(r"100\%\_x%"), ["100%_x"]);
        assert_eq!(like_pieces(r"a\qb"), ["a", "b"]);
        assert!(like_pieces("%_%").is_empty());
    }
}
