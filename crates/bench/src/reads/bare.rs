//! The rival of `reads`: the same answer by bare prepared statements on a few connections, under
//! the same HTTP server. What `purchases` adds to it is what the figure shows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use axum::Json;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::get;
use bytes::Bytes;
use headwater::http::{self, About};
use headwater::{Health, supervisor, telemetry};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

/// Connections, as many as the service has readers.
const CONNECTIONS: usize = 4;

#[derive(Serialize)]
struct Purchase {
    product_id: Uuid,
    title: Option<String>,
    image: Option<String>,
    first_ordered_at: String,
}

#[derive(Serialize)]
struct UserPurchases {
    user_id: Uuid,
    purchases: Vec<Purchase>,
    as_of: BTreeMap<String, u64>,
}

/// The connections that nobody uses, and a place for each.
#[derive(Clone, Debug)]
struct Pool {
    idle: Arc<Mutex<Vec<Connection>>>,
    places: Arc<Semaphore>,
}

/// Serves `/users/{id}/purchases` from `store`, and `/users/{id}/constant`, the first answer of
/// the other for any user.
pub(crate) async fn serve(store: &Path) -> anyhow::Result<()> {
    telemetry::init(&telemetry::Config {
        filter: "info".to_owned(),
        format: telemetry::Format::Json,
    })?;
    let config = http::Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        connections: 1024,
        header_timeout_s: 10,
        timeout_s: 30,
        after_s: 5,
    };
    let pool = Pool::open(store).context("open the store")?;
    let routes = OpenApiRouter::new()
        .route("/users/{id}/purchases", get(purchases))
        .route("/users/{id}/constant", get(constant))
        .with_state(pool);
    let about = About {
        name: "bare",
        description: "The rival of the reads.",
    };
    let app = http::app(about, routes, Health::new(), &config);
    let listener = http::bind(&config).await?;
    http::serve(listener, app, config, supervisor::stop_on_signal()).await
}

async fn purchases(
    State(pool): State<Pool>,
    UrlPath(id): UrlPath<Uuid>,
) -> Result<Json<UserPurchases>, StatusCode> {
    let found = pool.read(move |connection| query(connection, id)).await?;
    found.map(Json).ok_or(StatusCode::NOT_FOUND)
}

/// What HTTP alone costs: for each user the answer that they got first.
async fn constant(
    State(pool): State<Pool>,
    UrlPath(id): UrlPath<Uuid>,
) -> Result<([(&'static str, &'static str); 1], Bytes), StatusCode> {
    static ANSWERS: Mutex<BTreeMap<Uuid, Bytes>> = Mutex::new(BTreeMap::new());
    let known = ANSWERS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(&id)
        .cloned();
    let body = match known {
        Some(body) => body,
        None => {
            let Json(answer) = purchases(State(pool), UrlPath(id)).await?;
            let body =
                serde_json::to_vec(&answer).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
            let body = Bytes::from(body);
            ANSWERS
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(id, body.clone());
            body
        }
    };
    Ok(([("content-type", "application/json")], body))
}

impl Pool {
    fn open(store: &Path) -> rusqlite::Result<Self> {
        let connections = (0..CONNECTIONS).map(|_| {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(store, flags)?;
            connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -16000")?;
            Ok(connection)
        });
        Ok(Self {
            idle: Arc::new(Mutex::new(connections.collect::<rusqlite::Result<_>>()?)),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
        })
    }

    /// Runs `work` on a blocking thread.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StatusCode> {
        let failed = |_| StatusCode::INTERNAL_SERVER_ERROR;
        let place = Arc::clone(&self.places).acquire_owned().await;
        let _place = place.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        let idle = Arc::clone(&self.idle);
        let read = tokio::task::spawn_blocking(move || {
            let lock = || idle.lock().unwrap_or_else(PoisonError::into_inner);
            let connection = lock().pop().expect("there is one for each place");
            let result = work(&connection);
            lock().push(connection);
            result
        });
        let result = read.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        result.map_err(failed)
    }
}

/// The answer, of one snapshot.
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
        "SELECT product.id, title, image, first_ordered_at
         FROM purchase JOIN product ON product.number = purchase.product
         WHERE user = ? ORDER BY first_ordered_at, product.id",
    )?;
    let rows = join.query_map([number], |row| {
        Ok(Purchase {
            product_id: Uuid::from_bytes(row.get(0)?),
            title: row.get(1)?,
            image: row.get(2)?,
            first_ordered_at: events::timestamp(row.get(3)?).to_string(),
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
        as_of: as_of.collect::<rusqlite::Result<_>>()?,
    }))
}
