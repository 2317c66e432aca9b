//! `tidemill load`: files into the lake, with progress until they are queryable.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use http::Method;
use serde_json::json;
use tidemill_lake::clock::SystemClock;
use tidemill_lake::receive::Gate;
use tidemill_lake::worker::{self, WorkerDeps, WorkerOptions};
use tidemill_segment::ingest::InputFormat;
use tidemill_store::metastore::{InboxEntry, queues_for};
use tidemill_types::{Action, ErrorKind, OrganizationId, Signal, WorkId};
use tokio_util::io::ReaderStream;

use crate::admin::{Admin, InboxRequest, MAX_ROWS};
use crate::cli::GlobalOptions;
use crate::client::{Remote, Target, find_server};
use crate::commands::server_runtime;
use crate::config::{Config, format_bytes};
use crate::data_folder::DataFolder;
use crate::error::{Error, Result};
use crate::intake::{FileDescription, Intake, Loaded, from_lake, signal_of_name};
use crate::output::{Table, print, say};
use crate::progress::Progress;
use crate::serve::RUNTIME_END;
use crate::stack::Stack;

/// How long a file waits for a server that turns it away for a reason that may pass, and how long between attempts.
const BUSY_AT_MOST: Duration = Duration::from_secs(600);
const BUSY_PAUSE: Duration = Duration::from_secs(2);

/// Files, and what they are.
#[derive(Debug, Args)]
#[command(
    after_help = "Formats: OTLP protobuf, OTLP JSON (one request, or one a line), JSON lines, CSV, Parquet; each as it is, or gzip or zstd.
A file that was loaded before is recognized by its content and not stored twice.

