//! Small random histories of the three sources, in all interleavings and with faults.
//!
//! The testkit shows that all of them end in the same tables. These are compared with a model in
//! plain Rust that ignores interleavings: it processes whole histories, one source after another.

use std::collections::{BTreeMap, BTreeSet};

use headwater::database::Tx;
use headwater::{Clock, Database, Envelope, Projection as _};
use headwater_testkit::{Store, converges, envelope};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use purchases::{MIGRATIONS, Purchases, erase_part, is_erasing};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use shop_events::{OrderPlaced, ProductCreated, ProductUpdated, UserErased, UserRegistered};
use uuid::Uuid;

/// An event of one source, with small numbers for ids.
#[derive(Debug, Clone)]
enum Happened {
    Registered(u8),
    Erased(u8),
    Created(u8, String),
    Updated(u8, String),
    Placed {
        user: u8,
        products: Vec<u8>,
        at: i64,
    },
}

/// What the store shows: for each user who is not erased, the products, each with title, time of the
/// first order, time of the last, and number of orders.
type Shown = BTreeMap<Uuid, BTreeSet<(Uuid, Option<String>, i64, i64, i64)>>;

fn user_id(number: u8) -> Uuid {
    Uuid::from_u128(0x1000 + u128::from(number))
}

fn product_id(number: u8) -> Uuid {
    Uuid::from_u128(0x2000 + u128::from(number))
}

impl Happened {
    fn envelope(&self) -> Envelope {
        match self {
            Self::Registered(user) => envelope(&UserRegistered {
                user_id: user_id(*user).to_string(),
                registered_at: None,
            }),
            Self::Erased(user) => envelope(&UserErased {
                user_id: user_id(*user).to_string(),
            }),
            Self::Created(product, title) => envelope(&ProductCreated {
                product_id: product_id(*product).to_string(),
                title: title.clone(),
                image: "https://example.com/x.png".to_owned(),
            }),
            Self::Updated(product, title) => envelope(&ProductUpdated {
                product_id: product_id(*product).to_string(),
                title: title.clone(),
                image: "https://example.com/y.png".to_owned(),
            }),
            Self::Placed { user, products, at } => envelope(&OrderPlaced {
                order_id: Uuid::from_u128(7).to_string(),
                user_id: user_id(*user).to_string(),
                product_ids: products
                    .iter()
                    .map(|p| product_id(*p).to_string())
                    .collect(),
                placed_at: Some(shop_events::timestamp(*at)),
            }),
        }
    }
}

/// The model to compare with.
fn expected(users: &[Happened], products: &[Happened], orders: &[Happened]) -> Shown {
    let mut titles = BTreeMap::new();
    for event in products {
        if let Happened::Created(product, title) | Happened::Updated(product, title) = event {
            titles.insert(*product, title.clone());
        }
    }
    let mut ordered: BTreeMap<(u8, u8), (i64, i64, i64)> = BTreeMap::new();
    let mut seen: BTreeSet<u8> = BTreeSet::new();
    for event in orders {
        if let Happened::Placed { user, products, at } = event {
            seen.insert(*user);
            for product in BTreeSet::from_iter(products) {
                let (first, last, times) =
                    ordered.entry((*user, *product)).or_insert((*at, *at, 0));
                *first = (*first).min(*at);
                *last = (*last).max(*at);
                *times += 1;
            }
        }
    }
    let mut erased = BTreeSet::new();
    for event in users {
        match event {
            Happened::Erased(user) => drop(erased.insert(*user)),
            Happened::Registered(user) => drop(seen.insert(*user)),
            _ => {}
        }
    }
    let mut shown: Shown = seen
        .difference(&erased)
        .map(|user| (user_id(*user), BTreeSet::new()))
        .collect();
    for ((user, product), (first, last, times)) in ordered {
        if let Some(products) = shown.get_mut(&user_id(user)) {
            let title = titles.get(&product).cloned();
            products.insert((product_id(product), title, first, last, times));
        }
    }
    shown
}

/// The content of the store. It includes any purchases left of an erased user, which must be gone.
/// Also checks what triggers and batches derive from it: titles that are found, and recent users.
fn shown(db: &impl ConnectionTrait) -> Result<Shown, DbErr> {
    let derived = db.query_all_raw(Statement::from_string(
        db.get_database_backend(),
        "SELECT 'found by no or another title: ' || number FROM product
         WHERE title IS NOT NULL AND number NOT IN (
             SELECT rowid FROM titles WHERE titles MATCH '\"' || product.title || '\"')
         UNION ALL
         SELECT 'found by an old title: ' || rowid FROM titles('a OR b OR c')
         WHERE (SELECT title FROM product WHERE number = titles.rowid) IS NULL
             OR (titles.rowid IN (SELECT rowid FROM titles('a')))
                 + (titles.rowid IN (SELECT rowid FROM titles('b')))
                 + (titles.rowid IN (SELECT rowid FROM titles('c'))) <> 1
         UNION ALL
         SELECT 'recent: ' || user || ' at ' || ordered_at FROM recent
         WHERE ordered_at IS NOT (
             SELECT max(first_ordered_at + span) FROM purchase WHERE purchase.user = recent.user)
         UNION ALL
         SELECT 'not recent: ' || user FROM purchase WHERE user NOT IN (SELECT user FROM recent)
             AND user IN (SELECT number FROM user WHERE state <> 2)",
    ))?;
    let derived = derived.iter().map(|row| row.try_get_by_index(0));
    let wrong: Vec<String> = derived.collect::<Result<_, _>>()?;
    assert!(wrong.is_empty(), "{wrong:?}");
    let rows = db.query_all_raw(Statement::from_string(
        db.get_database_backend(),
        "SELECT user.id AS user, product.id AS product, title, first_ordered_at,
                first_ordered_at + span AS last_ordered_at, times
         FROM user LEFT JOIN purchase ON purchase.user = user.number
         LEFT JOIN product ON product.number = purchase.product
         WHERE state <> 2 OR purchase.user IS NOT NULL",
    ))?;
    let mut shown = Shown::new();
    for row in rows {
        let products = shown.entry(row.try_get_by("user")?).or_default();
        if let Some(product) = row.try_get_by::<Option<Uuid>, _>("product")? {
            products.insert((
                product,
                row.try_get_by("title")?,
                row.try_get_by("first_ordered_at")?,
                row.try_get_by("last_ordered_at")?,
                row.try_get_by("times")?,
            ));
        }
    }
    Ok(shown)
}

