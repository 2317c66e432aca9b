//! A DataFusion session for one query: our tables and functions, its limits, and nothing that reaches a file or URL (T-1).

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
    SchemaProvider, TableProvider,
};
use datafusion::common::config::ConfigOptions;
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::prelude::SessionConfig;

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

/// What every session starts from, built once: functions, rules and settings.
pub(crate) fn base_state(options: &QueryOptions) -> Result<SessionState> {
    let mut config = ConfigOptions::new();
    config.execution.target_partitions = options.threads.max(1);
    config.execution.time_zone = Some("UTC".to_owned());
    config.execution.enable_recursive_ctes = false;
    config.catalog.information_schema = false;
    config.sql_parser.collect_spans = false;
    let mut state = SessionStateBuilder::new_with_default_features()
        .with_config(SessionConfig::from(config).with_create_default_catalog_and_schema(false))
        .with_runtime_env(runtime(RuntimeEnvBuilder::new())?)
        .build();
    for function in functions() {
        state.register_udf(function)?;
    }
    for function in aggregates() {
        state.register_udaf(function)?;
    }
    for name in UNBOUNDED_FUNCTIONS {
        state.deregister_udf(name)?;
    }
    // Functions get the settings of an execution; plans that name no time may as well be made by this one.
    state.mark_start_execution();
    Ok(state)
}

/// A session that plans one piece of work, with these tables alone.
pub(crate) fn new_session(
    base: &SessionState,
    tables: impl IntoIterator<Item = (&'static str, Arc<dyn TableProvider>)>,
) -> Result<SessionState> {
    let schema = MemorySchemaProvider::new();
    for (name, table) in tables {
        schema.register_table(name.to_owned(), table)?;
    }
    let catalog = MemoryCatalogProvider::new();
    let names = &base.config_options().catalog;
    catalog.register_schema(&names.default_schema, Arc::new(schema))?;
    let catalogs = MemoryCatalogProviderList::new();
    catalogs.register_catalog(names.default_catalog.clone(), Arc::new(catalog));
    let mut state = base.clone();
    state.register_catalog_list(Arc::new(catalogs));
    // It begins now, as `now()` tells.
    state.mark_start_execution();
    Ok(state)
}

/// Where a plan runs: its memory, and its disk where it may need any.
pub(crate) fn task_context(
    session: &SessionState,
    plan: &Arc<dyn ExecutionPlan>,
    options: &QueryOptions,
    limits: &QueryLimits,
) -> Result<Arc<TaskContext>> {
    // Folders are made for each query that may spill, and removed with it.
    let disk = DiskManagerBuilder::default().with_max_temp_directory_size(limits.spill_bytes);
    let disk = disk.with_mode(match may_spill(plan) {
        true => DiskManagerMode::Directories(vec![options.spill_folder.clone()]),
        false => DiskManagerMode::Disabled,
    });
    let pool = TrackConsumersPool::new(FairSpillPool::new(limits.memory_bytes), NAMED_CONSUMERS);
    let runtime = runtime(RuntimeEnvBuilder::new().with_disk_manager_builder(disk).with_memory_pool(Arc::new(pool)))?;
    // A plan has its functions in itself.
    let (config, id) = (session.config().clone(), session.session_id().to_owned());
    let task =
        TaskContext::new(None, id, config, HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new(), runtime);
    Ok(Arc::new(task))
}

/// No statement can name a file; even a plan that could would find no store to open it with.
fn runtime(builder: RuntimeEnvBuilder) -> Result<Arc<RuntimeEnv>> {
    let runtime = builder.build_arc()?;
    runtime.deregister_object_store(ObjectStoreUrl::local_filesystem().as_ref()).map_err(Error::from)?;
    Ok(runtime)
}

/// Whether a plan may put rows on disk: it has another node than those that never do, as its leaves never do.
fn may_spill(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let children = plan.children();
    let never_does = children.is_empty()
        || plan.is::<FilterExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<GlobalLimitExec>()
        || plan.is::<LocalLimitExec>()
        || plan.downcast_ref::<AggregateExec>().is_some_and(|own| own.group_expr().is_true_no_grouping());
    !never_does || children.into_iter().any(may_spill)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_may_spill_gets_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = QueryOptions { threads: 1, ..QueryOptions::new(folder.path().to_owned()) };
        let session = new_session(&base_state(&options).expect("a state"), []).expect("a session");
        for (text, spills) in [
            ("SELECT count(*), sum(x) FROM (VALUES (1), (2)) AS t(x) WHERE x > 1 LIMIT 1", false),
            ("SELECT x, count(*) FROM (VALUES (1), (2)) AS t(x) GROUP BY x", true),
            ("SELECT x FROM (VALUES (1), (2)) AS t(x) ORDER BY x", true),
        ] {
            let logical = session.create_logical_plan(text).await.expect("a plan");
            let plan = session.create_physical_plan(&logical).await.expect("a plan");
            let task = task_context(&session, &plan, &options, &QueryLimits::default()).expect("a context");
            assert_eq!(task.runtime_env().disk_manager.tmp_files_enabled(), spills, "{text}");
            assert_eq!(folder.path().read_dir().expect("a folder").count() > 0, spills, "{text}");
            drop(task);
            assert_eq!(folder.path().read_dir().expect("a folder").count(), 0, "{text}");
        }
    }
}
