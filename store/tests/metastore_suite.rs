//! One suite over every metastore: what [`tidemill_store::Metastore`] promises, each scenario on SQLite and on PostgreSQL.
//!
//! PostgreSQL is reached by `TIDEMILL_TEST_POSTGRES` (a URL of a database in which databases may be created). Without it its half
//! is skipped, unless `CI` or `TIDEMILL_REQUIRE_POSTGRES` is set: then its absence is a failure.

#[path = "metastore/catalog.rs"]
mod catalog;
#[path = "metastore/crashes.rs"]
mod crashes;
#[path = "metastore/durability.rs"]
mod durability;
#[path = "metastore/inbox.rs"]
mod inbox;
#[path = "metastore/organizations.rs"]
mod organizations;
#[path = "metastore/queue.rs"]
mod queue;
#[path = "metastore/sweeping.rs"]
mod sweeping;
#[path = "metastore/trace_days.rs"]
mod trace_days;
#[path = "metastore/world.rs"]
mod world;

macro_rules! suite {
    ($($module:ident: $($scenario:ident)*;)*) => {
        mod on_sqlite {
            $(mod $module { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    crate::$module::$scenario(crate::world::Place::sqlite()).await;
                }
            )* })*
        }
        mod on_postgres {
            $(mod $module { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    let Some(place) = crate::world::Place::postgres().await else { return };
                    crate::$module::$scenario(place).await;
                }
            )* })*
        }
    };
}

suite! {
    organizations:
        organizations_are_created_listed_and_changed
        keys_are_listed_and_revoked
        documents_are_replaced
        deleting_an_organization_takes_all_it_has
        a_newer_schema_is_refused
        many_processes_migrate_once;
    inbox:
        an_input_is_admitted_once
        repetitions_are_named_by_place
        admission_is_all_or_nothing
        concurrent_senders_of_one_identity_are_admitted_once
        a_claim_brings_back_the_identity_of_an_object
        a_rebuilt_ledger_knows_what_was_taken_in
        identities_are_forgotten_in_time
        refusals_are_shown
        the_inbox_tells_each_state;
    queue:
        the_best_priority_and_the_oldest_go_first
        bundles_keep_their_budgets
        a_bundle_has_one_organization_and_one_instance
        organizations_take_turns
        claimers_never_share_an_item
        only_the_current_token_is_accepted
        handing_back_is_no_attempt
        delayed_work_waits
        enqueueing_a_key_again_runs_it_once_more
        completing_many_names_the_lost
        waiting_ends_when_work_arrives
        what_is_enqueued_by_many_runs_once
        what_comes_back_is_claimed_before_what_came_later
        delayed_work_runs_in_a_queue_that_is_always_busy
        a_process_that_begins_finds_what_came_back
        a_key_that_is_made_urgent_runs_with_its_better_priority
        the_views_have_the_columns_of_the_reference
        the_views_agree_with_the_queue_at_every_step;
    crashes:
        a_crashed_bundle_is_halved_until_the_poison_is_alone
        kills_of_processes_condemn_nobody
        a_crash_loop_is_given_up_where_processes_live
        a_failed_bundle_is_split_without_blame
        an_item_is_retried_then_dead_lettered_and_redriven
        a_permanent_failure_is_not_retried
        a_wish_to_run_again_survives_the_dead_letter;
    catalog:
        every_field_of_a_segment_is_kept
        a_publication_commits_together
        changes_of_another_process_are_seen_at_once
        a_publication_that_conflicts_changes_nothing
        publishing_twice_is_refused
        segments_are_filtered
        changes_come_in_pages_and_in_commit_order
        a_follower_sees_what_concurrent_publishers_did
        a_pruned_change_log_is_said
        hours_are_raised_by_ingest
        retiring_and_adopting
        a_row_above_one_kibibyte_is_refused;
    sweeping:
        objects_are_doomed_after_their_grace
        references_keep_objects
        pruning_keeps_what_is_remembered;
    trace_days:
        every_field_of_a_day_index_is_kept
        replacing_a_day_index_is_a_compare_and_set
        of_two_that_replace_a_day_index_one_does
        a_day_index_goes_with_its_day
        a_doomed_day_index_keeps_its_grace
        a_lease_keeps_the_day_index_it_may_publish
        deleting_an_organization_takes_its_day_indexes;
}
