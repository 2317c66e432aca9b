//! Which attributes a query mentions anywhere.

use std::collections::BTreeSet;

use tidemill_lang::traceql::ast::{
    Attribute, Field, FieldKind, Metrics, MetricsFunction, Pipeline, Query, QueryKind, Scalar, Spansets, Stage,
};

/// The attributes that a query mentions, and whether it looks at all attributes there are.
#[derive(Debug, Default)]
pub(super) struct Mentioned {
    pub(super) attributes: BTreeSet<Attribute>,
    pub(super) all: bool,
}

impl Mentioned {
    pub(super) fn of(query: &Query) -> Self {
        let mut own = Self::default();
        match &query.kind {
            QueryKind::Search(pipeline) => own.pipeline(pipeline),
            QueryKind::Metrics(metrics) => own.metrics(metrics),
        }
        own
    }

    pub(super) fn add(&mut self, attribute: &Attribute) {
        self.attributes.insert(attribute.clone());
    }

    fn metrics(&mut self, metrics: &Metrics) {
        match metrics {
            Metrics::Number(_) => {}
            Metrics::Operation { left, right, .. } => {
                self.metrics(left);
                self.metrics(right);
            }
            Metrics::Pipeline { spans, function, by, .. } => {
                self.pipeline(spans);
                by.iter().chain(function.of()).for_each(|attribute| self.add(attribute));
                if let MetricsFunction::Compare { selection, .. } = function {
                    self.all = true;
                    selection.iter().for_each(|field| self.field(field));
                }
            }
        }
    }

    pub(super) fn pipeline(&mut self, pipeline: &Pipeline) {
        for stage in &pipeline.stages {
            match stage {
                Stage::Spansets(spansets) => self.spansets(spansets),
                Stage::Scalar(filter) => {
                    self.scalar(&filter.left);
                    self.scalar(&filter.right);
                }
                Stage::By(field) => self.field(field),
                Stage::Coalesce => {}
                Stage::Select(attributes) => attributes.iter().for_each(|attribute| self.add(attribute)),
            }
        }
    }

    fn spansets(&mut self, spansets: &Spansets) {
        match spansets {
            Spansets::Filter(None) => {}
            Spansets::Filter(Some(field)) => self.field(field),
            Spansets::Pipeline(pipeline) => self.pipeline(pipeline),
            Spansets::Operation { left, right, .. } => {
                self.spansets(left);
                self.spansets(right);
            }
        }
    }

    fn scalar(&mut self, scalar: &Scalar) {
        match scalar {
            Scalar::Static(_) | Scalar::Aggregate { of: None, .. } => {}
            Scalar::Aggregate { of: Some(field), .. } => self.field(field),
            Scalar::Operation { left, right, .. } => {
                self.scalar(left);
                self.scalar(right);
            }
        }
    }

    fn field(&mut self, field: &Field) {
        match &field.kind {
            FieldKind::Static(_) => {}
            FieldKind::Attribute(attribute) => self.add(attribute),
            FieldKind::Not(inner) | FieldKind::Negative(inner) => self.field(inner),
            FieldKind::Binary { left, right, .. } => {
                self.field(left);
                self.field(right);
            }
        }
    }
}
