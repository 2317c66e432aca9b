//! Replicas as real processes. This program is the shim of what it starts, so it has a `main` of its own.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use libtest_mimic::{Arguments, Failed, Trial};
use tidemill_fleet::export::{Exporter, Sink, SinkError};
use tidemill_fleet::local::{LocalOptions, LocalRuntime, shim};
use tidemill_fleet::runtime::{
    ContainerSpec, ContainerState, LogOptions, Probe, ProbeAction, ReplicaPhase, ReplicaSpec, ReplicaStatus, Resources,
    RestartPolicy, Runtime as _,
};
use tidemill_fleet::storage::Storage;
use tidemill_types::Signal;
use tokio_util::sync::CancellationToken;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == shim::COMMAND) {
        std::process::exit(i32::from(shim::main(arguments)));
    }
    let trials = vec![
        Trial::test("ends_are_told_with_code_and_output", || run(ends_are_told_with_code_and_output)),
        Trial::test("a_stop_is_polite_first_and_takes_the_whole_tree", || {
            run(a_stop_is_polite_first_and_takes_the_whole_tree)
        }),
        Trial::test("what_ended_badly_is_started_again_later_and_later", || {
            run(what_ended_badly_is_started_again_later_and_later)
        }),
        Trial::test("another_server_adopts_and_starts_no_second_copy", adoption),
        Trial::test("a_killed_shim_is_no_lost_replica", || run(a_killed_shim_is_no_lost_replica)),
        Trial::test("probes_decide_on_ready_and_alive", || run(probes_decide_on_ready_and_alive)),
        Trial::test("limits_and_deadlines_end_a_replica_with_a_reason", || {
            run(limits_and_deadlines_end_a_replica_with_a_reason)
        }),
        Trial::test("usage_counts_the_whole_tree", || run(usage_counts_the_whole_tree)),
        Trial::test("what_leaves_its_parent_ends_with_the_container", || {
            run(what_leaves_its_parent_ends_with_the_container)
        }),
        Trial::test("every_line_is_told_once", || run(every_line_is_told_once)),
        Trial::test("metrics_have_the_names_of_kubernetes", || run(metrics_have_the_names_of_kubernetes)),
        Trial::test("init_containers_come_first_and_in_order", || run(init_containers_come_first_and_in_order)),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(LocalRuntime, tempfile::TempDir) -> F) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let tokio = tokio::runtime::Runtime::new()?;
    tokio.block_on(async {
        let runtime = open(folder.path());
        test(runtime, folder).await;
    });
    Ok(())
}

fn open(folder: &Path) -> LocalRuntime {
    let options = LocalOptions {
        back_off: Duration::from_millis(50),
        back_off_most: Duration::from_millis(200),
        measure_every: Duration::from_millis(50),
        ..LocalOptions::new(folder.join("replicas")).expect("this program")
    };
    LocalRuntime::open(options).expect("a runtime")
}

fn shell(name: &str, script: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.to_owned(),
        image: "sh".to_owned(),
        program: "sh".into(),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
        working_dir: None,
        requests: Resources::default(),
        limits: Resources::default(),
        liveness: None,
        readiness: None,
        startup: None,
        pre_stop: None,
    }
}

fn replica(uid: &str, restart_policy: RestartPolicy, container: ContainerSpec) -> ReplicaSpec {
    ReplicaSpec {
        uid: uid.to_owned(),
        namespace: "default".to_owned(),
        name: uid.to_owned(),
        workload_kind: "Job".to_owned(),
        workload: "test".to_owned(),
        owner_uid: "owner".to_owned(),
        template: String::new(),
        attempt: 1,
        address: Ipv4Addr::LOCALHOST,
        labels: BTreeMap::new(),
        init_containers: Vec::new(),
        containers: vec![container],
        restart_policy,
        grace_period: Duration::from_secs(20),
        active_deadline: None,
    }
}

