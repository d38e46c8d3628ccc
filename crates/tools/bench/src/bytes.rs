//! Bytes: the size of a product and of a user-product pair in the read store, compared with plain
//! integer keys.

use std::path::Path;

use anyhow::Context as _;
use rusqlite::Connection;
use uuid::Uuid;

use crate::bench::Bench;
use crate::figure::{Figure, Table, Target};
use crate::load::count;
use crate::shop::{image, title};
use crate::store::{self, Sequence, Size, Store};

/// The price of a gigabyte for a month in a managed database, in dollars.
const DOLLARS: f64 = 0.115;
/// The yearly price of a hundred million products of about 100 bytes each, in dollars.
const BUDGET: f64 = 14.0;

/// The same data with integer keys only.
const BARE: &str = "
    CREATE TABLE product (id INTEGER PRIMARY KEY, title TEXT, image TEXT);
    CREATE TABLE purchase (user INTEGER, product INTEGER, PRIMARY KEY (user, product)) WITHOUT ROWID;";

/// Bytes per row.
#[derive(Clone, Copy, Debug)]
struct Bytes {
    product: f64,
    pair: f64,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Figure> {
    let (tens, products) = bench
        .form
        .pick((500, 500), (50_000, 50_000), (100_000, 100_000));
    let folder = bench.folder()?;
    let size = |sequence| Size {
        tens,
        hundreds: tens / 50,
        products,
        sequence,
    };
    let (ours, bare) = compare(folder.path(), size(Sequence::ByChance)).await?;
    let (in_order, bare_in_order) = compare(folder.path(), size(Sequence::UserByUser)).await?;

    let columns = [("bytes a product", 1), ("bytes a pair", 1)];
    let mut figure = Figure::new(Table::new("store", &columns));
    for (name, bytes) in [
        ("`purchases`, orders by chance", ours),
        ("integer keys, orders by chance", bare),
        ("`purchases`, orders user by user", in_order),
        ("integer keys, orders user by user", bare_in_order),
    ] {
        figure.table.row(name, &[bytes.product, bytes.pair]);
    }
    let dollars = 100e6 * ours.product / 1e9 * DOLLARS * 12.0;
    for (name, ratio) in [
        ("a product / 110 bytes", ours.product / 110.0),
        ("a pair / 24 bytes, by chance", ours.pair / 24.0),
        ("a pair / 24 bytes, user by user", in_order.pair / 24.0),
    ] {
        figure.ratio(name, ratio, Target::AtMost(1.0));
    }
    let year = "100 million products / 14 dollars a year";
    for (name, ratio) in [
        ("a product / integer key", ours.product / bare.product),
        ("a pair / integer keys, by chance", ours.pair / bare.pair),
        (year, dollars / BUDGET),
    ] {
        figure.ratio(name, ratio, Target::None);
    }
    let (users, pairs) = (tens + tens / 50, (tens + tens / 5) * 10);
    figure.note(format!("{products} products with a title of 30 and an image reference of 40 characters; {users} users, {pairs} pairs, ten per order, applied by the projection; whole pages of table and indexes as in the file, never vacuumed."));
    figure.note("By chance: orders of all users mixed, as in production, which leaves pages partly empty. User by user: the best case.");
    figure.note(format!("100 million products cost {dollars:.1} dollars a year, at {DOLLARS} dollars per gigabyte and month."));
    Ok(figure)
}

/// A store of ours in `folder`, and the baseline with the same content.
async fn compare(folder: &Path, size: Size) -> anyhow::Result<(Bytes, Bytes)> {
    let path = folder.join(format!("{:?}.db", size.sequence));
    let store = store::fill(&path, size).await?;
    let ours = bytes(&Connection::open(&path)?, size)?;
    Ok((ours, bare(&path.with_extension("bare.db"), &store, size)?))
}

/// The baseline, filled in the same order.
fn bare(path: &Path, store: &Store, size: Size) -> anyhow::Result<Bytes> {
    let connection = Connection::open(path)?;
    connection.execute_batch(BARE)?;
    let transaction = connection.unchecked_transaction()?;
    let mut insert = connection.prepare("INSERT INTO product VALUES (?, ?, ?)")?;
    for number in 0..size.products {
        let id = Uuid::now_v7();
        insert.execute((number, title(id), image(id)))?;
    }
    let mut insert = connection.prepare("INSERT INTO purchase VALUES (?, ?)")?;
    for pair in &store.pairs {
        insert.execute(*pair)?;
    }
    transaction.commit()?;
    bytes(&connection, size)
}

/// The pages of both tables with their indexes, divided by the rows.
fn bytes(connection: &Connection, size: Size) -> anyhow::Result<Bytes> {
    let of = |table: &str| -> anyhow::Result<f64> {
        let sql = "SELECT sum(pgsize) FROM dbstat WHERE aggregate = TRUE
                   AND name IN (SELECT name FROM sqlite_schema WHERE tbl_name = ?)";
        let bytes: u32 = connection
            .query_row(sql, [table], |row| row.get(0))
            .with_context(|| format!("measure the table {table}"))?;
        Ok(f64::from(bytes))
    };
    Ok(Bytes {
        product: of("product")? / count(size.products),
        pair: of("purchase")? / count(size.pairs()),
    })
}
