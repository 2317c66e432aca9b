//! A watched folder over a real metastore: complete files, once, also over restarts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tempfile::TempDir;
use tidemill_lake::clock::SystemClock;
use tidemill_lake::notify::{Admitter, AdmitterOptions};
use tidemill_lake::receive::Gate;
use tidemill_lake::watch::{Watch, WatchOptions};
use tidemill_store::Metastore;
use tidemill_store::buckets::Buckets;
use tidemill_store::folder::FolderStore;
use tidemill_store::metastore::InboxEntry;
use tidemill_store::sqlite::SqliteMetastore;
use tidemill_types::{Action, OrganizationId, Routing, Signal, WorkQueue};
use tokio_util::sync::CancellationToken;

const ORG: &str = "dddddddd-aaaa-4ff9-ae8f-365873c552f0";

struct World {
    folder: TempDir,
    metastore: Arc<SqliteMetastore>,
    admitter: Admitter,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let metastore =
            Arc::new(SqliteMetastore::open(&folder.path().join("metastore.db")).await.expect("a metastore"));
        metastore.create_organization(ORG.parse::<OrganizationId>().expect("a UUID"), "one").await.expect("created");
        let buckets = Buckets::new();
        buckets.set("watched", Arc::new(FolderStore::open(&folder.path().join("in")).expect("a folder")));
        let routing = Routing { default_bucket: Some("watched".to_owned()), ..Routing::default() };
        let admitter = Admitter::new(AdmitterOptions {
            metastore: metastore.clone(),
            buckets,
            routing: Arc::new(ArcSwap::from_pointee(routing)),
            clock: Arc::new(SystemClock),
            gate: Gate::default(),
        });
        Self { folder, metastore, admitter }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("in/otel-raw").join(ORG).join("east").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        write(&self.path(name), text);
    }

    fn start(&self, rescan_every: Duration) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let options = WatchOptions {
            settle: Duration::from_millis(20),
            rescan_every,
            ..WatchOptions::new(self.folder.path().join("in"), "watched", self.folder.path().join("journal"))
        };
        let stop = CancellationToken::new();
        let watch = Watch::open(options, self.admitter.clone()).expect("watched");
        (stop.clone(), tokio::spawn(watch.run(stop)))
    }

    /// Waits until the inbox shows `count` entries, woken by the metastore.
    async fn until(&self, count: usize) -> Vec<InboxEntry> {
        let queues = Signal::ALL.map(|signal| WorkQueue { signal, action: Action::Ingest });
        let shown = async {
            loop {
                let entries = self.metastore.inbox(None, 100).await.expect("the inbox");
                if entries.len() >= count {
                    return entries;
                }
                self.metastore.wait_for_work(&queues, Duration::from_millis(50)).await;
            }
        };
        let entries = tokio::time::timeout(Duration::from_secs(30), shown).await.expect("files are noticed");
        assert_eq!(entries.len(), count, "{entries:?}");
        entries
    }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
    std::fs::write(path, text).expect("written");
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn files_before_and_after_the_start_are_taken_once_also_over_restarts() {
    let world = World::new().await;
    world.write("logs_before.json", "{}");
    world.write("logs_unfinished.json.tmp", "{}");
    let (stop, task) = world.start(HOUR);
    world.until(1).await;
    world.write("2026/01/metrics_written.json", "{}");
    world.until(2).await;
    let staged = world.folder.path().join("staged");
    write(&staged, "{}");
    std::fs::rename(&staged, world.path("traces_renamed.json")).expect("renamed");
    world.until(3).await;
    stop.cancel();
    task.await.expect("stopped");

    world.write("logs_while_stopped.json", "{}");
    let (stop, task) = world.start(HOUR);
    world.until(4).await;
    world.write("logs_before.json", "{\"changed\": true}");
    world.until(5).await;
    stop.cancel();
    task.await.expect("stopped");

    // Without the journal, the metastore's ledger still knows them.
    std::fs::remove_file(world.folder.path().join("journal")).expect("removed");
    let (stop, task) = world.start(HOUR);
    world.write("logs_last.json", "{}");
    let entries = world.until(6).await;
    assert!(entries.iter().all(|entry| entry.state == "waiting"), "{entries:?}");
    stop.cancel();
    task.await.expect("stopped");
}

#[tokio::test]
async fn a_file_in_no_known_place_is_refused_once() {
    let world = World::new().await;
    write(&world.folder.path().join("in/notes.txt"), "hello");
    let (stop, task) = world.start(Duration::from_millis(30));
    world.until(1).await;
    world.write("logs_1.json", "{}");
    let entries = world.until(2).await;
    assert_eq!(entries.iter().filter(|entry| entry.state == "refused").count(), 1);
    stop.cancel();
    task.await.expect("stopped");
}