/// Waits until `uid` is as `is_so` says.
async fn until(runtime: &LocalRuntime, uid: &str, is_so: impl Fn(&ReplicaStatus) -> bool) -> ReplicaStatus {
    let mut changes = runtime.changes();
    let wait = async {
        loop {
            let found = runtime.replicas().into_iter().find(|status| status.spec.uid == uid);
            if let Some(status) = found.filter(|status| is_so(status)) {
                return status;
            }
            changes.changed().await.expect("a runtime");
        }
    };
    let Ok(status) = tokio::time::timeout(Duration::from_secs(20), wait).await else {
        panic!("{uid} never came so far: {:#?}", runtime.replicas());
    };
    status
}

async fn printed(runtime: &LocalRuntime, uid: &str, options: LogOptions) -> String {
    let lines: Vec<_> = runtime.logs(uid, options).await.expect("a log").collect().await;
    lines.into_iter().map(|line| String::from_utf8_lossy(&line.expect("a line")).into_owned()).collect()
}

fn pid_of(status: &ReplicaStatus) -> u32 {
    match status.containers[0].state {
        ContainerState::Running { pid, .. } => pid,
        ref other => panic!("it does not run: {other:?}"),
    }
}

fn is_running(status: &ReplicaStatus) -> bool {
    matches!(status.containers[0].state, ContainerState::Running { .. })
}

fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn ends_are_told_with_code_and_output(runtime: LocalRuntime, _folder: tempfile::TempDir) {
    let script = "echo $GREETING; echo to stderr >&2; test -z \"$CARGO_MANIFEST_DIR\" && exit 3";
    runtime.start(replica("bad", RestartPolicy::Never, shell("c", script))).await.expect("started");
    runtime.start(replica("bad", RestartPolicy::Never, shell("c", "echo twice"))).await.expect("nothing");
    let status = until(&runtime, "bad", |status| status.phase == ReplicaPhase::Failed).await;
    let ContainerState::Ended(end) = &status.containers[0].state else { panic!("{status:?}") };
    assert_eq!((end.exit_code, end.signal, end.reason.as_str()), (3, None, "Error"));
    let all = printed(&runtime, "bad", LogOptions::default()).await;
    let mut lines: Vec<&str> = all.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["hello", "to stderr"]);
    let last = printed(&runtime, "bad", LogOptions { tail: Some(1), timestamps: true, ..LogOptions::default() }).await;
    assert!(last.starts_with("20") && last.lines().count() == 1, "{last}");

    let mut missing = shell("c", "");
    missing.program = "/no/such/program".into();
    runtime.start(replica("missing", RestartPolicy::Never, missing)).await.expect("started");
    let status = until(&runtime, "missing", |status| status.phase == ReplicaPhase::Failed).await;
    assert_eq!(status.reason.as_deref(), Some("CannotStart"));
    assert!(status.message.as_deref().is_some_and(|message| message.contains("No such file")), "{status:?}");

    runtime.start(replica("good", RestartPolicy::OnFailure, shell("c", "true"))).await.expect("started");
    until(&runtime, "good", |status| status.phase == ReplicaPhase::Succeeded).await;
    runtime.remove("good").await.expect("removed");
    assert!(runtime.replicas().iter().all(|status| status.spec.uid != "good"));
}

