//! What the kernel tells of processes, and signals to groups of them.

use rustix::process::{Pid, Signal};

use super::files::Run;

/// One line of `/proc/<pid>/stat` (proc(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub pid: u32,
    pub parent: u32,
    pub group: u32,
    /// CPU time of the process and of the children that it has waited for, in ticks.
    pub cpu_ticks: u64,
    pub start_ticks: u64,
    pub resident_pages: u64,
}

pub(super) fn stat(pid: u32) -> Option<Stat> {
    parse(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(pid: u32, text: &str) -> Option<Stat> {
    // The name stands in parentheses and may hold any character.
    let rest = &text[text.rfind(')')? + 1..];
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
    let ticks = |number| field(number).and_then(|value| u64::try_from(value).ok());
    Some(Stat {
        pid,
        parent: u32::try_from(field(4)?).ok()?,
        group: u32::try_from(field(5)?).ok()?,
        cpu_ticks: ticks(14)? + ticks(15)? + ticks(16)? + ticks(17)?,
        start_ticks: ticks(22)?,
        resident_pages: ticks(24)?,
    })
}

pub(super) fn start_ticks(pid: u32) -> Option<u64> {
    stat(pid).map(|stat| stat.start_ticks)
}

/// Every process of the host.
pub(super) fn all() -> Vec<Stat> {
    let Ok(items) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = items.filter_map(|item| item.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(stat).collect()
}

/// Sends a signal to the group that a run leads; nothing where the process is another by now.
pub(super) fn signal(run: &Run, signal: Signal) {
    if start_ticks(run.pid) != Some(run.start_ticks) {
        return;
    }
    if let Some(group) = i32::try_from(run.pid).ok().and_then(Pid::from_raw) {
        // A group that ended in between is what was wanted.
        let _ = rustix::process::kill_process_group(group, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_moves_no_field() {
        let line = "7 (a) b (c) S 3 7 7 0 -1 4194560 9 8 7 6 11 12 13 14 20 0 1 0 4242 1000 33 18446744073709551615";
        let found = parse(7, line).expect("a line");
        assert_eq!(found, Stat { pid: 7, parent: 3, group: 7, cpu_ticks: 50, start_ticks: 4242, resident_pages: 33 });
        assert_eq!(parse(7, "nothing"), None);
    }
}
