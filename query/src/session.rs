//! A DataFusion session for one query: our tables and functions, its limits, and nothing that reaches a file or URL (T-1).

use std::sync::Arc;

use datafusion::catalog::MemoryCatalogProviderList;
use datafusion::common::config::ConfigOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::functions::{aggregates, functions};
use crate::{Error, QueryLimits, QueryOptions, Result};

/// How many of the largest users of memory an error names.
const NAMED_CONSUMERS: std::num::NonZeroUsize = std::num::NonZeroUsize::new(3).expect("3 is not zero");

/// Functions that make a value as large as a number says, in one piece that no memory limit sees: `repeat('x', 1000000000)` takes
/// gigabytes, and more ends the process. The table functions `range` and `generate_series` give their rows one batch after the other.
pub(crate) const UNBOUNDED_FUNCTIONS: [&str; 9] = [
    "repeat",
    "lpad",
    "rpad",
    "array_repeat",
    "list_repeat",
    "array_resize",
    "list_resize",
    "range",
    "generate_series",
];

/// What every session starts from: functions and rules, built once.
pub(crate) fn base_state() -> Result<SessionState> {
    let mut state = SessionStateBuilder::new_with_default_features().build();
    for function in functions() {
        state.register_udf(function)?;
    }
    for function in aggregates() {
        state.register_udaf(function)?;
    }
    for name in UNBOUNDED_FUNCTIONS {
        state.deregister_udf(name)?;
    }
    Ok(state)
}

/// A session without tables.
pub(crate) fn new_session(base: &SessionState, options: &QueryOptions, limits: &QueryLimits) -> Result<SessionContext> {
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![options.spill_folder.clone()]))
        .with_max_temp_directory_size(limits.spill_bytes);
    let pool = TrackConsumersPool::new(FairSpillPool::new(limits.memory_bytes), NAMED_CONSUMERS);
    let runtime =
        RuntimeEnvBuilder::new().with_disk_manager_builder(disk).with_memory_pool(Arc::new(pool)).build_arc()?;
    // No statement can name a file; even a plan that could would find no store to open it with.
    runtime.deregister_object_store(ObjectStoreUrl::local_filesystem().as_ref()).map_err(Error::from)?;
    let mut config = ConfigOptions::new();
    config.execution.target_partitions = options.threads.max(1);
    config.execution.time_zone = Some("UTC".to_owned());
    config.execution.enable_recursive_ctes = false;
    config.catalog.information_schema = false;
    config.sql_parser.collect_spans = false;
    let state = SessionStateBuilder::new_from_existing(base.clone())
        .with_config(SessionConfig::from(config).with_create_default_catalog_and_schema(true))
        .with_runtime_env(runtime)
        .with_catalog_list(Arc::new(MemoryCatalogProviderList::new()))
        .build();
    Ok(SessionContext::new_with_state(state))
}