async fn a_stop_is_polite_first_and_takes_the_whole_tree(runtime: LocalRuntime, _folder: tempfile::TempDir) {
    let script = "sleep 1000 & echo child $!; trap 'echo bye; exit 0' TERM; while :; do wait; done";
    runtime.start(replica("polite", RestartPolicy::Always, shell("c", script))).await.expect("started");
    let mut log = runtime.logs("polite", LogOptions { follow: true, ..LogOptions::default() }).await.expect("a log");
    // The log is there once the container is.
    until(&runtime, "polite", is_running).await;
    let mut text = String::new();
    while !text.contains('\n') {
        match log.next().await {
            Some(line) => text.push_str(&String::from_utf8_lossy(&line.expect("a line"))),
            None => {
                log = runtime.logs("polite", LogOptions { follow: true, ..LogOptions::default() }).await.expect("a log")
            }
        }
    }
    let child: u32 = text.trim().rsplit(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
    assert!(is_alive(child));
    runtime.stop("polite", None).await.expect("asked");
    let status = until(&runtime, "polite", |status| status.phase == ReplicaPhase::Succeeded).await;
    assert!(status.is_stopping);
    assert!(printed(&runtime, "polite", LogOptions::default()).await.contains("bye"));
    assert!(!is_alive(child), "a child was left behind");

    runtime
        .start(replica("deaf", RestartPolicy::Always, shell("c", "trap '' TERM; while :; do sleep 0.1; done")))
        .await
        .expect("started");
    let pid = pid_of(&until(&runtime, "deaf", is_running).await);
    runtime.stop("deaf", Some(Duration::from_millis(100))).await.expect("asked");
    let status = until(&runtime, "deaf", |status| status.phase == ReplicaPhase::Failed).await;
    let ContainerState::Ended(end) = &status.containers[0].state else { panic!("{status:?}") };
    assert_eq!((end.exit_code, end.signal), (137, Some(9)));
    assert!(!is_alive(pid));
}

async fn what_ended_badly_is_started_again_later_and_later(runtime: LocalRuntime, _folder: tempfile::TempDir) {
    runtime.start(replica("crash", RestartPolicy::Always, shell("c", "echo run; exit 1"))).await.expect("started");
    let status = until(&runtime, "crash", |status| status.reason.as_deref() == Some("CrashLoopBackOff")).await;
    assert_eq!(status.phase, ReplicaPhase::Running);
    assert!(!status.is_ready);
    let status = until(&runtime, "crash", |status| status.containers[0].restarts >= 3).await;
    assert_eq!(status.containers[0].last_end.as_ref().map(|end| end.exit_code), Some(1));
    let before = printed(&runtime, "crash", LogOptions { previous: true, ..LogOptions::default() }).await;
    assert_eq!(before, "run\n");
    runtime.stop("crash", Some(Duration::ZERO)).await.expect("asked");
    until(&runtime, "crash", |status| status.phase == ReplicaPhase::Failed).await;
}

fn adoption() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let count = folder.path().join("count");
    let script = format!("echo one >> {}; sleep 0.6; exit 7", count.display());
    let first = tokio::runtime::Runtime::new()?;
    let pid = first.block_on(async {
        let runtime = open(folder.path());
        runtime.start(replica("kept", RestartPolicy::Never, shell("c", &script))).await.expect("started");
        runtime.start(replica("long", RestartPolicy::Always, shell("c", "sleep 1000"))).await.expect("started");
        until(&runtime, "kept", is_running).await;
        pid_of(&until(&runtime, "long", is_running).await)
    });
    // Every task goes without a chance to do anything, as in a process that is killed.
    first.shutdown_background();
    tokio::runtime::Runtime::new()?.block_on(async {
        let runtime = open(folder.path());
        assert_eq!(pid_of(&until(&runtime, "long", is_running).await), pid);
        let status = until(&runtime, "kept", |status| status.phase == ReplicaPhase::Failed).await;
        let ContainerState::Ended(end) = &status.containers[0].state else { panic!("{status:?}") };
        assert_eq!(end.exit_code, 7);
        assert_eq!(std::fs::read_to_string(&count).expect("counted"), "one\n");
        runtime.stop("long", Some(Duration::ZERO)).await.expect("asked");
        until(&runtime, "long", |status| status.phase == ReplicaPhase::Failed).await;
        assert!(!is_alive(pid));
    });
    // What has ended is known to have ended.
    tokio::runtime::Runtime::new()?.block_on(async {
        let runtime = open(folder.path());
        assert!(runtime.replicas().iter().all(|status| status.phase == ReplicaPhase::Failed));
        assert_eq!(std::fs::read_to_string(&count).expect("counted"), "one\n");
    });
    Ok(())
}

async fn a_killed_shim_is_no_lost_replica(runtime: LocalRuntime, _folder: tempfile::TempDir) {
    runtime.start(replica("shimless", RestartPolicy::Never, shell("c", "sleep 1000"))).await.expect("started");
    let pid = pid_of(&until(&runtime, "shimless", is_running).await);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its stat");
    let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)).expect("a parent").to_owned();
    assert!(std::process::Command::new("kill").args(["-9", &parent]).status().expect("kill").success());
    let status = until(&runtime, "shimless", |status| status.phase == ReplicaPhase::Failed).await;
    assert_eq!(status.reason.as_deref(), Some("Lost"));
}

