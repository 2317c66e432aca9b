//! One suite over every object store: what [`tidemill_store::ObjectStore`] promises, on a folder, and on S3 where
//! `TIDEMILL_TEST_S3` gives an endpoint. Without it that half is skipped, unless `CI` or `TIDEMILL_REQUIRE_S3` is set.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tidemill_store::cloud::{CloudOptions, CloudStore};
use tidemill_store::folder::FolderStore;
use tidemill_store::object::{PutBody, PutMode};
use tidemill_store::{ObjectStore, Result};
use tidemill_types::{CloudProvider, ErrorKind};
use uuid::Uuid;

macro_rules! suite {
    ($($scenario:ident)*) => {
        mod on_a_folder { $(
            #[tokio::test]
            async fn $scenario() {
                let folder = tempfile::tempdir().expect("a folder");
                let store = tidemill_store::folder::FolderStore::open(folder.path()).expect("opens");
                crate::$scenario(&store).await;
            }
        )* }
        mod on_s3 { $(
            #[tokio::test]
            async fn $scenario() {
                let Some(store) = crate::s3_bucket().await else { return };
                crate::$scenario(&store).await;
            }
        )* }
    };
}

suite! {
    objects_are_written_and_read_back
    an_existing_key_is_kept_or_replaced
    one_of_many_concurrent_writers_wins
    large_files_arrive_whole
    a_changed_object_is_noticed
    ranges_are_exact
    what_is_missing_is_said
    listings_are_complete_and_in_order
    keys_are_taken_literally
}

fn endpoint(name: &str) -> Option<String> {
    let found = std::env::var(name).ok();
    if found.is_none() {
        let is_required = ["CI", "TIDEMILL_REQUIRE_S3"].iter().any(|name| std::env::var_os(name).is_some());
        assert!(!is_required, "{name} is not set");
        eprintln!("skipped: {name} is not set");
    }
    found
}

async fn s3_bucket() -> Option<CloudStore> {
    let endpoint = endpoint("TIDEMILL_TEST_S3")?;
    let bucket = format!("suite-{}", Uuid::new_v4().simple());
    // The emulator takes unsigned requests; our store has no business to create buckets.
    let created = reqwest::Client::new().put(format!("{endpoint}/{bucket}")).send().await.expect("S3 answers");
    assert!(created.status().is_success(), "{}", created.status());
    let options = CloudOptions {
        endpoint: Some(endpoint),
        region: Some("us-east-1".to_owned()),
        use_path_style: true,
        ..CloudOptions::new(CloudProvider::Aws, &bucket)
    };
    Some(CloudStore::open(&options).expect("opens"))
}

fn chunks(parts: &[&'static str]) -> PutBody {
    PutBody::Chunks(parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect())
}

async fn read(store: &dyn ObjectStore, key: &str) -> Result<Vec<u8>> {
    let read = store.get(key, None).await?;
    let size = read.info.size;
    let parts: Vec<Bytes> = read.body.try_collect().await?;
    let bytes = parts.concat();
    assert_eq!(bytes.len() as u64, size);
    Ok(bytes)
}

async fn keys(store: &dyn ObjectStore, prefix: &str) -> Vec<String> {
    store.list(prefix).map(|info| info.expect("lists").key).collect().await
}

#[track_caller]
fn assert_kind<T>(result: Result<T>, kind: ErrorKind) {
    let error = result.err().expect("is refused");
    assert_eq!(error.kind(), kind, "{error}");
}

async fn objects_are_written_and_read_back(store: &dyn ObjectStore) {
    let put = store.put("a/b/c.txt", chunks(&["one ", "", "two"]), PutMode::IfAbsent).await.expect("is written");
    assert_eq!((put.key.as_str(), put.size), ("a/b/c.txt", 7));
    assert!(put.etag.is_some());
    assert_eq!(read(store, "a/b/c.txt").await.expect("is there"), b"one two");
    assert_eq!(store.head("a/b/c.txt").await.expect("is there"), put);
    store.put("empty", chunks(&[]), PutMode::IfAbsent).await.expect("is written");
    assert_eq!(read(store, "empty").await.expect("is there"), b"");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), b"from a file").expect("writes");
    store.put("f", PutBody::File(file.path().to_owned()), PutMode::IfAbsent).await.expect("is written");
    assert_eq!(read(store, "f").await.expect("is there"), b"from a file");
    store.delete("f").await.expect("deletes");
    store.delete("f").await.expect("what is gone is deleted");
    assert_kind(store.head("f").await, ErrorKind::NotFound);
}

async fn an_existing_key_is_kept_or_replaced(store: &dyn ObjectStore) {
    store.put("k", chunks(&["first"]), PutMode::IfAbsent).await.expect("is written");
    assert_kind(store.put("k", chunks(&["second"]), PutMode::IfAbsent).await, ErrorKind::Conflict);
    assert_eq!(read(store, "k").await.expect("is there"), b"first");
    store.put("k", chunks(&["third one"]), PutMode::Overwrite).await.expect("is written");
    assert_eq!(read(store, "k").await.expect("is there"), b"third one");
}

async fn one_of_many_concurrent_writers_wins(store: &dyn ObjectStore) {
    let bodies = ["w0", "w1-", "w2--", "w3---"];
    let puts = bodies
        .map(|body| store.put("race", PutBody::Chunks(vec![Bytes::from_static(body.as_bytes())]), PutMode::IfAbsent));
    let results = futures::future::join_all(puts).await;
    let winners: Vec<usize> = (0..bodies.len()).filter(|&place| results[place].is_ok()).collect();
    let [winner] = winners.as_slice() else { panic!("{results:?}") };
    assert_eq!(read(store, "race").await.expect("is there"), bodies[*winner].as_bytes());
}

