//! A slow link: each direction has a rate limit, which all connections share, and a delay.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// The unit in which connections take turns, in bytes.
const CHUNK: usize = 2 * 1024;

/// The most time that the link may catch up after a late timer.
const CATCH_UP_MAX: Duration = Duration::from_millis(20);

/// A link to a broker or another server. It is cut when dropped.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    /// The directions to the clients and to the broker.
    lines: [Arc<Line>; 2],
    _tasks: JoinSet<()>,
}

/// One direction, which all connections share.
#[derive(Debug)]
struct Line {
    /// In bytes per second.
    rate: AtomicU64,
    /// In microseconds.
    delay: AtomicU64,
    carried: AtomicU64,
    /// When it has carried all bytes so far.
    free: Mutex<Instant>,
}

impl Link {
    /// A link to `server` that carries `rate` bytes per second in each direction, with a delay.
    pub async fn to(server: SocketAddr, rate: u64, delay: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address");
        let lines = [
            Arc::new(Line::new(rate, delay)),
            Arc::new(Line::new(rate, delay)),
        ];
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, lines.clone()));
        Self {
            address,
            lines,
            _tasks: tasks,
        }
    }

    /// The address for clients of the link.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for clients of a link to a broker.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Sets the rate, in bytes per second.
    pub fn set_rate(&self, rate: u64) {
        for line in &self.lines {
            line.rate.store(rate, Ordering::Relaxed);
        }
    }

    /// Sets the delay of what has not left yet.
    pub fn set_delay(&self, delay: Duration) {
        for line in &self.lines {
            line.delay.store(micros(delay), Ordering::Relaxed);
        }
    }

    /// The bytes carried to clients so far.
    pub fn carried(&self) -> u64 {
        self.lines[0].carried.load(Ordering::Relaxed)
    }
}

impl Line {
    fn new(rate: u64, delay: Duration) -> Self {
        Self {
            rate: AtomicU64::new(rate),
            delay: AtomicU64::new(micros(delay)),
            carried: AtomicU64::new(0),
            free: Mutex::new(Instant::now()),
        }
    }

    fn delay(&self) -> Duration {
        Duration::from_micros(self.delay.load(Ordering::Relaxed))
    }

    /// Takes up `bytes` more; returns when they have been carried.
    fn carry(&self, bytes: usize) -> Instant {
        let rate = self.rate.load(Ordering::Relaxed);
        let bytes = bytes as u64;
        let takes = Duration::from_nanos(bytes * 1_000_000_000 / rate);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        *free = (*free).max(Instant::now() - CATCH_UP_MAX) + takes;
        self.carried.fetch_add(bytes, Ordering::Relaxed);
        *free
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

async fn accept(listener: TcpListener, server: SocketAddr, lines: [Arc<Line>; 2]) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        // If the server refuses, the client's connection ends.
        let Ok(server) = TcpStream::connect(server).await else {
            continue;
        };
        let [down, up] = lines.clone();
        connections.spawn(async move {
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::select! {
                () = convey(from_client, to_server, &up) => {}
                () = convey(from_server, to_client, &down) => {}
            }
        });
    }
}

/// Conveys bytes until one end closes. Each chunk leaves when the line is free, and arrives after
/// the delay. Nothing else is read until the chunk has left.
async fn convey(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, line: &Line) {
    let (sender, mut under_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let leave = async {
        let mut chunk = vec![0; CHUNK];
        while let Ok(bytes @ 1..) = from.read(&mut chunk).await {
            let left = line.carry(bytes);
            sleep_until(left).await;
            if sender
                .send((left + line.delay(), chunk[..bytes].to_vec()))
                .is_err()
            {
                break;
            }
        }
    };
    let arrive = async {
        while let Some((due, bytes)) = under_way.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = leave => {}
        () = arrive => {}
    }
}
