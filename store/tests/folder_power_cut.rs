//! The folder store over a disk that forgets what was not synced: whatever is cut off where, an acknowledged object is there, whole,
//! and an unacknowledged one is there whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tidemill_store::ObjectStore;
use tidemill_store::folder::{Disk, FolderStore, SystemDisk};
use tidemill_store::object::{PutBody, PutMode};
use tidemill_types::ErrorKind;

/// Does everything on the real disk, and keeps a model of what a power cut would leave: names that their folder's sync has
/// written, bytes that the file's sync has. Files are known by inode, because a name may move before its bytes are durable.
#[derive(Debug, Clone, Default)]
struct ForgetfulDisk(Arc<Mutex<Model>>);

#[derive(Debug, Default)]
struct Model {
    /// Bytes that would survive, by inode.
    durable_bytes: BTreeMap<u64, Vec<u8>>,
    /// Names that would survive: of files with their inode, of folders with none.
    durable_names: BTreeMap<PathBuf, Option<u64>>,
    /// The operation at which the power is cut; none for never.
    operations_left: Option<usize>,
    performed: usize,
}

impl ForgetfulDisk {
    fn cut_after(operations: usize) -> Self {
        Self(Arc::new(Mutex::new(Model { operations_left: Some(operations), ..Model::default() })))
    }

    fn step(&self) -> io::Result<std::sync::MutexGuard<'_, Model>> {
        let mut model = self.0.lock().expect("not poisoned");
        match &mut model.operations_left {
            Some(0) => return Err(io::Error::other("the power is cut")),
            Some(left) => *left -= 1,
            None => {}
        }
        model.performed += 1;
        Ok(model)
    }

    /// What is left after a power cut: the objects whose names and folders survive, with the bytes that do.
    fn survivors(&self, root: &Path) -> BTreeMap<String, Vec<u8>> {
        let model = self.0.lock().expect("not poisoned");
        let is_reachable = |path: &Path| {
            path.ancestors()
                .skip(1)
                .take_while(|folder| *folder != root)
                .all(|folder| model.durable_names.get(folder).is_some_and(Option::is_none))
        };
        model
            .durable_names
            .iter()
            .filter_map(|(path, inode)| {
                let key = path.strip_prefix(root).ok()?.to_str()?.to_owned();
                if key.starts_with(".tidemill-unfinished") || !is_reachable(path) {
                    return None;
                }
                // A name without synced bytes is a file of nothing.
                Some((key, model.durable_bytes.get(&(*inode)?).cloned().unwrap_or_default()))
            })
            .collect()
    }
}

fn inode(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(path)?.ino())
}

impl Disk for ForgetfulDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let _model = self.step()?;
        SystemDisk.create_folder(path)
    }

    fn write_new(&self, path: &Path, body: &mut dyn Read) -> io::Result<u64> {
        let _model = self.step()?;
        SystemDisk.write_new(path, body)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let mut model = self.step()?;
        model.durable_bytes.insert(inode(path)?, std::fs::read(path)?);
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut model = self.step()?;
        model.durable_names.retain(|name, _| name.parent() != Some(path));
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let file = if entry.file_type()?.is_dir() { None } else { Some(inode(&entry.path())?) };
            model.durable_names.insert(entry.path(), file);
        }
        Ok(())
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _model = self.step()?;
        SystemDisk.replace(from, to)
    }

    fn move_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _model = self.step()?;
        SystemDisk.move_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let _model = self.step()?;
        SystemDisk.remove(path)
    }
}

fn body(text: &str) -> PutBody {
    PutBody::Chunks(vec![Bytes::copy_from_slice(text.as_bytes())])
}

/// The puts of one run, in order: key, content, mode.
const PUTS: [(&str, &str, PutMode); 6] = [
    ("raw/o/logs/1.binpb", "first", PutMode::IfAbsent),
    ("raw/o/logs/2.binpb", "second, longer", PutMode::IfAbsent),
    ("db/o/metrics/x/3.parquet", "third", PutMode::IfAbsent),
    ("raw/o/logs/1.binpb", "not taken", PutMode::IfAbsent),
    ("state", "old", PutMode::Overwrite),
    ("state", "new and longer", PutMode::Overwrite),
];

