//! Named steps between arrival and publication, at which a test may end or stop this very process.
//!
//! `TIDEMILL_CRASH_AT=<step>[:<n>]` sends SIGKILL to the process the n-th time (first by default) it passes the step;
//! `TIDEMILL_STOP_AT=<step>[:<n>]` sends SIGSTOP. Without them passing a step costs one atomic load. This is how the crash
//! tests reach every place where a power cut could fall, with the real process and the real stores.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

macro_rules! steps {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// A place between arrival and publication.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Step { $($(#[$doc])* $variant,)* }

        impl Step {
            /// Every step, in the order in which one input passes them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name used in the environment variables.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

steps! {
    /// A pushed request was read and checked.
    PushReceived => "push-received",
    /// The group's raw object is durable.
    RawStored => "raw-stored",
    /// The inbox rows are committed, nobody is answered yet.
    Admitted => "admitted",
    /// The senders were answered.
    Acknowledged => "acknowledged",
    /// An ingest bundle was claimed.
    IngestClaimed => "ingest-claimed",
    /// Its inputs were read and encoded.
    IngestEncoded => "ingest-encoded",
    /// Its segments are in the object store.
    IngestUploaded => "ingest-uploaded",
    /// Inside the publishing transaction, before its commit.
    PublishBeforeCommit => "publish-before-commit",
    /// The publishing transaction committed, the worker does not know yet.
    PublishCommitted => "publish-committed",
    /// A compaction bundle was claimed.
    CompactClaimed => "compact-claimed",
    /// Its merged segments are in the object store.
    CompactUploaded => "compact-uploaded",
    /// A rollup's segments are in the object store.
    RollupUploaded => "rollup-uploaded",
    /// The sweeper deleted an object and has not yet forgotten it.
    SweepDeleted => "sweep-deleted",
}

/// After a signal to the process, all of its threads have stopped.
const STOPS_WITHIN: Duration = Duration::from_millis(500);

struct Trap {
    step: Step,
    remaining: AtomicU32,
    signal: Signal,
}

fn traps() -> &'static [Trap] {
    static TRAPS: OnceLock<Vec<Trap>> = OnceLock::new();
    TRAPS.get_or_init(|| {
        [("TIDEMILL_CRASH_AT", Signal::KILL), ("TIDEMILL_STOP_AT", Signal::STOP)]
            .into_iter()
            .filter_map(|(variable, signal)| Some(parse_trap(&std::env::var(variable).ok()?, signal)))
            .collect()
    })
}

fn parse_trap(text: &str, signal: Signal) -> Trap {
    let (name, count) = text.split_once(':').unwrap_or((text, "1"));
    let step = Step::ALL.iter().copied().find(|step| step.as_str() == name);
    let step = step.unwrap_or_else(|| panic!("{name:?} is no step; one of {:?}", Step::ALL.map_names()));
    let count: u32 = count.parse().unwrap_or_else(|_| panic!("{count:?} is no count"));
    Trap { step, remaining: AtomicU32::new(count.max(1)), signal }
}

trait Names {
    fn map_names(&self) -> Vec<&'static str>;
}

impl Names for [Step] {
    fn map_names(&self) -> Vec<&'static str> {
        self.iter().map(|step| step.as_str()).collect()
    }
}

/// Says that `step` was reached.
pub fn reach(step: Step) {
    for trap in traps() {
        if trap.step == step && trap.remaining.fetch_sub(1, Ordering::SeqCst) == 1 {
            let sent = kill_process(getpid(), trap.signal);
            assert!(sent.is_ok(), "could not signal this process at {}", step.as_str());
            // Any thread may be the one that takes a SIGSTOP, when it is scheduled next; until then this one must not go on.
            std::thread::sleep(STOPS_WITHIN);
        }
    }
}
