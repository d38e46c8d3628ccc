//! A read store of `purchases`, filled by its own projection, without a broker.
//!
//! The projection writes the rows, so they are right for any table layout. The checkpoint is then
//! written as if the events had come through streams.

use std::path::{Path, PathBuf};

use headwater::database::{self, WriteError};
use headwater::{Clock, Database, Envelope, Projection};
use purchases::Purchases;
use rusqlite::Connection;
use uuid::Uuid;

use crate::events::{self, FIRST_MS, envelope};

/// Events per transaction.
const BATCH: usize = 10_000;
/// Lines per order.
const LINES: usize = 10;

/// The amount of data in a store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Users who ordered ten products.
    pub(crate) tens: usize,
    /// Users who ordered a hundred.
    pub(crate) hundreds: usize,
    pub(crate) products: usize,
    pub(crate) sequence: Sequence,
}

/// The sequence of the orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sequence {
    /// All orders of one user, then all of the next.
    UserByUser,
    /// Random, as in production.
    ByChance,
}

/// A store and its ids.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) path: PathBuf,
    pub(crate) tens: Vec<Uuid>,
    pub(crate) hundreds: Vec<Uuid>,
    /// Every user-product pair in its order of arrival, as the numbers of both.
    pub(crate) pairs: Vec<(u32, u32)>,
}

impl Size {
    pub(crate) fn pairs(&self) -> usize {
        self.tens * 10 + self.hundreds * 100
    }

    /// The orders: the numbers of the user and of the first product. Each has ten lines.
    fn orders(&self) -> Vec<(usize, usize)> {
        let mut random = fastrand::Rng::with_seed(self.products as u64);
        let mut orders = Vec::new();
        for user in 0..self.tens + self.hundreds {
            let first = random.usize(..self.products);
            let count = if user < self.tens { 1 } else { 10 };
            // No product twice: a user's orders have adjacent products.
            orders.extend((0..count).map(|order| (user, first + order)));
        }
        if self.sequence == Sequence::ByChance {
            random.shuffle(&mut orders);
        }
        orders
    }

    /// The numbers of an order's products, spread over the catalogue.
    fn lines(&self, first: usize) -> impl Iterator<Item = usize> {
        let (products, stride) = (self.products, self.products / LINES);
        (0..LINES).map(move |line| (first + line * stride) % products)
    }
}

/// Opens the database of `purchases` at `path`.
pub(crate) async fn open(path: &Path) -> anyhow::Result<Database> {
    let (name, config) = (purchases::NAME, database::Config::at(path));
    Ok(Database::open(name, &config, purchases::MIGRATIONS, Clock::system()).await?)
}

/// Creates a store at `path`.
pub(crate) async fn fill(path: &Path, size: Size) -> anyhow::Result<Store> {
    let db = open(path).await?;
    let ids = |count| -> Vec<Uuid> { (0..count).map(|_| Uuid::now_v7()).collect() };
    let (users, products) = (ids(size.tens + size.hundreds), ids(size.products));
    let orders = size.orders();
    let placed = orders.iter().zip(FIRST_MS..);
    let placed = placed.map(|(&(user, first), placed_at)| {
        let lines = size.lines(first).map(|number| products[number]);
        events::placed(Uuid::now_v7(), users[user], lines, placed_at)
    });
    let registered = users.iter().map(|id| events::registered(*id, FIRST_MS));
    let created = products.iter().map(|id| events::created(*id));
    apply_all(&db, registered.map(|it| envelope("users", &it))).await?;
    apply_all(&db, created.map(|it| envelope("products", &it))).await?;
    apply_all(&db, placed.map(|it| envelope("orders", &it))).await?;
    db.close().await;
    note_complete(path, [users.len(), products.len(), orders.len()])?;

    let number = |number| u32::try_from(number).expect("fewer than 2^32 of anything");
    let pairs = orders.iter().flat_map(|&(user, first)| {
        let lines = size.lines(first);
        lines.map(move |product| (number(user), number(product)))
    });
    let (tens, hundreds) = users.split_at(size.tens);
    Ok(Store {
        path: path.to_owned(),
        tens: tens.to_vec(),
        hundreds: hundreds.to_vec(),
        pairs: pairs.collect(),
    })
}

/// The products in the store at `path`.
pub(crate) fn products(path: &Path) -> anyhow::Result<Vec<Uuid>> {
    let connection = Connection::open(path)?;
    let mut ids = connection.prepare("SELECT id FROM product")?;
    let ids = ids.query_map([], |row| Ok(Uuid::from_bytes(row.get(0)?)))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}

/// The size of the database at `path` in bytes, including its write-ahead log.
pub(crate) fn bytes(path: &Path) -> anyhow::Result<f64> {
    let sql = "SELECT CAST(page_count * page_size AS REAL)
               FROM pragma_page_count, pragma_page_size";
    Ok(Connection::open(path)?.query_row(sql, [], |row| row.get(0))?)
}

/// Applies `events` in batches.
async fn apply_all(db: &Database, events: impl Iterator<Item = Envelope>) -> anyhow::Result<()> {
    let mut events = events.peekable();
    while events.peek().is_some() {
        apply(db, events.by_ref().take(BATCH).collect()).await?;
    }
    Ok(())
}

/// Applies `events` in one transaction.
pub(crate) async fn apply(db: &Database, events: Vec<Envelope>) -> anyhow::Result<()> {
    let written = db.write(move |tx| Purchases.apply(tx, &events)).await;
    written.map_err(|error: WriteError<_>| anyhow::anyhow!("apply: {error:?}"))?;
    Ok(())
}

/// Writes the checkpoint: all events of each source are applied.
fn note_complete(path: &Path, counts: [usize; 3]) -> anyhow::Result<()> {
    let connection = Connection::open(path)?;
    connection.execute(
        "INSERT INTO headwater_projection (name, version, completed_at) VALUES (?, ?, ?)",
        (Purchases::NAME, Purchases::VERSION, FIRST_MS),
    )?;
    for (source, count) in Purchases::SOURCES.iter().zip(counts) {
        connection.execute(
            "INSERT INTO headwater_checkpoint (projection, source, stream_created, sequence, epoch)
             VALUES (?, ?, 1, ?, 'bench')",
            (Purchases::NAME, source, count),
        )?;
        connection.execute(
            "INSERT INTO headwater_position (projection, source, epoch, position)
             VALUES (?, ?, 'bench', ?)",
            (Purchases::NAME, source, count),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_has_as_many_pairs_as_its_size_says() {
        let folder = tempfile::tempdir().unwrap();
        for sequence in [Sequence::ByChance, Sequence::UserByUser] {
            let size = Size {
                tens: 30,
                hundreds: 3,
                products: 200,
                sequence,
            };
            let path = folder.path().join(format!("{sequence:?}.db"));
            let store = fill(&path, size).await.unwrap();
            assert_eq!(store.pairs.len(), size.pairs());
            let connection = Connection::open(&store.path).unwrap();
            let count = |table: &str| -> usize {
                let sql = format!("SELECT count(*) FROM {table}");
                connection.query_row(&sql, [], |row| row.get(0)).unwrap()
            };
            assert_eq!((count("user"), count("product")), (33, 200));
            assert_eq!(count("purchase"), size.pairs());
        }
    }
}