/// Removes the few purchases of the users of a small history.
fn remove_few(tx: &Tx) -> Result<(), DbErr> {
    (0..USERS).try_for_each(|_| erase_part(tx))
}

/// Removes erased users, as the service does in the background; returns the number of transactions.
async fn remove_erased(db: &Database) -> usize {
    let mut parts = 0;
    while db.read(is_erasing).await.unwrap() {
        db.write(erase_part).await.unwrap();
        parts += 1;
    }
    parts
}

/// A user with very many purchases is hidden at once. The purchases are removed in parts, also if
/// the service is stopped in between.
#[tokio::test]
async fn what_an_erased_user_ordered_is_removed_in_parts() {
    let mut store = Store::open("purchases", MIGRATIONS, Clock::system()).await;
    let products: Vec<String> = (0..5_000).map(|n| Uuid::from_u128(n).to_string()).collect();
    let placed = |user| OrderPlaced {
        order_id: Uuid::from_u128(7).to_string(),
        user_id: user_id(user).to_string(),
        product_ids: products.clone(),
        placed_at: Some(shop_events::timestamp(1)),
    };
    let orders = vec![envelope(&placed(0)), envelope(&placed(1))];
    for events in [orders, vec![Happened::Erased(0).envelope()]] {
        let written = store.db.write(move |tx| Purchases.apply(tx, &events));
        written.await.unwrap();
    }
    let content = async |db: &Database| {
        let (_, sql) = Purchases::CONTENT[2];
        let count = format!("SELECT count(*) AS n FROM ({sql})");
        let statement = Statement::from_string(DbBackend::Sqlite, count);
        let counted = db.read(move |snapshot| snapshot.query_one_raw(statement));
        let row = counted.await.unwrap().unwrap();
        row.try_get_by::<i64, _>("n").unwrap()
    };
    assert_eq!(
        content(&store.db).await,
        5_000,
        "the other user's purchases"
    );
    store.db.write(erase_part).await.unwrap();
    store.reopen().await;
    let parts = remove_erased(&store.db).await;
    assert!(parts >= 2, "{parts}");
    assert_eq!(content(&store.db).await, 5_000);
    let left = store.db.read(shown).await.unwrap();
    assert_eq!(left.keys().collect::<Vec<_>>(), [&user_id(1)]);
}

/// The users of a small history.
const USERS: u8 = 2;

fn title() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

fn histories() -> impl Strategy<Value = [Vec<Happened>; 3]> {
    let user = 0..USERS;
    let product = 0..2_u8;
    let users = prop_oneof![
        3 => user.clone().prop_map(Happened::Registered),
        1 => user.clone().prop_map(Happened::Erased),
    ];
    let products = prop_oneof![
        (product.clone(), title()).prop_map(|(p, title)| Happened::Created(p, title)),
        (product.clone(), title()).prop_map(|(p, title)| Happened::Updated(p, title)),
    ];
    let orders = (user, prop::collection::vec(product, 1..3), 0..4_i64)
        .prop_map(|(user, products, at)| Happened::Placed { user, products, at });
    (
        prop::collection::vec(users, 0..3),
        prop::collection::vec(products, 0..3),
        prop::collection::vec(orders, 0..4),
    )
        .prop_map(|(users, products, orders)| [users, products, orders])
}

#[tokio::test]
async fn every_interleaving_of_the_sources_shows_the_same() {
    let seeds = if let Ok(seed) = std::env::var("HEADWATER_SEED") {
        vec![seed.parse().expect("HEADWATER_SEED is a number")]
    } else {
        let seeds = prop::collection::vec(any::<u64>(), 24);
        let mut random = TestRunner::default();
        seeds.new_tree(&mut random).unwrap().current()
    };
    for seed in seeds {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), random);
        let histories = histories().new_tree(&mut runner).unwrap().current();
        let events = histories.iter().flatten().map(Happened::envelope);
        let check = converges(|| Purchases, MIGRATIONS, events).settled_by(remove_few);
        let shown = check.seed(seed).then(shown).await;
        let [users, products, orders] = &histories;
        let expected = expected(users, products, orders);
        assert_eq!(shown, expected, "HEADWATER_SEED={seed}: {histories:?}");
    }
}
