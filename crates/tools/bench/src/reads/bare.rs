//! The baseline of `reads`: the same answer from plain prepared statements on a few connections,
//! under the same HTTP server. The figure shows what `purchases` adds to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use axum::Json;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;
use bytes::Bytes;
use headwater::http::{self, About};
use headwater::{Health, supervisor, telemetry};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

/// The number of connections: as many as the service has readers.
const CONNECTIONS: usize = 4;

#[derive(Serialize)]
struct Purchase {
    product_id: Uuid,
    title: Option<String>,
    image: Option<String>,
    first_ordered_at: String,
    last_ordered_at: String,
    times: u64,
}

#[derive(Serialize)]
struct UserPurchases {
    user_id: Uuid,
    purchases: Vec<Purchase>,
    next: Option<String>,
    as_of: BTreeMap<String, u64>,
}

/// A user, and the channel for the answer.
type Job = (
    Uuid,
    oneshot::Sender<rusqlite::Result<Option<UserPurchases>>>,
);

/// A thread for each connection; all take jobs from one queue.
#[derive(Clone, Debug)]
struct Pool(mpsc::Sender<Job>);

/// Serves `/users/{id}/purchases` from `store`, and `/constant/{length}`.
pub(crate) async fn serve(store: &Path) -> anyhow::Result<()> {
    let config = telemetry::Config {
        filter: "info".to_owned(),
        filter_file: None,
        format: telemetry::Format::Json,
        traces: telemetry::TraceConfig::default(),
    };
    let _telemetry = telemetry::init("bare", &config);
    let config = http::Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        ..http::Config::default()
    };
    let pool = Pool::open(store).context("open the store")?;
    let routes = OpenApiRouter::new()
        .route("/users/{id}/purchases", get(purchases))
        .route("/constant/{length}", get(constant))
        .with_state(pool);
    let about = About {
        name: "bare",
        description: "The baseline of the reads.",
        version: env!("CARGO_PKG_VERSION"),
        port: 0,
    };
    let app = http::app(about, routes, Health::new(), &config);
    let listener = http::bind(&config).await?.public;
    let stop = supervisor::stop_on_signal();
    Ok(http::serve(listener, app, config, stop).await?)
}

async fn purchases(
    State(pool): State<Pool>,
    UrlPath(id): UrlPath<Uuid>,
) -> Result<Json<UserPurchases>, StatusCode> {
    let found = pool.ask(id).await;
    let found = found.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    found.map(Json).ok_or(StatusCode::NOT_FOUND)
}

/// The cost of HTTP alone: an answer of this length without a database.
async fn constant(UrlPath(length): UrlPath<usize>) -> ([(HeaderName, &'static str); 1], Bytes) {
    static FILLING: [u8; 64 * 1024] = [b'x'; 64 * 1024];
    let body = Bytes::from_static(&FILLING[..length.min(FILLING.len())]);
    ([(header::CONTENT_TYPE, "application/json")], body)
}

impl Pool {
    fn open(store: &Path) -> anyhow::Result<Self> {
        let (queue, jobs) = mpsc::channel(CONNECTIONS * 16);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..CONNECTIONS {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(store, flags)?;
            connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -16000")?;
            let jobs = Arc::clone(&jobs);
            std::thread::spawn(move || answer(&connection, &jobs));
        }
        Ok(Self(queue))
    }

    async fn ask(&self, user: Uuid) -> anyhow::Result<Option<UserPurchases>> {
        let (reply, answer) = oneshot::channel();
        self.0
            .send((user, reply))
            .await
            .context("the threads have ended")?;
        Ok(answer.await??)
    }
}

/// Answers jobs one after the other.
fn answer(connection: &Connection, jobs: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        // The thread that waits for a job holds the lock; the others wait for the lock.
        let next = jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv();
        let Some((user, reply)) = next else { return };
        // The client may have disconnected.
        let _ = reply.send(query(connection, user));
    }
}

/// The answer, from one snapshot.
fn query(connection: &Connection, user: Uuid) -> rusqlite::Result<Option<UserPurchases>> {
    let snapshot = connection.unchecked_transaction()?;
    let number: Option<i64> = snapshot
        .prepare_cached("SELECT number FROM user WHERE id = ? AND state <> 2")?
        .query_row([user.as_bytes().as_slice()], |row| row.get(0))
        .optional()?;
    let Some(number) = number else {
        return Ok(None);
    };
    let mut join = snapshot.prepare_cached(
        "SELECT product.id, title, image, first_ordered_at, first_ordered_at + span, times
         FROM purchase JOIN product ON product.number = purchase.product
         WHERE user = ? ORDER BY first_ordered_at, product.id",
    )?;
    let rows = join.query_map([number], |row| {
        Ok(Purchase {
            product_id: Uuid::from_bytes(row.get(0)?),
            title: row.get(1)?,
            image: row.get(2)?,
            first_ordered_at: shop_events::timestamp(row.get(3)?).to_string(),
            last_ordered_at: shop_events::timestamp(row.get(4)?).to_string(),
            times: row.get(5)?,
        })
    })?;
    let purchases = rows.collect::<rusqlite::Result<_>>()?;
    let mut positions =
        snapshot.prepare_cached("SELECT source, position FROM headwater_position")?;
    let as_of = positions.query_map([], |row| {
        let position: i64 = row.get(1)?;
        Ok((row.get(0)?, position.unsigned_abs()))
    })?;
    Ok(Some(UserPurchases {
        user_id: user,
        purchases,
        next: None,
        as_of: as_of.collect::<rusqlite::Result<_>>()?,
    }))
}
