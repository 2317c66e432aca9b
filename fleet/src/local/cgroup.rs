//! Control groups (version 2), where this process may make them: limits that the kernel keeps, and an end that nothing escapes.
//!
//! ```text
//! <own>/tidemill/server            the server, where its own group had to be empty
//! <own>/tidemill/shims             the small parents, so that no container's limit counts or ends them
//! <own>/tidemill/<uid>.<container> a container, over all its runs
//! ```
//!
//! Never: a fallback in silence. Where there are none, [`find`] says why, and usage is watched instead.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::runtime::{ContainerSpec, RuntimeError};

/// The quota's period in microseconds, as Kubernetes sets it.
const CPU_PERIOD_US: i64 = 100_000;
/// The kernel takes no smaller quota.
const LEAST_CPU_QUOTA_US: i64 = 1000;
/// How long a group is waited for that was told to end.
const END_WITHIN: Duration = Duration::from_secs(5);

/// The group below which containers get theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cgroups {
    root: PathBuf,
}

/// What a shim needs to know of its container's group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    path: PathBuf,
    shims: PathBuf,
    /// What is written into it: names of files and their contents, in this order.
    settings: Vec<(String, String)>,
}

/// What a group has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Used {
    pub cpu_us: u64,
    pub memory_bytes: i64,
}

/// Finds where this process may make groups, and prepares it.
///
/// # Errors
/// Why it may not, and what to do about it.
pub(super) fn find() -> Result<Cgroups, String> {
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let own = own_group(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)
        .ok_or("no cgroup v2 hierarchy is mounted here")?;
    prepare(&own, std::process::id())
}

/// The folder of the group that this process is in.
fn own_group(mounts: &str, groups: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    // proc_pid_mountinfo(5): … root, mount point, options … - type …
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        if !after.starts_with("cgroup2 ") {
            return None;
        }
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = if root == "/" { group } else { group.strip_prefix(root)? };
        Some(Path::new(&point.replace("\\040", " ")).join(below.trim_start_matches('/')))
    })
}

fn prepare(own: &Path, server: u32) -> Result<Cgroups, String> {
    let has = std::fs::read_to_string(own.join("cgroup.controllers")).map_err(|error| told(own, &error))?;
    let has: Vec<&str> = has.split_whitespace().collect();
    if !["cpu", "memory"].iter().all(|wanted| has.contains(wanted)) {
        return Err(format!("cgroup v2 at {} has no cpu and memory controllers", own.display()));
    }
    let root = own.join("tidemill");
    for folder in [root.clone(), root.join("shims")] {
        make_folder(&folder).map_err(|error| told(&folder, &error))?;
    }
    if let Err(error) = delegate(own) {
        // A group with processes of its own cannot hand its controllers on (cgroups(7), "no internal processes").
        let inside = std::fs::read_to_string(own.join("cgroup.procs")).unwrap_or_default();
        let is_alone = inside.split_whitespace().all(|pid| pid == server.to_string());
        if error.raw_os_error() != Some(rustix::io::Errno::BUSY.raw_os_error()) || !is_alone {
            return Err(format!(
                "{}; start it in a group of its own: systemd-run --scope -p Delegate=yes tidemill up",
                told(own, &error)
            ));
        }
        let leaf = root.join("server");
        make_folder(&leaf)
            .and_then(|()| put(&leaf, "cgroup.procs", &server.to_string()))
            .map_err(|e| told(&leaf, &e))?;
        delegate(own).map_err(|error| told(own, &error))?;
    }
    delegate(&root).map_err(|error| told(&root, &error))?;
    Ok(Cgroups { root })
}

fn told(folder: &Path, error: &io::Error) -> String {
    format!("{}: {error}", folder.display())
}

fn delegate(folder: &Path) -> io::Result<()> {
    put(folder, "cgroup.subtree_control", "+cpu +memory")
}

fn make_folder(folder: &Path) -> io::Result<()> {
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn put(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    std::fs::write(folder.join(name), text)
}

impl Cgroups {
    /// The group of a container.
    pub(super) fn group(&self, uid: &str, spec: &ContainerSpec) -> Group {
        Group { path: self.path(uid, &spec.name), shims: self.root.join("shims"), settings: settings(spec) }
    }

    fn path(&self, uid: &str, container: &str) -> PathBuf {
        self.root.join(format!("{uid}.{container}"))
    }

    /// What a container has used, over all its runs.
    pub(super) fn used(&self, uid: &str, container: &str) -> Option<Used> {
        let path = self.path(uid, container);
        let cpu = std::fs::read_to_string(path.join("cpu.stat")).ok()?;
        let current: i64 = std::fs::read_to_string(path.join("memory.current")).ok()?.trim().parse().ok()?;
        let stat = std::fs::read_to_string(path.join("memory.stat")).ok()?;
        // What the kernel would give up first is not counted, as cAdvisor computes the working set.
        let idle = i64::try_from(field(&stat, "inactive_file").unwrap_or_default()).unwrap_or_default();
        Some(Used { cpu_us: field(&cpu, "usage_usec")?, memory_bytes: (current - idle).max(0) })
    }

    /// Ends whatever a container's group holds.
    pub(super) fn kill(&self, uid: &str, container: &str) {
        end_all(&self.path(uid, container));
    }

    /// Takes a container's group away; one that still holds processes stays.
    pub(super) fn remove(&self, uid: &str, container: &str) {
        let path = self.path(uid, container);
        match std::fs::remove_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(group = %path.display(), %error, "a container's group stays");
            }
            _ => {}
        }
    }
}

