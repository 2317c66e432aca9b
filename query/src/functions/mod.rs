//! SQL functions of our own: texts ([`text`], [`replace`]), counters ([`counter`]), histograms ([`histogram`]).

mod counter;
mod histogram;
mod replace;
mod text;

use std::sync::Arc;

use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

pub(crate) use text::{HAS_TOKEN, is_token};

/// Functions of a row.
pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    let all = [
        ScalarUDF::from(text::HasToken::new()),
        ScalarUDF::from(text::Hex::new()),
        ScalarUDF::from(replace::BoundedReplace::new()),
        ScalarUDF::from(histogram::Quantile::new()),
        ScalarUDF::from(histogram::ExponentialQuantile::new()),
    ];
    all.into_iter().map(Arc::new).collect()
}

/// Functions of the rows of a group.
pub(crate) fn aggregates() -> Vec<Arc<AggregateUDF>> {
    let all = [
        AggregateUDF::from(counter::Increase::new(false)),
        AggregateUDF::from(counter::Increase::new(true)),
        AggregateUDF::from(histogram::SumCounts::new()),
    ];
    all.into_iter().map(Arc::new).collect()
}
