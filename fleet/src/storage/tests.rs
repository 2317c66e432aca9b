//! What is stored, and what is told of it.

use serde_json::json;

use super::*;
use crate::objects::find_kind;

fn deployment(name: &str) -> Box<Object> {
    let mut object = Object::new(find_kind("deployment").expect("a kind"), "default", name);
    object.set("spec", "replicas", json!(1));
    Box::new(object)
}

fn create(storage: &Storage, name: &str) -> Arc<Object> {
    storage
        .commit(vec![Write::Put { object: deployment(name), expected: Some(String::new()) }])
        .expect("created")
        .remove(0)
}

#[test]
fn a_commit_is_all_or_nothing_and_outlives_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = Storage::open(folder.path()).expect("open");
    let first = create(&storage, "a");
    let refused = storage.commit(vec![
        Write::Put { object: deployment("b"), expected: Some(String::new()) },
        Write::Put { object: deployment("a"), expected: Some(String::new()) },
        Write::State { uid: "u".to_owned(), state: "{}".to_owned() },
    ]);
    assert!(matches!(refused, Err(Error::AlreadyExists(_))), "{refused:?}");
    assert_eq!(storage.list("Deployment", None).objects.len(), 1);
    assert_eq!(storage.state("u").expect("read"), None);
    let put = |expected: &str| Write::Put { object: deployment("a"), expected: Some(expected.to_owned()) };
    storage
        .commit(vec![
            put(&first.metadata.resource_version),
            Write::State { uid: "u".to_owned(), state: "{}".to_owned() },
        ])
        .expect("changed");
    assert!(matches!(storage.commit(vec![put(&first.metadata.resource_version)]), Err(Error::Conflict(_))));
    drop(storage);
    let storage = Storage::open(folder.path()).expect("open again");
    assert_eq!(storage.state("u").expect("read").as_deref(), Some("{}"));
    let listed = storage.list("Deployment", Some("default"));
    assert_eq!((listed.objects.len(), listed.sequence), (1, 2));
    assert!(matches!(storage.changes(0), Err(Error::Gone(0))));
    assert_eq!(storage.changes(2).expect("none yet").len(), 0);
}

#[test]
fn changes_are_told_in_order_and_of_every_kind() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = Storage::open(folder.path()).expect("open");
    create(&storage, "a");
    storage.commit(vec![Write::Put { object: deployment("a"), expected: None }]).expect("changed");
    storage.commit(vec![Write::Delete(deployment("a").key())]).expect("deleted");
    let kinds: Vec<ChangeKind> = storage.changes(0).expect("all").into_iter().map(|change| change.kind).collect();
    assert_eq!(kinds, [ChangeKind::Added, ChangeKind::Modified, ChangeKind::Deleted]);
    assert_eq!(*storage.watch().borrow(), 3);
}

#[test]
fn only_the_last_decisions_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = Storage::open(folder.path()).expect("open");
    let record = |n: usize| Write::Record { uid: "u".to_owned(), at_ms: 0, record: n.to_string() };
    storage.commit((0..KEPT_RECORDS + 5).map(record).collect()).expect("stored");
    let kept = storage.records("u", usize::MAX).expect("read");
    assert_eq!(
        (kept.len(), kept.first(), kept.last()),
        (KEPT_RECORDS, Some(&json!(5)), Some(&json!(KEPT_RECORDS + 4)))
    );
    assert_eq!(storage.records("u", 2).expect("read"), [json!(KEPT_RECORDS + 3), json!(KEPT_RECORDS + 4)]);
}
