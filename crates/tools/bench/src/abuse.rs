//! Abuse: how attacks affect honest clients, and what they cost in memory.
//!
//! The attackers use a separate address. A closed attacker reconnects.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use rustix::process::setpriority_process;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::bench::Bench;
use crate::connection::Connection;
use crate::figure::{Figure, Table, Target};
use crate::load::{self, Load};
use crate::process::Process;
use crate::shop::{Shop, post_all, product, user};

/// The attackers' address.
const ATTACKERS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Requests of honest clients per second, each on a new connection.
const HONEST: u32 = 20;
/// Concurrent honest clients.
const CLIENTS: usize = 4;
/// The memory limit of a service, in MiB.
const MEMORY_MIB: f64 = 128.0;
/// The attackers' `nice` value: other processes get a core first.
const NICENESS: i32 = 19;
/// The pause of an attacker before it checks whether it is closed, and before it reconnects.
const PAUSE: Duration = Duration::from_millis(200);
/// The products of a large list.
const PRODUCTS: usize = 500;
/// Requests that a slow reader sends at once.
const PIPELINED: usize = 4;

/// Attackers of one kind.
struct Attack {
    name: &'static str,
    count: usize,
    /// The bytes that an attacker sends each time, by its number.
    request: Arc<dyn Fn(usize) -> Vec<u8> + Send + Sync>,
    /// Whether it reads the answers.
    reads: bool,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Figure> {
    headwater::http::raise_file_limit();
    let few = (50, 20, 10, 4);
    let many = (1_030, 300, 300, 40);
    let (readers, images, registering, different) = bench.form.pick(few, many, many);
    let columns = [
        ("p50 ms", 2),
        ("p99 ms", 2),
        ("undisturbed p50 ms", 2),
        ("undisturbed p99 ms", 2),
        ("peak MiB", 1),
    ];
    let mut figure = Figure::new(Table::new("attack", &columns));
    let shop = Shop::start(bench, &[]).await?;
    slow_readers(bench, &shop, readers, &mut figure).await?;
    unread_images(bench, &shop, (images, different), &mut figure).await?;
    registrations(bench, &shop, registering, &mut figure).await?;
    figure.note(format!("Honest clients: {HONEST} requests per second, each on a new connection from 127.0.0.1, for one product or one user. The attackers use {ATTACKERS}, and reconnect when they are closed."));
    figure.note(format!("Slow readers: {readers} connections that send {PIPELINED} GETs of {PRODUCTS} products and read nothing. Unread images: {images} connections that ask for a 2 MiB image, one of {different}, and read nothing. Registrations: {registering} connections that register users with passwords, one after the other."));
    figure.note("Load, attackers and service share the cores. Peak: the highest resident memory of the service's process.");
    Ok(figure)
}

async fn slow_readers(
    bench: &Bench,
    shop: &Shop,
    count: usize,
    figure: &mut Figure,
) -> anyhow::Result<()> {
    let products = shop.stage.start("products", "products-read", &[]).await?;
    let ids: Vec<_> = (0..PRODUCTS).map(|_| Uuid::now_v7()).collect();
    let bodies = ids.iter().map(|id| product(*id)).collect();
    post_all(&products, "/products", bodies).await?;
    let attack = Attack {
        name: "slow readers",
        count,
        request: Arc::new(|_| get(&format!("/products?limit={PRODUCTS}")).repeat(PIPELINED)),
        reads: false,
    };
    let path = format!("/products/{}", ids[0]);
    under(bench, &products, &path, &attack, figure).await
}

async fn unread_images(
    bench: &Bench,
    shop: &Shop,
    (count, different): (usize, u64),
    figure: &mut Figure,
) -> anyhow::Result<()> {
    let products = shop.stage.start("products", "products-images", &[]).await?;
    let known = Uuid::now_v7();
    post_all(&products, "/products", vec![product(known)]).await?;
    let mut paths = Vec::new();
    for seed in 0..different {
        paths.push(upload(&products, seed).await?);
    }
    let attack = Attack {
        name: "unread images",
        count,
        request: Arc::new(move |number| get(&paths[number % paths.len()])),
        reads: false,
    };
    under(
        bench,
        &products,
        &format!("/products/{known}"),
        &attack,
        figure,
    )
    .await
}

async fn registrations(
    bench: &Bench,
    shop: &Shop,
    count: usize,
    figure: &mut Figure,
) -> anyhow::Result<()> {
    let users = shop.stage.start("users", "users-registered", &[]).await?;
    let known = Uuid::now_v7();
    post_all(&users, "/users", vec![user(known)]).await?;
    let attack = Attack {
        name: "registrations with a password",
        count,
        request: Arc::new(|_| registration()),
        reads: true,
    };
    under(bench, &users, &format!("/users/{known}"), &attack, figure).await
}

/// Alternates honest requests for `path` without and under `attack`.
async fn under(
    bench: &Bench,
    service: &Process,
    path: &str,
    attack: &Attack,
    figure: &mut Figure,
) -> anyhow::Result<()> {
    let time = bench.time * 4;
    let (mut quiet, mut attacked) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        quiet.push(honest(service.address, path, time).await?);
        // Dropping the guard stops the attackers.
        let attackers = attack.begin(service.address)?;
        tokio::time::sleep(PAUSE).await;
        attacked.push(honest(service.address, path, time).await?);
        drop(attackers);
        tokio::time::sleep(PAUSE).await;
    }
    let (name, peak) = (attack.name, service.peak_mib()?);
    // A round has too few requests for a p99 of its own: its slowest one or two would be it.
    let [[_, p50, p99, _], [_, quiet_p50, quiet_p99, _]] =
        [&attacked, &quiet].map(|rounds| Load::of_all(rounds).cells());
    figure
        .table
        .row(name, &[p50, p99, quiet_p50, quiet_p99, peak]);
    let p99_ratio = format!("{name}: p99 / undisturbed");
    figure.ratio(p99_ratio, p99 / quiet_p99, Target::AtMost(2.0));
    let memory = format!("{name}: peak memory / {MEMORY_MIB} MiB");
    figure.ratio(memory, peak / MEMORY_MIB, Target::AtMost(1.0));
    Ok(())
}

