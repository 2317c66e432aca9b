//! Probes of a container, with Kubernetes's rules.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::files::Run;
use crate::runtime::{ContainerSpec, Probe, ProbeAction};

/// Asks until the liveness (or startup) probe fails, which ends the future; tells readiness as it changes.
pub(super) async fn watch(spec: &ContainerSpec, _run: &Run, set_ready: impl Fn(bool)) {
    if let Some(startup) = &spec.startup {
        tokio::time::sleep(startup.initial_delay).await;
        let mut failures = 0;
        while !check(startup, spec).await {
            failures += 1;
            if failures >= startup.failure_threshold {
                return;
            }
            tokio::time::sleep(startup.period).await;
        }
        if spec.readiness.is_none() {
            set_ready(true);
        }
    }
    let readiness = async {
        let Some(probe) = &spec.readiness else { return std::future::pending().await };
        follow(probe, spec, false, &set_ready).await
    };
    let liveness = async {
        let Some(probe) = &spec.liveness else { return std::future::pending().await };
        let (failed, mut has_failed) = tokio::sync::watch::channel(false);
        let told = |is_alive: bool| {
            failed.send_replace(!is_alive);
        };
        tokio::select! {
            () = follow(probe, spec, true, &told) => {}
            _ = has_failed.wait_for(|failed| *failed) => {}
        }
    };
    tokio::select! {
        () = readiness => {}
        () = liveness => {}
    }
}

/// Asks for ever, and tells each turn from succeeding to failing and back.
async fn follow(probe: &Probe, spec: &ContainerSpec, mut is_good: bool, told: &impl Fn(bool)) {
    tokio::time::sleep(probe.initial_delay).await;
    let mut in_a_row = 0;
    let mut ticks = tokio::time::interval(probe.period.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if check(probe, spec).await == is_good {
            in_a_row = 0;
            continue;
        }
        in_a_row += 1;
        let threshold = if is_good { probe.failure_threshold } else { probe.success_threshold };
        if in_a_row >= threshold.max(1) {
            is_good = !is_good;
            in_a_row = 0;
            told(is_good);
        }
    }
}

async fn check(probe: &Probe, spec: &ContainerSpec) -> bool {
    tokio::time::timeout(probe.timeout, act(&probe.action, spec, probe.timeout)).await.unwrap_or(false)
}

/// Does it once; whether it went well.
pub(super) async fn act(action: &ProbeAction, spec: &ContainerSpec, timeout: Duration) -> bool {
    match action {
        ProbeAction::HttpGet { host, port, path, headers, is_https } => {
            if *is_https {
                // As Kubernetes does it, the certificate is not looked at: an accepted connection is what is left to ask for.
                return TcpStream::connect((host.as_str(), *port)).await.is_ok();
            }
            http_get(host, *port, path, headers).await.is_some_and(|status| (200..400).contains(&status))
        }
        ProbeAction::TcpSocket { host, port } => TcpStream::connect((host.as_str(), *port)).await.is_ok(),
        ProbeAction::Grpc { host, port, .. } => TcpStream::connect((host.as_str(), *port)).await.is_ok(),
        ProbeAction::Exec { command } => exec(command, spec).await,
        ProbeAction::Sleep { duration } => {
            tokio::time::sleep((*duration).min(timeout)).await;
            true
        }
    }
}

/// The status of one GET; the body is not read.
async fn http_get(host: &str, port: u16, path: &str, headers: &[(String, String)]) -> Option<u16> {
    let mut stream = TcpStream::connect((host, port)).await.ok()?;
    let mut request =
        format!("GET {path} HTTP/1.1\r\nConnection: close\r\nUser-Agent: kube-probe/1.34\r\nAccept: */*\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request.push_str(&format!("Host: {host}:{port}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut line = String::new();
    BufReader::new(tokio::io::AsyncReadExt::take(stream, 1024)).read_line(&mut line).await.ok()?;
    line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.trim().parse().ok()
}

async fn exec(command: &[String], spec: &ContainerSpec) -> bool {
    let Some((program, args)) = command.split_first() else { return false };
    let mut process = tokio::process::Command::new(program);
    process
        .args(args)
        .env_clear()
        .envs(std::env::var("PATH").map(|path| ("PATH".to_owned(), path)))
        .envs(&spec.env)
        .kill_on_drop(true);
    if let Some(folder) = &spec.working_dir {
        process.current_dir(folder);
    }
    process.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    process.status().await.is_ok_and(|status| status.success())
}