Examples:
  tidemill load logs_2024-05-01.json.gz
  tidemill load app.csv --signal logs
  tidemill load dump/*.binpb.zst --signal traces --organization shop"
)]
pub struct LoadOptions {
    /// Files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Which signal the records are [default: from names that begin with logs, metrics, traces or spans]
    #[arg(long)]
    signal: Option<Signal>,
    /// otlp_protobuf, otlp_json, json_lines, csv or parquet [default: recognized by name and content]
    #[arg(long)]
    format: Option<String>,
    /// Return as soon as the files are stored durably, before they are queryable
    #[arg(long)]
    no_wait: bool,
}

/// Where files go.
enum Door {
    Server(Remote),
    Here(Box<Here>),
}

/// No server runs: this process is receiver and worker for as long as it loads.
struct Here {
    intake: Intake,
    organization: OrganizationId,
    stack: Stack,
}

/// Runs it.
///
/// # Errors
/// `Invalid` when a file was refused; those of the installation.
pub fn run(global: &GlobalOptions, options: LoadOptions) -> Result<()> {
    let config = global.load_config(Vec::new())?;
    let files = describe(&options)?;
    let runtime = server_runtime(&config)?;
    let outcome = runtime.block_on(load(global, config, files, options.no_wait));
    runtime.shutdown_timeout(RUNTIME_END);
    outcome
}

fn describe(options: &LoadOptions) -> Result<Vec<(PathBuf, FileDescription)>> {
    let mut problems = Vec::new();
    let mut files = Vec::new();
    if let Some(Err(problem)) = options.format.as_deref().map(str::parse::<InputFormat>) {
        problems.push(format!("--format: {problem}"));
    }
    for path in &options.files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match std::fs::metadata(path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => {
                problems.push(format!("{}: is no file; name the files, as {0}/*", path.display()));
                continue;
            }
            Err(error) => {
                problems.push(format!("{}: {error}", path.display()));
                continue;
            }
        }
        match options.signal.or_else(|| signal_of_name(&name)) {
            Some(signal) => {
                files.push((path.clone(), FileDescription { name, signal, format: options.format.clone() }))
            }
            None => problems.push(format!("{}: its name does not begin with a signal; say --signal", path.display())),
        }
    }
    if problems.is_empty() { Ok(files) } else { Err(Error::invalid(problems.join("\n  "))) }
}

async fn load(
    global: &GlobalOptions,
    config: Config,
    files: Vec<(PathBuf, FileDescription)>,
    no_wait: bool,
) -> Result<()> {
    let door = open_door(global, config).await?;
    let total = files.iter().filter_map(|(path, _)| std::fs::metadata(path).ok()).map(|it| it.len()).sum();
    let progress = Progress::bytes("storing", total);
    let mut loaded = Vec::new();
    let mut failure = None;
    for (path, file) in &files {
        let outcome = match store(&door, file, path, &progress).await {
            Ok(stored) => Outcome::Stored(stored),
            // The file is the reason, so the next one may do.
            Err(error) if error.kind() == ErrorKind::Invalid => Outcome::Refused(error.full_message()),
            Err(error) => {
                failure = Some(Error::caused(error.kind(), format!("{}", path.display()), error));
                break;
            }
        };
        loaded.push((path.clone(), outcome));
    }
    progress.finish();
    // What is stored is told, whatever came after it.
    let entries = if no_wait || failure.is_some() { Vec::new() } else { wait(&door, &loaded).await? };
    let reported = report(global, &loaded, &entries);
    failure.map_or(reported, Err)
}

/// What became of one file.
enum Outcome {
    /// It is durable, and in the inbox unless it was there before.
    Stored(Loaded),
    /// It cannot be taken, for this reason.
    Refused(String),
}

impl Outcome {
    fn stored(&self) -> Option<&Loaded> {
        match self {
            Self::Stored(loaded) => Some(loaded),
            Self::Refused(_) => None,
        }
    }

    /// Why it was refused, wholly or in part.
    fn reason(&self, entries: &[InboxEntry]) -> Option<String> {
        match self {
            Self::Stored(loaded) => {
                entries.iter().find(|entry| entry.object_key == loaded.object_key).and_then(|it| it.reason.clone())
            }
            Self::Refused(reason) => Some(reason.clone()),
        }
    }
}

/// Stores one file, waiting while the server turns everything away (a full disk, an organization above its rate).
async fn store(door: &Door, file: &FileDescription, path: &Path, progress: &Progress) -> Result<Loaded> {
    let begun = Instant::now();
    let mut is_told = false;
    loop {
        let stored = match door {
            Door::Server(remote) => send_file(remote, file, path, progress).await,
            Door::Here(here) => {
                here.intake.admit_file(here.organization, file, path).await.inspect(|it| progress.add(it.bytes))
            }
        };
        match stored {
            Err(error) if error.kind() == ErrorKind::Busy && begun.elapsed() < BUSY_AT_MOST => {
                if !std::mem::replace(&mut is_told, true) {
                    say!("{}: waiting: {error}", path.display());
                }
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            other => return other,
        }
    }
}

async fn open_door(global: &GlobalOptions, config: Config) -> Result<Door> {
    if let Some(remote) = find_server(global, &config)? {
        let remote = match remote.organization() {
            Some(_) => remote,
            None => acting_for_the_only_one(remote).await,
        };
        return Ok(Door::Server(remote));
    }
    // Asks first, so that a mistyped folder is not made.
    Target::find(global, &config).await?;
    let folder = DataFolder::new(config.data_dir());
    folder.create()?;
    let stack = Stack::open(config, folder.spool_of_process("load")).await?;
    let admin = Admin { metastore: stack.metastore.clone() };
    let named = global.organization.as_deref().unwrap_or(crate::bootstrap::FIRST_ORGANIZATION);
    let organization = admin.organization(named).await?.id;
    say!("no server runs on {}: loading here", stack.folder.root().display());
    let intake = Intake {
        metastore: stack.metastore.clone(),
        buckets: stack.buckets.clone(),
        placement: stack.placement(),
        gate: Gate::default(),
    };
    Ok(Door::Here(Box::new(Here { intake, organization, stack })))
}

/// An operator's key names no organization: take the default one where it is not said. A sender's key says it by itself.
pub async fn acting_for_the_only_one(remote: Remote) -> Remote {
    let Ok(all) = Target::Remote(remote.clone()).organizations().await else {
        return remote;
    };
    let live: Vec<_> = all.iter().filter(|it| !it.deleting).collect();
    let chosen = match live.as_slice() {
        [only] => Some(only.id),
        several => several.iter().find(|it| it.name == crate::bootstrap::FIRST_ORGANIZATION).map(|it| it.id),
    };
    match chosen {
        Some(id) => remote.acting_for(id.to_string()),
        None => remote,
    }
}

async fn send_file(remote: &Remote, file: &FileDescription, path: &Path, progress: &Progress) -> Result<Loaded> {
    let opened = tokio::fs::File::open(path).await.map_err(|error| Error::io("opening the file", error))?;
    let counter = progress.clone();
    let chunks = futures::StreamExt::inspect(ReaderStream::with_capacity(opened, 256 << 10), move |chunk| {
        if let Ok(chunk) = chunk {
            counter.add(chunk.len() as u64);
        }
    });
    let mut call = remote.request(Method::POST, "load");
    call.builder = call.builder.query(file).body(reqwest::Body::wrap_stream(chunks));
    let response = call.send_checked().await?;
    response.json().await.map_err(|error| Error::caused(ErrorKind::Unavailable, "reading the server's answer", error))
}

/// Waits until none of the files is in the inbox any more, and returns what the inbox says of those that were refused.
async fn wait(door: &Door, loaded: &[(PathBuf, Outcome)]) -> Result<Vec<InboxEntry>> {
    let stored = || loaded.iter().filter_map(|(_, it)| it.stored());
    let ids: HashSet<WorkId> = stored().filter_map(|it| it.work).collect();
    let keys: HashSet<&str> = stored().map(|it| it.object_key.as_str()).collect();
    let target = match door {
        Door::Server(remote) => Target::Remote(remote.clone()),
        Door::Here(here) => Target::Local(Admin { metastore: here.stack.metastore.clone() }, Some(here.organization)),
    };
    let worker = match door {
        Door::Here(here) => Some(start_worker(here)?),
        Door::Server(_) => None,
    };
    let progress = Progress::items("making queryable", ids.len() as u64);
    let mut open = ids.clone();
    while !open.is_empty() {
        open = still_open(&target, open).await?;
        progress.set((ids.len() - open.len()) as u64);
        if !open.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    progress.finish();
    if let Some((handle, task)) = worker {
        handle.stop();
        task.await.map_err(|error| Error::caused(ErrorKind::Internal, "the worker", error))?;
    }
    let entries = target.inbox(&whole_inbox()).await?;
    if entries.len() < MAX_ROWS {
        return Ok(entries.into_iter().filter(|entry| keys.contains(entry.object_key.as_str())).collect());
    }
    let mut refusals = Vec::new();
    for key in keys {
        let request = InboxRequest { object_key: Some(key.to_owned()), ..InboxRequest::default() };
        refusals.extend(target.inbox(&request).await?);
    }
    Ok(refusals)
}

fn whole_inbox() -> InboxRequest {
    InboxRequest { limit: Some(MAX_ROWS), ..InboxRequest::default() }
}

/// Those of `open` that are neither queryable nor dead yet.
async fn still_open(target: &Target, open: HashSet<WorkId>) -> Result<HashSet<WorkId>> {
    let is_open = |entry: &InboxEntry| entry.state != "dead" && entry.work.is_some_and(|work| open.contains(&work));
    let entries = target.inbox(&whole_inbox()).await?;
    let mut left: HashSet<WorkId> =
        entries.iter().filter(|entry| is_open(entry)).filter_map(|entry| entry.work).collect();
    if entries.len() < MAX_ROWS {
        return Ok(left);
    }
    // The list was cut, so an input that it lacks may wait behind it. The oldest is done first: while it is not, none is asked for.
    let listed: HashSet<WorkId> = entries.iter().filter_map(|entry| entry.work).collect();
    let mut unlisted: Vec<WorkId> = open.iter().filter(|work| !listed.contains(work)).copied().collect();
    unlisted.sort_by_key(|work| work.0);
    for (place, work) in unlisted.iter().enumerate() {
        let request = InboxRequest { work: Some(*work), ..InboxRequest::default() };
        if target.inbox(&request).await?.iter().any(is_open) {
            left.extend(&unlisted[place..]);
            break;
        }
    }
    Ok(left)
}

fn start_worker(here: &Here) -> Result<(worker::WorkerHandle, tokio::task::JoinHandle<()>)> {
    let queues = queues_for(&Signal::ALL, &[Action::Ingest]);
    let name = format!("load/{}", std::process::id());
    let spool = here.stack.spool.clone();
    let options = WorkerOptions::new(queues, name, spool.clone());
    let deps = WorkerDeps {
        metastore: here.stack.metastore.clone(),
        buckets: here.stack.buckets.clone(),
        placement: here.stack.placement(),
        clock: Arc::new(SystemClock),
    };
    let (handle, task) = worker::build(options, deps).map_err(from_lake)?;
    let running = tokio::spawn(async move {
        task.run().await;
        if let Err(error) = std::fs::remove_dir_all(&spool) {
            tracing::debug!(%error, "the spool folder");
        }
    });
    Ok((handle, running))
}

fn report(global: &GlobalOptions, loaded: &[(PathBuf, Outcome)], entries: &[InboxEntry]) -> Result<()> {
    let rows: Vec<serde_json::Value> = loaded
        .iter()
        .map(|(path, it)| {
            let stored = it.stored();
            let work = stored.and_then(|it| it.work);
            let is_known = stored.is_some_and(|it| it.work.is_none());
            let bytes = stored.map(|it| it.bytes);
            json!({ "file": path, "bytes": bytes, "work": work, "loaded_before": is_known, "refused": it.reason(entries) })
        })
        .collect();
    print(global.output, &rows, |_| {
        let mut table = Table::new(&["FILE", "SIZE", "RESULT"]);
        for (path, it) in loaded {
            let size = it.stored().map_or("-".to_owned(), |it| format_bytes(it.bytes));
            let stored =
                it.stored().map(|it| it.work.map_or("loaded before".to_owned(), |work| format!("input {work}")));
            let refused = it.reason(entries).map(|reason| format!("refused: {}", reason.replace('\n', "; ")));
            let result: Vec<String> = stored.into_iter().chain(refused).collect();
            table.row(vec![path.display().to_string(), size, result.join("; ")]);
        }
        table
    })?;
    let refused = loaded.iter().filter(|(_, it)| it.reason(entries).is_some()).count();
    if refused == 0 {
        return Ok(());
    }
    let files =
        if loaded.len() == 1 { "the file was".to_owned() } else { format!("{refused} of {} files were", loaded.len()) };
    let error = Error::invalid(format!("{files} refused, wholly or in part"));
    let is_in_inbox = loaded.iter().any(|(_, it)| it.stored().is_some() && it.reason(entries).is_some());
    Err(if is_in_inbox { error.with_hint("tidemill inbox --state refused") } else { error })
}
