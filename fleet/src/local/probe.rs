//! Probes of a container, with Kubernetes's rules.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::{grpc, tls};
use crate::runtime::{ContainerSpec, Probe, ProbeAction};

/// Asks until the liveness (or startup) probe fails, which ends the future; tells readiness as it changes. Commands run in `home` where the container names no folder.
pub(super) async fn watch(spec: &ContainerSpec, home: &Path, set_ready: impl Fn(bool)) {
    if let Some(startup) = &spec.startup {
        tokio::time::sleep(startup.initial_delay).await;
        let mut failures = 0;
        while !check(startup, spec, home).await {
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
        follow(probe, spec, home, false, &set_ready).await
    };
    let liveness = async {
        let Some(probe) = &spec.liveness else { return std::future::pending().await };
        let (failed, mut has_failed) = tokio::sync::watch::channel(false);
        let told = |is_alive: bool| {
            failed.send_replace(!is_alive);
        };
        tokio::select! {
            () = follow(probe, spec, home, true, &told) => {}
            _ = has_failed.wait_for(|failed| *failed) => {}
        }
    };
    tokio::select! {
        () = readiness => {}
        () = liveness => {}
    }
}

/// Asks for ever, and tells each turn from succeeding to failing and back.
async fn follow(probe: &Probe, spec: &ContainerSpec, home: &Path, mut is_good: bool, told: &impl Fn(bool)) {
    tokio::time::sleep(probe.initial_delay).await;
    let mut in_a_row = 0;
    let mut ticks = tokio::time::interval(probe.period.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if check(probe, spec, home).await == is_good {
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

async fn check(probe: &Probe, spec: &ContainerSpec, home: &Path) -> bool {
    tokio::time::timeout(probe.timeout, act(&probe.action, spec, home, probe.timeout)).await.unwrap_or(false)
}

/// Does it once; whether it went well.
pub(super) async fn act(action: &ProbeAction, spec: &ContainerSpec, home: &Path, timeout: Duration) -> bool {
    match action {
        ProbeAction::HttpGet { host, port, path, headers, is_https } => {
            let status = http_get(host, *port, path, headers, *is_https).await;
            status.is_some_and(|status| (200..400).contains(&status))
        }
        ProbeAction::TcpSocket { host, port } => TcpStream::connect((host.as_str(), *port)).await.is_ok(),
        ProbeAction::Grpc { host, port, service } => grpc::is_serving(host, *port, service).await.unwrap_or(false),
        ProbeAction::Exec { command } => exec(command, spec, home).await,
        ProbeAction::Sleep { duration } => {
            tokio::time::sleep((*duration).min(timeout)).await;
            true
        }
    }
}

/// The status of one GET; the body is not read.
async fn http_get(host: &str, port: u16, path: &str, headers: &[(String, String)], is_https: bool) -> Option<u16> {
    let stream = TcpStream::connect((host, port)).await.ok()?;
    let mut request =
        format!("GET {path} HTTP/1.1\r\nConnection: close\r\nUser-Agent: kube-probe/1.34\r\nAccept: */*\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request.push_str(&format!("Host: {host}:{port}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    if is_https { ask(tls::connect(host, stream).await?, &request).await } else { ask(stream, &request).await }
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Option<u16> {
    stream.write_all(request.as_bytes()).await.ok()?;
    stream.flush().await.ok()?;
    let mut line = String::new();
    BufReader::new(tokio::io::AsyncReadExt::take(stream, 1024)).read_line(&mut line).await.ok()?;
    line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.trim().parse().ok()
}

async fn exec(command: &[String], spec: &ContainerSpec, home: &Path) -> bool {
    let Some((program, args)) = command.split_first() else { return false };
    let mut process = tokio::process::Command::new(program);
    process
        .args(args)
        .env_clear()
        .envs(std::env::var("PATH").map(|path| ("PATH".to_owned(), path)))
        .envs(&spec.env)
        .kill_on_drop(true);
    process.current_dir(spec.working_dir.as_deref().unwrap_or(home));
    process.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    process.status().await.is_ok_and(|status| status.success())
}
