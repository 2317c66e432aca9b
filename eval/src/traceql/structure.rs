//! A trace: its spans, who is whose parent, and what is known of it as a whole.

use ahash::AHashMap;
use arrow::array::Array;
use tidemill_lang::traceql::ast::{Relation, StructuralResult};

use super::attributes::{AttributeScope, Attributes};
use super::batch::SpanBatch;
use super::value::Value;

/// A trace within a batch. Its spans are numbered from 0 in the order of their rows.
#[derive(Debug)]
pub(super) struct Trace<'b> {
    pub batch: &'b SpanBatch,
    pub attributes: &'b Attributes,
    /// The row of each span.
    pub rows: Vec<usize>,
    /// The parent of each span, where it is in the trace.
    parents: Vec<Option<usize>>,
    pub child_counts: Vec<i64>,
    /// Left and right number of each span in the nested sets of the trace.
    nested: Vec<(i64, i64)>,
    pub start_ns: i64,
    pub end_ns: i64,
    root: Option<usize>,
}

/// The service of a root that has not come.
pub(super) const NO_ROOT: &str = "<root span not yet received>";
/// The attribute that names a service.
pub(super) const SERVICE_NAME: &str = "service.name";

impl<'b> Trace<'b> {
    pub fn new(batch: &'b SpanBatch, attributes: &'b Attributes, rows: Vec<usize>) -> Self {
        let ids: AHashMap<&[u8], usize> = rows
            .iter()
            .enumerate()
            .filter(|(_, row)| batch.span_id.is_valid(**row))
            .map(|(span, row)| (batch.span_id.value(*row), span))
            .collect();
        let parents: Vec<Option<usize>> = rows
            .iter()
            .enumerate()
            .map(|(span, row)| batch.parent_id(*row).and_then(|id| ids.get(id).copied()).filter(|own| *own != span))
            .collect();
        let mut child_counts = vec![0; rows.len()];
        for parent in parents.iter().flatten() {
            child_counts[*parent] += 1;
        }
        let ends = rows.iter().map(|row| batch.start_ns(*row) + batch.duration_ns(*row));
        Self {
            start_ns: rows.iter().map(|row| batch.start_ns(*row)).min().unwrap_or(0),
            end_ns: ends.max().unwrap_or(0),
            // Of several roots the last names the trace.
            root: (0..rows.len()).rev().find(|span| batch.parent_id(rows[*span]).is_none()),
            nested: nested_sets(&parents),
            batch,
            attributes,
            rows,
            parents,
            child_counts,
        }
    }

    pub fn root_name(&self) -> Option<&str> {
        self.root.map(|span| self.batch.name.value(self.rows[span]))
    }

    pub fn root_service(&self) -> &str {
        self.root.map_or(NO_ROOT, |span| self.service(span))
    }

    pub fn service(&self, span: usize) -> &str {
        match self.attributes.get(AttributeScope::Resource, SERVICE_NAME, self.rows[span]) {
            Value::Text(name) => name,
            _ => "",
        }
    }

    pub fn nested_left(&self, span: usize) -> i64 {
        self.nested[span].0
    }

    pub fn nested_right(&self, span: usize) -> i64 {
        self.nested[span].1
    }

    /// The parent's left number; -1 for a root, 0 where the parent is not in the trace.
    pub fn nested_parent(&self, span: usize) -> i64 {
        match self.parents[span] {
            Some(parent) => self.nested[parent].0,
            None if self.batch.parent_id(self.rows[span]).is_none() => -1,
            None => 0,
        }
    }

    /// The span's ancestors, nearest first; broken off where parents form a circle.
    fn ancestors(&self, span: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.parents[span], |parent| self.parents[*parent]).take(self.rows.len())
    }

    /// The spans that a structural operator gives.
    pub fn related(&self, relation: Relation, result: StructuralResult, left: &[bool], right: &[bool]) -> Vec<bool> {
        let count = self.rows.len();
        let right_stands = |left: &[bool]| -> Vec<bool> {
            let mut stands = vec![false; count];
            match relation {
                Relation::Child => {
                    for (stands, parent) in stands.iter_mut().zip(&self.parents) {
                        *stands = parent.is_some_and(|parent| left[parent]);
                    }
                }
                Relation::Descendant => {
                    for (span, stands) in stands.iter_mut().enumerate() {
                        *stands = self.ancestors(span).any(|ancestor| left[ancestor]);
                    }
                }
                Relation::Parent => {
                    for parent in (0..count).filter(|span| left[*span]).filter_map(|span| self.parents[span]) {
                        stands[parent] = true;
                    }
                }
                Relation::Ancestor => {
                    for span in (0..count).filter(|span| left[*span]) {
                        self.ancestors(span).for_each(|ancestor| stands[ancestor] = true);
                    }
                }
                Relation::Sibling => {
                    let mut families: AHashMap<Option<&[u8]>, usize> = AHashMap::new();
                    for span in (0..count).filter(|span| left[*span]) {
                        *families.entry(self.batch.parent_id(self.rows[span])).or_default() += 1;
                    }
                    for (span, stands) in stands.iter_mut().enumerate() {
                        let others = families.get(&self.batch.parent_id(self.rows[span])).copied().unwrap_or(0);
                        *stands = others > usize::from(left[span]);
                    }
                }
            }
            stands
        };
        let stands = right_stands(left);
        match result {
            StructuralResult::Right => (0..count).map(|span| right[span] && stands[span]).collect(),
            StructuralResult::RightWithout => (0..count).map(|span| right[span] && !stands[span]).collect(),
            StructuralResult::Both => {
                let mirrored = match relation {
                    Relation::Child => Relation::Parent,
                    Relation::Descendant => Relation::Ancestor,
                    Relation::Parent => Relation::Child,
                    Relation::Ancestor => Relation::Descendant,
                    Relation::Sibling => Relation::Sibling,
                };
                let back = self.related(mirrored, StructuralResult::Right, right, left);
                (0..count).map(|span| back[span] || right[span] && stands[span]).collect()
            }
        }
    }
}

/// Left and right numbers of a forest, in order of the spans. Spans of a circle of parents stay without numbers.
fn nested_sets(parents: &[Option<usize>]) -> Vec<(i64, i64)> {
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); parents.len()];
    for (span, parent) in parents.iter().enumerate() {
        if let Some(parent) = parent {
            children[*parent].push(span);
        }
    }
    let mut numbers = vec![(0, 0); parents.len()];
    let mut next = 1;
    for root in (0..parents.len()).filter(|span| parents[*span].is_none()) {
        let mut open = vec![(root, 0)];
        while let Some((span, visited)) = open.last_mut() {
            if *visited == 0 {
                numbers[*span].0 = next;
                next += 1;
            }
            match children[*span].get(*visited) {
                Some(child) => {
                    *visited += 1;
                    open.push((*child, 0));
                }
                None => {
                    numbers[*span].1 = next;
                    next += 1;
                    open.pop();
                }
            }
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::nested_sets;

    #[test]
    fn nested_sets_number_each_span_once() {
        let numbers = nested_sets(&[None, Some(0), Some(1), Some(0), None]);
        assert_eq!(numbers, [(1, 8), (2, 5), (3, 4), (6, 7), (9, 10)]);
        assert_eq!(nested_sets(&[Some(1), Some(0)]), [(0, 0), (0, 0)]);
    }
}
