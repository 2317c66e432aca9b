//! Sends generated requests over a few connections, each the next one as soon as the last is acknowledged.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;

/// Where to send what.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The address of the signal, as `http://127.0.0.1:4318/v1/logs`.
    #[arg(long)]
    url: String,
    /// A header that carries the key, as `x-api-key=tm_…`.
    #[arg(long)]
    header: Option<String>,
    /// A file that `generate` wrote.
    #[arg(long)]
    file: PathBuf,
    /// Requests in flight.
    #[arg(long, default_value_t = 4)]
    connections: usize,
}

/// Sends the whole file and says how long it took.
pub async fn run(options: &Options) -> anyhow::Result<String> {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>(options.connections * 2);
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    let (sent, retried) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let client = reqwest::Client::builder().no_proxy().build()?;
    let began = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..options.connections {
        let (receiver, client, url) = (Arc::clone(&receiver), client.clone(), options.url.clone());
        let (header, sent, retried) = (options.header.clone(), Arc::clone(&sent), Arc::clone(&retried));
        workers.spawn(async move {
            loop {
                let Some(body) = receiver.lock().await.recv().await else { return anyhow::Ok(()) };
                // Cheap to send again.
                let body = Bytes::from(body);
                while !send(&client, &url, header.as_deref(), body.clone()).await? {
                    retried.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let path = options.file.clone();
    let reader = tokio::task::spawn_blocking(move || read_requests(&path, &sender));
    reader.await??;
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    let report = json!({"requests": sent.load(Ordering::Relaxed), "retries": retried.load(Ordering::Relaxed),
        "seconds": began.elapsed().as_secs_f64()});
    Ok(report.to_string())
}

fn read_requests(path: &PathBuf, sender: &mpsc::Sender<Vec<u8>>) -> anyhow::Result<()> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).with_context(|| path.display().to_string())?);
    loop {
        let mut length = [0; 4];
        match file.read_exact(&mut length) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            result => result?,
        }
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        file.read_exact(&mut body).context("the file ends inside a request")?;
        if sender.blocking_send(body).is_err() {
            bail!("the senders ended early");
        }
    }
}

/// Whether it was acknowledged; `false` asks to come again later.
async fn send(client: &reqwest::Client, url: &str, header: Option<&str>, body: Bytes) -> anyhow::Result<bool> {
    let mut request = client.post(url).header("content-type", "application/x-protobuf").body(body);
    if let Some((name, value)) = header.and_then(|header| header.split_once('=')) {
        request = request.header(name, value);
    }
    let answer = request.send().await?;
    match answer.status().as_u16() {
        200 => Ok(true),
        429 | 502 | 503 | 504 => Ok(false),
        status => bail!("{url}: {status} {}", answer.text().await?),
    }
}
