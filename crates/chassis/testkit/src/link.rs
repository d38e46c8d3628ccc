//! A slow link: each way carries no more than its rate, whatever the number of connections, and
//! takes a delay.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// What is carried at a time, in bytes: connections take turns with these.
const CHUNK: usize = 2 * 1024;

/// How far the link may catch up where a timer was late.
const CATCH_UP_MAX: Duration = Duration::from_millis(20);

/// A link to a broker. It is cut when dropped.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    /// To clients, and to the broker.
    lines: [Arc<Line>; 2],
    _tasks: JoinSet<()>,
}

/// One way, which all connections share.
#[derive(Debug)]
struct Line {
    /// In bytes a second.
    rate: AtomicU64,
    delay: Duration,
    carried: AtomicU64,
    /// When it has carried all that it was given.
    free: Mutex<Instant>,
}

impl Link {
    /// A link to `broker` that carries `rate` bytes a second each way, with a delay.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn to(broker: SocketAddr, rate: u64, delay: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address");
        let lines = [
            Arc::new(Line::new(rate, delay)),
            Arc::new(Line::new(rate, delay)),
        ];
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, broker, lines.clone()));
        Self {
            address,
            lines,
            _tasks: tasks,
        }
    }

    /// Where clients find the broker.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Carries `rate` bytes a second from now on.
    pub fn set_rate(&self, rate: u64) {
        for line in &self.lines {
            line.rate.store(rate, Ordering::Relaxed);
        }
    }

    /// How many bytes it has carried to clients.
    pub fn carried(&self) -> u64 {
        self.lines[0].carried.load(Ordering::Relaxed)
    }
}

impl Line {
    fn new(rate: u64, delay: Duration) -> Self {
        Self {
            rate: AtomicU64::new(rate),
            delay,
            carried: AtomicU64::new(0),
            free: Mutex::new(Instant::now()),
        }
    }

    /// When `bytes` more are carried.
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

async fn accept(listener: TcpListener, broker: SocketAddr, lines: [Arc<Line>; 2]) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        // Refused as the broker refuses: the client sees a connection that ends.
        let Ok(server) = TcpStream::connect(broker).await else {
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

/// Conveys bytes until one end closes; each chunk leaves when the line is free, and arrives after
/// its delay. No more is read meanwhile.
async fn convey(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, line: &Line) {
    let (sender, mut under_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let leave = async {
        let mut chunk = vec![0; CHUNK];
        while let Ok(bytes @ 1..) = from.read(&mut chunk).await {
            let left = line.carry(bytes);
            sleep_until(left).await;
            if sender
                .send((left + line.delay, chunk[..bytes].to_vec()))
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