/// Runs the puts until the power is cut; returns what was acknowledged and how many operations the disk performed.
async fn run(disk: &ForgetfulDisk, root: &Path) -> (BTreeMap<String, String>, usize) {
    let mut acknowledged = BTreeMap::new();
    let store = FolderStore::open_on(root, Box::new(disk.clone())).expect("opens");
    for (key, text, mode) in PUTS {
        match store.put(key, body(text), mode).await {
            Ok(_) => {
                acknowledged.insert(key.to_owned(), text.to_owned());
            }
            Err(error) if error.kind() == ErrorKind::Conflict => assert_eq!(text, "not taken"),
            Err(_) => break,
        }
    }
    let performed = disk.0.lock().expect("not poisoned").performed;
    (acknowledged, performed)
}

#[tokio::test]
async fn what_is_acknowledged_survives_a_power_cut_at_every_operation() {
    let folder = tempfile::tempdir().expect("a folder");
    let (all, operations) = run(&ForgetfulDisk::default(), folder.path()).await;
    assert_eq!(all.len(), 4);
    assert!(operations > 20, "{operations}");
    for cut in 0..=operations {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("exists");
        let disk = ForgetfulDisk::cut_after(cut);
        let (acknowledged, _) = run(&disk, &root).await;
        let survivors = disk.survivors(&root);
        for (key, text) in &acknowledged {
            let newer = PUTS.iter().filter(|put| put.0 == key).map(|put| put.1.as_bytes());
            let found = survivors.get(key).unwrap_or_else(|| panic!("cut at {cut}: {key} is lost"));
            assert!(
                found == text.as_bytes() || newer.clone().any(|bytes| bytes == found),
                "cut at {cut}: {key} is torn"
            );
        }
        let known: BTreeSet<(&str, &[u8])> = PUTS.iter().map(|put| (put.0, put.1.as_bytes())).collect();
        for (key, bytes) in &survivors {
            assert!(known.contains(&(key.as_str(), bytes.as_slice())), "cut at {cut}: {key} is {bytes:?}");
        }
    }
}

#[tokio::test]
async fn a_folder_made_by_another_is_synced_before_it_is_trusted() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().canonicalize().expect("exists");
    // Somebody created the folders and was gone before syncing them.
    std::fs::create_dir_all(root.join("a/b")).expect("creates");
    let disk = ForgetfulDisk::default();
    let store = FolderStore::open_on(&root, Box::new(disk.clone())).expect("opens");
    store.put("a/b/k", body("x"), PutMode::IfAbsent).await.expect("is written");
    assert_eq!(disk.survivors(&root).into_iter().collect::<Vec<_>>(), [("a/b/k".to_owned(), b"x".to_vec())]);
}

/// Fails as a full disk does.
#[derive(Debug)]
struct FullDisk;

impl Disk for FullDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        SystemDisk.create_folder(path)
    }

    fn write_new(&self, path: &Path, _: &mut dyn Read) -> io::Result<u64> {
        std::fs::write(path, "a part")?;
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        SystemDisk.sync_file(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        SystemDisk.sync_folder(path)
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemDisk.replace(from, to)
    }

    fn move_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemDisk.move_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove(path)
    }
}

#[tokio::test]
async fn a_full_disk_is_busy_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = FolderStore::open_on(folder.path(), Box::new(FullDisk)).expect("opens");
    std::fs::create_dir(folder.path().join(".tidemill-unfinished")).expect("creates");
    let error = store.put("a/k", body("x"), PutMode::IfAbsent).await.expect_err("is refused");
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(!folder.path().join("a/k").exists());
    let left = std::fs::read_dir(folder.path().join(".tidemill-unfinished")).expect("exists").count();
    assert_eq!(left, 0);
}