async fn honest(address: SocketAddr, path: &str, time: Duration) -> anyhow::Result<Load> {
    let path: Arc<str> = path.into();
    let request = move |()| {
        let path = Arc::clone(&path);
        async move {
            let mut connection = Connection::open(address).await?;
            connection.get(&path).await?;
            Ok(())
        }
    };
    load::paced(vec![(); CLIENTS], HONEST, time, request).await
}

impl Attack {
    /// Runs the attackers until the guard is dropped, on a thread with low priority: real attackers
    /// have their own cores, and must not delay an honest client before it has sent its request.
    fn begin(&self, address: SocketAddr) -> anyhow::Result<DropGuard> {
        let end = CancellationToken::new();
        let attackers = (0..self.count).map(|number| {
            let (request, reads) = (Arc::clone(&self.request), self.reads);
            async move {
                loop {
                    // A refused, reset or closed connection is expected.
                    let _ = attack(address, &|| request(number), reads).await;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        });
        let attackers: Vec<_> = attackers.collect();
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let ended = end.clone();
        thread::Builder::new().spawn(move || {
            let _ = setpriority_process(None, NICENESS);
            runtime.block_on(ended.run_until_cancelled(join_all(attackers)));
        })?;
        Ok(end.drop_guard())
    }
}

/// One connection of an attacker, until it is closed.
async fn attack(
    address: SocketAddr,
    request: &(impl Fn() -> Vec<u8> + Sync),
    reads: bool,
) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    socket.bind((ATTACKERS, 0).into())?;
    let mut stream = socket.connect(address).await?;
    stream.write_all(&request()).await?;
    if reads {
        let mut answer = [0; 4096];
        while stream.read(&mut answer).await? > 0 {
            stream.write_all(&request()).await?;
        }
        return Ok(());
    }
    while is_open(&stream) {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Whether an unread connection is still open: a server that has dropped it answers another byte
/// with a reset.
fn is_open(stream: &TcpStream) -> bool {
    match stream.try_write(b"x") {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// A registration, of a different user each time.
fn registration() -> Vec<u8> {
    let email = format!("{}@example.com", Uuid::now_v7());
    let body = json!({ "name": "Mallory", "email": email, "password": "correct horse battery" });
    let body = body.to_string();
    let request = format!(
        "POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    request.into_bytes()
}

/// Uploads an image of 2 MiB; returns its path.
async fn upload(to: &Process, seed: u64) -> anyhow::Result<String> {
    let mut image = vec![0; 2 * 1024 * 1024];
    fastrand::Rng::with_seed(seed).fill(&mut image);
    let magic = b"\x89PNG\r\n\x1a\n";
    image[..magic.len()].copy_from_slice(magic);
    let mut connection = Connection::open(to.address).await?;
    let answer = connection.post_as("/images", "image/png", &image).await?;
    let answer = answer.json()?;
    let path = answer["image"].as_str().context("the path of the image")?;
    Ok(path.to_owned())
}