async fn probes_decide_on_ready_and_alive(runtime: LocalRuntime, folder: tempfile::TempDir) {
    let (ready, dead) = (folder.path().join("ready"), folder.path().join("dead"));
    let probe = |script: String, failure_threshold| {
        Some(Probe {
            action: ProbeAction::Exec { command: vec!["sh".to_owned(), "-c".to_owned(), script] },
            initial_delay: Duration::ZERO,
            period: Duration::from_millis(20),
            timeout: Duration::from_secs(5),
            success_threshold: 1,
            failure_threshold,
        })
    };
    let mut container = shell("c", "sleep 1000");
    container.readiness = probe(format!("test -e {}", ready.display()), 1);
    container.liveness = probe(format!("test ! -e {}", dead.display()), 2);
    let mut replica = replica("probed", RestartPolicy::Always, container);
    replica.grace_period = Duration::ZERO;
    runtime.start(replica).await.expect("started");
    let status = until(&runtime, "probed", is_running).await;
    assert!(!status.is_ready);
    std::fs::write(&ready, "").expect("written");
    until(&runtime, "probed", |status| status.is_ready).await;
    std::fs::remove_file(&ready).expect("removed");
    until(&runtime, "probed", |status| !status.is_ready).await;
    std::fs::write(&dead, "").expect("written");
    until(&runtime, "probed", |status| status.containers[0].restarts > 0).await;
    runtime.stop("probed", Some(Duration::ZERO)).await.expect("asked");
    until(&runtime, "probed", |status| status.phase == ReplicaPhase::Failed).await;
}

async fn limits_and_deadlines_end_a_replica_with_a_reason(runtime: LocalRuntime, _folder: tempfile::TempDir) {
    let mut greedy = shell("c", "x=$(head -c 60000000 /dev/zero | tr '\\0' x); sleep 1000");
    greedy.limits.memory_bytes = Some(20_000_000);
    runtime.start(replica("greedy", RestartPolicy::Never, greedy)).await.expect("started");
    let status = until(&runtime, "greedy", |status| status.phase == ReplicaPhase::Failed).await;
    assert_eq!(status.reason.as_deref(), Some("OOMKilled"));

    let mut slow = replica("slow", RestartPolicy::Never, shell("c", "sleep 1000"));
    slow.active_deadline = Some(Duration::from_millis(100));
    slow.grace_period = Duration::from_millis(100);
    runtime.start(slow).await.expect("started");
    let status = until(&runtime, "slow", |status| status.phase == ReplicaPhase::Failed).await;
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
}

async fn usage_counts_the_whole_tree(runtime: LocalRuntime, _folder: tempfile::TempDir) {
    let script = "sh -c 'while :; do :; done'";
    runtime.start(replica("busy", RestartPolicy::Never, shell("c", script))).await.expect("started");
    until(&runtime, "busy", is_running).await;
    let busy = async {
        loop {
            let found = runtime.usage("busy").filter(|usage| usage.cpu_seconds["c"] > 0.1);
            if let Some(usage) = found {
                return usage;
            }
            tokio::task::yield_now().await;
        }
    };
    let usage = tokio::time::timeout(Duration::from_secs(20), busy).await.expect("CPU is measured");
    assert!(usage.containers["c"].memory_bytes.is_some_and(|bytes| bytes > 100_000), "{usage:?}");
    runtime.stop("busy", Some(Duration::ZERO)).await.expect("asked");
    until(&runtime, "busy", |status| status.phase == ReplicaPhase::Failed).await;
}

async fn init_containers_come_first_and_in_order(runtime: LocalRuntime, folder: tempfile::TempDir) {
    let path = folder.path().join("order");
    let mut spec = replica("ordered", RestartPolicy::Never, shell("main", &format!("echo main >> {}", path.display())));
    spec.init_containers =
        ["one", "two"].map(|name| shell(name, &format!("echo {name} >> {}", path.display()))).to_vec();
    runtime.start(spec).await.expect("started");
    until(&runtime, "ordered", |status| status.phase == ReplicaPhase::Succeeded).await;
    assert_eq!(std::fs::read_to_string(&path).expect("written"), "one\ntwo\nmain\n");
}