/// Limits and weights as Kubernetes translates them for cgroup v2.
fn settings(spec: &ContainerSpec) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    let mut set = |name: &str, value: String| settings.push((name.to_owned(), value));
    let quota = spec.limits.cpu_milli.map(|milli| milli.saturating_mul(CPU_PERIOD_US / 1000).max(LEAST_CPU_QUOTA_US));
    set("cpu.max", quota.map_or_else(|| "max".to_owned(), |quota| format!("{quota} {CPU_PERIOD_US}")));
    if let Some(milli) = spec.requests.cpu_milli {
        // KEP-2254: shares of 2 to 262144 become weights of 1 to 10000.
        let shares = milli.saturating_mul(1024).saturating_div(1000).clamp(2, 262_144);
        set("cpu.weight", (1 + (shares - 2) * 9999 / 262_142).to_string());
    }
    set("memory.max", spec.limits.memory_bytes.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string()));
    if spec.limits.memory_bytes.is_some() {
        // The container ends as a whole, and a limit is none if pages can leave for the swap.
        set("memory.oom.group", "1".to_owned());
        set("memory.swap.max", "0".to_owned());
    }
    settings
}

impl Group {
    /// Makes the group and goes into it, so that what is started next begins there.
    pub(super) fn enter(&self) -> Result<(), RuntimeError> {
        let io = |what: String| move |source| RuntimeError::Io { what, source };
        make_folder(&self.path).map_err(io(format!("creating the cgroup {}", self.path.display())))?;
        for (name, value) in &self.settings {
            match put(&self.path, name, value) {
                // A kernel without swap accounting has no such file.
                Err(error) if name == "memory.swap.max" && error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(io(format!("setting {name} of {} to {value}", self.path.display())))?,
            }
        }
        put(&self.path, "cgroup.procs", "0").map_err(io(format!("entering {}", self.path.display())))
    }

    /// Goes back to the other shims.
    pub(super) fn leave(&self) -> Result<(), RuntimeError> {
        let what = || format!("entering {}", self.shims.display());
        put(&self.shims, "cgroup.procs", "0").map_err(|source| RuntimeError::Io { what: what(), source })
    }

    /// How many processes ended because memory ran out.
    pub(super) fn out_of_memory_kills(&self) -> u64 {
        let events = std::fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        field(&events, "oom_kill").unwrap_or_default()
    }

    /// Ends whatever is left in it.
    pub(super) fn kill(&self) {
        end_all(&self.path);
    }
}

fn end_all(path: &Path) {
    if put(path, "cgroup.kill", "1").is_err() {
        return;
    }
    let deadline = Instant::now() + END_WITHIN;
    let is_populated =
        || std::fs::read_to_string(path.join("cgroup.events")).is_ok_and(|text| field(&text, "populated") != Some(0));
    while is_populated() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The number of a line `name number`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Resources;

    #[test]
    fn the_own_group_is_found_below_any_mount() {
        let unified = "24 1 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = own_group(unified, "0::/user.slice/a.scope\n");
        assert_eq!(found, Some(PathBuf::from("/sys/fs/cgroup/user.slice/a.scope")));
        let container = "24 1 0:22 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(own_group(container, "0::/docker/abc/x\n"), Some(PathBuf::from("/sys/fs/cgroup/x")));
        let hybrid =
            "1 1 0:1 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n2 1 0:2 / /sys/a\\040b rw - cgroup2 x rw\n";
        assert_eq!(own_group(hybrid, "2:cpu:/\n0::/\n"), Some(PathBuf::from("/sys/a b/")));
        assert_eq!(own_group("1 1 0:1 / /proc rw - proc proc rw\n", "0::/\n"), None);
    }

    #[test]
    fn what_is_missing_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("cgroup.controllers"), "hugetlb pids\n").expect("written");
        let why = prepare(folder.path(), 1).expect_err("no controllers");
        assert!(why.contains("no cpu and memory controllers"), "{why}");
        let why = prepare(&folder.path().join("none"), 1).expect_err("no group");
        assert!(why.contains("No such file"), "{why}");
    }

    #[test]
    fn limits_are_translated_as_kubernetes_does() {
        let mut spec = ContainerSpec {
            name: "c".to_owned(),
            image: String::new(),
            program: "c".into(),
            args: Vec::new(),
            env: std::collections::BTreeMap::new(),
            working_dir: None,
            requests: Resources { cpu_milli: Some(1000), memory_bytes: None },
            limits: Resources { cpu_milli: Some(250), memory_bytes: Some(64 << 20) },
            liveness: None,
            readiness: None,
            startup: None,
            pre_stop: None,
        };
        let written = |spec: &ContainerSpec| {
            settings(spec).into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            written(&spec),
            "cpu.max=25000 100000 cpu.weight=39 memory.max=67108864 memory.oom.group=1 memory.swap.max=0"
        );
        spec.limits = Resources::default();
        spec.requests = Resources::default();
        assert_eq!(written(&spec), "cpu.max=max memory.max=max");
    }
}