async fn large_files_arrive_whole(store: &dyn ObjectStore) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let content: Vec<u8> = (0..40_000_000_u32).map(|place| (place % 251) as u8).collect();
    std::fs::write(file.path(), &content).expect("writes");
    let body = || PutBody::File(file.path().to_owned());
    let put = store.put("large", body(), PutMode::IfAbsent).await.expect("is written");
    assert_eq!(put.size, content.len() as u64);
    assert!(read(store, "large").await.expect("is there") == content, "bytes differ");
    assert_kind(store.put("large", body(), PutMode::IfAbsent).await, ErrorKind::Conflict);
}

async fn a_changed_object_is_noticed(store: &dyn ObjectStore) {
    let first = store.put("k", chunks(&["first"]), PutMode::Overwrite).await.expect("is written");
    let etag = first.etag.as_deref();
    assert!(store.get("k", etag).await.is_ok());
    store.put("k", chunks(&["second!"]), PutMode::Overwrite).await.expect("is written");
    assert_kind(store.get("k", etag).await.map(|_| ()), ErrorKind::Conflict);
}

async fn ranges_are_exact(store: &dyn ObjectStore) {
    store.put("k", chunks(&["0123456789"]), PutMode::Overwrite).await.expect("is written");
    let got = store.get_ranges("k", &[7..10, 0..3, 4..4, 2..5]).await.expect("reads");
    assert_eq!(got, ["789", "012", "", "234"].map(Bytes::from));
    assert_kind(store.get_ranges("k", &[0..1, 8..11]).await, ErrorKind::Invalid);
    assert_kind(store.get_ranges("k", &[std::ops::Range { start: 3, end: 2 }]).await, ErrorKind::Invalid);
    assert_kind(store.get_ranges("missing", &[std::ops::Range { start: 0, end: 1 }]).await, ErrorKind::NotFound);
}

async fn what_is_missing_is_said(store: &dyn ObjectStore) {
    assert_kind(store.get("no/such", None).await.map(|_| ()), ErrorKind::NotFound);
    assert_kind(store.head("no/such").await, ErrorKind::NotFound);
    for key in ["", "/etc/passwd", "a/../../b", "a//b"] {
        assert_kind(store.put(key, chunks(&["x"]), PutMode::Overwrite).await, ErrorKind::Invalid);
        assert_kind(store.get(key, None).await.map(|_| ()), ErrorKind::Invalid);
    }
    assert!(keys(store, "no/such").await.is_empty());
}

async fn listings_are_complete_and_in_order(store: &dyn ObjectStore) {
    let written = ["a", "db/1/x", "db/10", "db/1-a", "db/1/a/b", "db-2/x", "zz"];
    for key in written {
        store.put(key, chunks(&["x"]), PutMode::Overwrite).await.expect("is written");
    }
    let mut sorted = written.map(str::to_owned);
    sorted.sort_unstable();
    assert_eq!(keys(store, "").await, sorted);
    assert_eq!(keys(store, "db/").await, ["db/1-a", "db/1/a/b", "db/1/x", "db/10"]);
    assert_eq!(keys(store, "db/1").await, ["db/1-a", "db/1/a/b", "db/1/x", "db/10"]);
    assert_eq!(keys(store, "db/1/").await, ["db/1/a/b", "db/1/x"]);
    assert_eq!(keys(store, "db").await.len(), 5);
    let info = store.list("zz").next().await.expect("one").expect("lists");
    assert_eq!(info, store.head("zz").await.expect("is there"), "a listing tells what head does");
}

async fn keys_are_taken_literally(store: &dyn ObjectStore) {
    for key in ["otel-raw/o r g/c/logs_1%20a.gz", "plus+and=equals", "größe/日.binpb", "a..b/.hidden"] {
        store.put(key, chunks(&["x"]), PutMode::IfAbsent).await.expect("is written");
        assert_eq!(read(store, key).await.expect("is there"), b"x", "{key}");
        assert!(keys(store, key).await.contains(&key.to_owned()), "{key}");
    }
}

#[tokio::test]
async fn a_role_is_really_assumed() {
    let Some(endpoint) = endpoint("TIDEMILL_TEST_S3") else { return };
    let bucket = format!("suite-{}", Uuid::new_v4().simple());
    let created = reqwest::Client::new().put(format!("{endpoint}/{bucket}")).send().await.expect("S3 answers");
    assert!(created.status().is_success());
    let options = CloudOptions {
        endpoint: Some(endpoint),
        use_path_style: true,
        role: Some("arn:aws:iam::123456789012:role/lake".to_owned()),
        ..CloudOptions::new(CloudProvider::Aws, &bucket)
    };
    let store = CloudStore::open(&options).expect("opens");
    store.put("k", chunks(&["x"]), PutMode::IfAbsent).await.expect("is written with the role's credentials");
    let nowhere = CloudOptions { sts_endpoint: Some("http://127.0.0.1:1/".to_owned()), ..options };
    let error = CloudStore::open(&nowhere).expect("opens").head("k").await.expect_err("no role, no answer");
    assert!(format!("{error}").contains("role/lake"), "{error}");
}

#[tokio::test]
async fn opening_a_folder_again_finds_its_objects() {
    let folder = tempfile::tempdir().expect("a folder");
    let store: Arc<dyn ObjectStore> = Arc::new(FolderStore::open(folder.path()).expect("opens"));
    store.put("a/b", chunks(&["x"]), PutMode::IfAbsent).await.expect("is written");
    let again = FolderStore::open(folder.path()).expect("opens");
    assert_eq!(keys(&again, "").await, ["a/b"], "and nothing unfinished");
    std::fs::write(folder.path().join("a/dropped"), "by hand").expect("writes");
    assert_eq!(read(&again, "a/dropped").await.expect("is there"), b"by hand");
}