async fn what_leaves_its_parent_ends_with_the_container(runtime: LocalRuntime, folder: tempfile::TempDir) {
    let path = folder.path().join("pid");
    let escapes = format!("(setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000' &) ; ", path.display());
    let script = format!("{escapes} while ! test -e {}; do sleep 0.01; done; exit 4", path.display());
    runtime.start(replica("escaping", RestartPolicy::Never, shell("c", &script))).await.expect("started");
    let status = until(&runtime, "escaping", |status| status.phase == ReplicaPhase::Failed).await;
    let ContainerState::Ended(end) = &status.containers[0].state else { panic!("{status:?}") };
    assert_eq!(end.exit_code, 4);
    let pid: u32 = std::fs::read_to_string(&path).expect("a pid").trim().parse().expect("a number");
    assert!(!is_alive(pid), "a process in a session of its own was left behind");
}

/// Takes requests; each second one only after it was told to come again, as after a lost answer.
#[derive(Debug, Default)]
struct Taken {
    asked: AtomicUsize,
    logs: Mutex<BTreeMap<String, serde_json::Value>>,
    metrics: Mutex<Vec<serde_json::Value>>,
    changed: tokio::sync::Notify,
}

#[async_trait::async_trait]
impl Sink for Taken {
    async fn take(&self, signal: Signal, key: Option<&str>, body: bytes::Bytes) -> Result<(), SinkError> {
        let value: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let is_answered = self.asked.fetch_add(1, Ordering::SeqCst) % 2 == 1;
        match (signal, key) {
            (Signal::Logs, Some(key)) => {
                let known = self.logs.lock().expect("lock").insert(key.to_owned(), value.clone());
                assert!(known.is_none_or(|known| known == value), "the same key, and another request");
            }
            (Signal::Metrics, None) => self.metrics.lock().expect("lock").push(value),
            other => panic!("{other:?}"),
        }
        self.changed.notify_one();
        if is_answered || signal == Signal::Metrics { Ok(()) } else { Err(SinkError::Later("lost".to_owned())) }
    }
}

impl Taken {
    fn lines(&self) -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| value["stringValue"].as_str().unwrap_or_default().to_owned();
        let mut lines = Vec::new();
        for request in self.logs.lock().expect("lock").values() {
            for resource in request["resourceLogs"].as_array().into_iter().flatten() {
                let attributes = resource["resource"]["attributes"].as_array().cloned().unwrap_or_default();
                let pod = attributes.iter().find(|one| one["key"] == "k8s.pod.name").map(|one| text(&one["value"]));
                for record in resource["scopeLogs"][0]["logRecords"].as_array().into_iter().flatten() {
                    lines.push((pod.clone().unwrap_or_default(), text(&record["body"])));
                }
            }
        }
        lines.sort();
        lines
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let wait = async {
            while !is_so(self) {
                self.changed.notified().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), wait).await;
        assert!(
            waited.is_ok(),
            "it never came so far: {:?} {:?}",
            self.lines(),
            self.metrics.lock().expect("lock").len()
        );
    }
}

fn lines(pod: &str, numbers: impl Iterator<Item = u32>) -> Vec<(String, String)> {
    let mut lines: Vec<_> = numbers.map(|number| (pod.to_owned(), format!("line {number}"))).collect();
    lines.sort();
    lines
}

