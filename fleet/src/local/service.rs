//! TCP listeners that spread connections over backends, which may change while they serve.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How long one backend may take to accept.
const CONNECT: Duration = Duration::from_secs(2);
/// Connections of one listener at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;

/// The listeners of a fleet.
#[derive(Debug, Default)]
pub struct Proxies {
    open: Mutex<BTreeMap<SocketAddr, Open>>,
}

#[derive(Debug)]
struct Open {
    backends: Arc<Backends>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Backends {
    list: Mutex<Vec<Backend>>,
    turn: AtomicUsize,
}

#[derive(Debug, Clone)]
struct Backend {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Proxies {
    /// Listens where `wanted` says and nowhere else, with these backends. What is connected goes on. Returns where it cannot listen, and why.
    pub async fn set(&self, wanted: &BTreeMap<SocketAddr, Vec<SocketAddr>>) -> BTreeMap<SocketAddr, String> {
        self.open.lock().retain(|address, open| {
            let is_wanted = wanted.contains_key(address);
            if !is_wanted {
                open.task.abort();
            }
            is_wanted
        });
        let mut failed = BTreeMap::new();
        for (address, backends) in wanted {
            if let Some(open) = self.open.lock().get(address) {
                open.backends.set(backends);
                continue;
            }
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    let shared = Arc::new(Backends::default());
                    shared.set(backends);
                    let task = tokio::spawn(serve(listener, shared.clone()));
                    self.open.lock().insert(*address, Open { backends: shared, task });
                }
                Err(error) => {
                    failed.insert(*address, error.to_string());
                }
            }
        }
        failed
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        self.open.lock().values().for_each(|open| open.task.abort());
    }
}

impl Backends {
    /// Those that stay keep their counts.
    fn set(&self, addresses: &[SocketAddr]) {
        let mut list = self.list.lock();
        let known = |address: &SocketAddr| list.iter().find(|backend| backend.address == *address).cloned();
        let next = addresses
            .iter()
            .map(|address| known(address).unwrap_or_else(|| Backend { address: *address, connections: Arc::default() }))
            .collect();
        *list = next;
    }

    /// Every backend, the one with the fewest connections first; equal ones take turns.
    fn in_order(&self) -> Vec<Backend> {
        let mut list = self.list.lock().clone();
        if !list.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % list.len();
            list.rotate_left(turn);
        }
        list.sort_by_key(|backend| backend.connections.load(Ordering::Relaxed));
        list
    }
}

async fn serve(listener: TcpListener, backends: Arc<Backends>) {
    let places = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let backends = backends.clone();
                tokio::spawn(async move {
                    carry(client, &backends).await;
                    drop(place);
                });
            }
            // Out of descriptors: those that end give some back.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn carry(mut client: TcpStream, backends: &Backends) {
    for backend in backends.in_order() {
        let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT, TcpStream::connect(backend.address)).await else {
            continue;
        };
        backend.connections.fetch_add(1, Ordering::Relaxed);
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        // Either side may end badly; the other is told by the end of its connection.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        backend.connections.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    tracing::debug!("a connection found no backend");
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn backend(name: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut asked = String::new();
                    stream.read_to_string(&mut asked).await.expect("a question");
                    stream.write_all(format!("{name}:{asked}").as_bytes()).await.expect("told");
                });
            }
        });
        address
    }

    async fn ask(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(b"hi").await.expect("asked");
        stream.shutdown().await.expect("half closed");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn connections_are_spread_and_a_dead_backend_is_passed_over() {
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
        let (a, b) = (backend("a").await, backend("b").await);
        let proxies = Proxies::default();
        let failed = proxies.set(&BTreeMap::from([(free, vec![a, gone, b])])).await;
        assert!(failed.is_empty(), "{failed:?}");
        let mut answers = Vec::new();
        for _ in 0..12 {
            answers.push(ask(free).await);
        }
        assert!(
            answers.iter().any(|answer| answer == "a:hi") && answers.iter().any(|answer| answer == "b:hi"),
            "{answers:?}"
        );
        assert!(answers.iter().all(|answer| !answer.is_empty()));
        proxies.set(&BTreeMap::from([(free, vec![b])])).await;
        for _ in 0..4 {
            assert_eq!(ask(free).await, "b:hi");
        }
        proxies.set(&BTreeMap::new()).await;
    }
}