async fn every_line_is_told_once(runtime: LocalRuntime, folder: tempfile::TempDir) {
    let storage = Arc::new(Storage::open(folder.path()).expect("a storage"));
    let pending = folder.path().join("export.json");
    let taken = Arc::new(Taken::default());
    let export = |stop: &CancellationToken| {
        let exporter = Exporter::new(runtime.clone(), storage.clone(), Arc::default(), pending.clone());
        tokio::spawn(exporter.run(taken.clone(), stop.clone()))
    };
    let go_on = folder.path().join("go");
    let script = format!(
        "for i in 1 2 3; do echo line $i; done; while ! test -e {}; do sleep 0.01; done; for i in 4 5; do echo line $i; done",
        go_on.display()
    );
    runtime.start(replica("told", RestartPolicy::Never, shell("c", &script))).await.expect("started");
    until(&runtime, "told", is_running).await;
    let first = export(&CancellationToken::new());
    taken.until(|taken| taken.lines() == lines("told", 1..=3)).await;
    // The exporter goes in the middle of a request that the sink has taken and not answered, as in a process that is killed.
    first.abort();
    let _ = first.await;
    std::fs::write(&go_on, "").expect("written");
    until(&runtime, "told", |status| status.phase == ReplicaPhase::Succeeded).await;
    // What is removed before it was read is read all the same.
    runtime.begin_reading();
    runtime.remove("told").await.expect("removed");
    assert!(runtime.replicas().is_empty());
    let stop = CancellationToken::new();
    let second = export(&stop);
    taken.until(|taken| taken.lines() == lines("told", 1..=5)).await;
    let is_gone = async {
        while folder.path().join("replicas/told").exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), is_gone).await.expect("what was read is let go");
    // The last lines are told when the process ends.
    runtime.start(replica("last", RestartPolicy::Never, shell("c", "echo line 9"))).await.expect("started");
    until(&runtime, "last", |status| status.phase == ReplicaPhase::Succeeded).await;
    stop.cancel();
    second.await.expect("ended");
    let mut all = lines("told", 1..=5);
    all.extend(lines("last", 9..=9));
    all.sort();
    assert_eq!(taken.lines(), all);
}

async fn metrics_have_the_names_of_kubernetes(runtime: LocalRuntime, folder: tempfile::TempDir) {
    let storage = Arc::new(Storage::open(folder.path()).expect("a storage"));
    let mut container = shell("c", "while :; do :; done");
    container.requests.cpu_milli = Some(250);
    runtime.start(replica("shown", RestartPolicy::Always, container)).await.expect("started");
    until(&runtime, "shown", is_running).await;
    let measured = async {
        while runtime.usage("shown").is_none_or(|usage| usage.cpu_seconds["c"] < 0.05) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), measured).await.expect("CPU is measured");
    let taken = Arc::new(Taken::default());
    let stop = CancellationToken::new();
    let exporter = Exporter::new(runtime.clone(), storage, Arc::default(), folder.path().join("export.json"));
    let exporting = tokio::spawn(exporter.run(taken.clone(), stop.clone()));
    taken.until(|taken| !taken.metrics.lock().expect("lock").is_empty()).await;
    stop.cancel();
    exporting.await.expect("ended");
    let requests = taken.metrics.lock().expect("lock").clone();
    let metrics = requests[0]["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().expect("metrics").clone();
    let point = |name: &str, kind: &str, label: (&str, &str)| {
        let metric = metrics.iter().find(|metric| metric["name"] == name).unwrap_or_else(|| panic!("no {name}"));
        let points = metric[kind]["dataPoints"].as_array().expect("points");
        let has = |point: &&serde_json::Value| {
            let labels = point["attributes"].as_array().expect("labels");
            labels.iter().any(|one| one["key"] == label.0 && one["value"]["stringValue"] == label.1)
        };
        points.iter().find(has).unwrap_or_else(|| panic!("no {label:?} of {name}"))["asDouble"]
            .as_f64()
            .expect("a number")
    };
    assert!(point("container_cpu_usage_seconds_total", "sum", ("pod", "shown")) >= 0.05);
    assert!(point("container_memory_working_set_bytes", "gauge", ("container", "c")) > 100_000.0);
    assert_eq!(point("kube_pod_status_phase", "gauge", ("phase", "Running")), 1.0);
    assert_eq!(point("kube_pod_status_phase", "gauge", ("phase", "Failed")), 0.0);
    assert_eq!(point("kube_pod_status_ready", "gauge", ("condition", "true")), 1.0);
    assert_eq!(point("kube_pod_container_resource_requests", "gauge", ("resource", "cpu")), 0.25);
    runtime.stop("shown", Some(Duration::ZERO)).await.expect("asked");
    until(&runtime, "shown", |status| status.phase == ReplicaPhase::Failed).await;
}
