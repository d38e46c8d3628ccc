//! Queries of the pages' lists. Each reads a bounded number of rows, however much a user ordered.
//! There is no index by the time of the last order: every order would pay for it.

use headwater::database::RawSnapshot;
use headwater::http::cut;
use rusqlite::{Params, Row};
use sea_orm::DbErr;
use shop_events::search::STEPS_MAX;
use uuid::Uuid;

use crate::list::{COUNTED_MAX, Count, From, Product, Sales, Shopper};

/// The most pairs of a user and a product that one page looks up, 1 µs each: there is no index from
/// a product to its users, which would make every purchase half as large again. Pages that need
/// more continue on the next one.
const LOOKUPS_MAX: i64 = 50_000;

/// The fewest users that such a page looks at, for however many products.
const USERS_MIN: i64 = 500;

/// The most products of a search whose users are listed.
pub(super) const FOUND_MAX: usize = 100;

const RECENT: &str = "SELECT number, id, ordered_at
     FROM recent CROSS JOIN user ON number = recent.user
     WHERE state <> 2
       AND (ordered_at, recent.user) < (?1, (SELECT number FROM user WHERE id = ?2))
     ORDER BY ordered_at DESC, recent.user DESC LIMIT ?3";

const OTHERS: &str = "SELECT number, id, NULL
     FROM user
     WHERE state <> 2 AND number < ?1 AND number NOT IN (SELECT user FROM recent)
     ORDER BY number DESC LIMIT ?2";

const KNOWN: &str = "SELECT number, id, ordered_at
     FROM user LEFT JOIN recent ON recent.user = number
     WHERE id = ? AND state <> 2";

const BUYERS: &str = "SELECT number, id, ordered_at
     FROM user LEFT JOIN recent ON recent.user = number
     WHERE state <> 2 AND number < ?1 AND number >= ?2 AND EXISTS (
         SELECT 1 FROM purchase
         WHERE purchase.user = user.number AND product IN (SELECT value FROM json_each(?3)))
     ORDER BY number DESC LIMIT ?4";

/// The number of a user's purchases, and the latest time, of the first `?2` of them.
const FIGURES: &str = "SELECT count(*), max(at) FROM (
         SELECT first_ordered_at + span AS at FROM purchase WHERE user = ?1 LIMIT ?2)";

/// A part of the list of users, and where the next one begins.
pub(super) fn users(
    snapshot: &RawSnapshot,
    from: From,
    limit: usize,
) -> Result<(Vec<Shopper>, Option<From>), DbErr> {
    let after = match from {
        From::Start => Some((i64::MAX, None)),
        From::Ordered(at, user) => Some((at, Some(user.into_bytes()))),
        From::Others(_) => None,
    };
    let mut users = match after {
        Some((at, user)) => shoppers(snapshot, RECENT, (at, user, limit + 1))?,
        None => Vec::new(),
    };
    if cut(&mut users, limit) {
        let last = users.last();
        let next = last.map(|it| From::Ordered(it.last_ordered_at.unwrap_or(0), it.id));
        return Ok((users, next));
    }
    let before = match from {
        From::Others(user) => number_of(snapshot, user)?,
        From::Start | From::Ordered(..) => i64::MAX,
    };
    let room = limit - users.len();
    let mut others = shoppers(snapshot, OTHERS, (before, room + 1))?;
    let more = cut(&mut others, room);
    let next = match others.last() {
        Some(last) => Some(From::Others(last.id)),
        // There are others, and no room for the first of them.
        None => users
            .last()
            .map(|it| From::Ordered(it.last_ordered_at.unwrap_or(0), it.id)),
    };
    users.extend(others);
    Ok((users, next.filter(|_| more)))
}

/// The number of a user; 0, before which there is nobody, if there is none.
fn number_of(snapshot: &RawSnapshot, user: Uuid) -> Result<i64, DbErr> {
    let found = snapshot.row(
        "SELECT number FROM user WHERE id = ?",
        [user.as_bytes()],
        |row| row.get(0),
    )?;
    Ok(found.unwrap_or(0))
}

/// The users of `sql`, which has their numbers, ids, and the times of [`recent`](super::recent).
fn shoppers(snapshot: &RawSnapshot, sql: &str, values: impl Params) -> Result<Vec<Shopper>, DbErr> {
    let users = snapshot.rows(sql, values, |row| {
        let recent: Option<i64> = row.get(2)?;
        Ok((row.get(0)?, Uuid::from_bytes(row.get(1)?), recent))
    })?;
    let shopper = |(number, id, recent): (i64, Uuid, Option<i64>)| {
        let figures = snapshot.row(FIGURES, (number, COUNTED_MAX + 1), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        let (products, last): (u64, Option<i64>) = figures.expect("an aggregate has one row");
        Ok(Shopper {
            id,
            products: Count(products),
            last_ordered_at: recent.or(last.filter(|_| products <= COUNTED_MAX)),
        })
    };
    users.into_iter().map(shopper).collect()
}

/// Those of `users` who are known here, in their order.
pub(super) fn known(snapshot: &RawSnapshot, users: &[Uuid]) -> Result<Vec<Shopper>, DbErr> {
    let mut known = Vec::with_capacity(users.len());
    for user in users {
        known.extend(shoppers(snapshot, KNOWN, [user.as_bytes()])?);
    }
    Ok(known)
}

/// A product with its number.
type Numbered = (i64, Product);

fn numbered(row: &Row<'_>) -> rusqlite::Result<Numbered> {
    let (title, image): (Option<String>, Option<String>) = (row.get(2)?, row.get(3)?);
    let product = Product {
        id: Uuid::from_bytes(row.get(1)?),
        look: title.zip(image),
    };
    Ok((row.get(0)?, product))
}

/// The newest products; with `words`, a query of FTS5, those whose titles have them. `None` if the
/// search takes more than [`STEPS_MAX`].
pub(super) fn products(
    snapshot: &RawSnapshot,
    words: Option<&str>,
    from: Option<Uuid>,
    limit: usize,
) -> Result<Option<Vec<Numbered>>, DbErr> {
    let before = match from {
        Some(product) => product_number(snapshot, product)?,
        None => i64::MAX,
    };
    if let Some(words) = words {
        return snapshot.rows_within(
            STEPS_MAX,
            "SELECT number, id, product.title, image
             FROM titles CROSS JOIN product ON number = titles.rowid
             WHERE titles MATCH ?1 AND titles.rowid < ?2 ORDER BY titles.rowid DESC LIMIT ?3",
            (words, before, limit),
            numbered,
        );
    }
    let newest = snapshot.rows(
        "SELECT number, id, title, image FROM product
         WHERE title IS NOT NULL AND number < ?1 ORDER BY number DESC LIMIT ?2",
        (before, limit),
        numbered,
    );
    newest.map(Some)
}

fn product_number(snapshot: &RawSnapshot, product: Uuid) -> Result<i64, DbErr> {
    Ok(find_product(snapshot, product)?.map_or(0, |(number, _)| number))
}

/// One product.
pub(super) fn find_product(
    snapshot: &RawSnapshot,
    product: Uuid,
) -> Result<Option<Numbered>, DbErr> {
    snapshot.row(
        "SELECT number, id, title, image FROM product WHERE id = ?",
        [product.as_bytes()],
        numbered,
    )
}

/// The users who ordered one of the products with the numbers `found`, the newest user first, and
/// where the next page begins. It looks at a bounded number of users, so a page may have few or
/// none of them and be followed by more.
pub(super) fn buyers(
    snapshot: &RawSnapshot,
    found: &[i64],
    from: Option<Uuid>,
    limit: usize,
) -> Result<(Vec<Shopper>, Option<Uuid>), DbErr> {
    if found.is_empty() {
        return Ok((Vec::new(), None));
    }
    let before = match from {
        Some(user) => number_of(snapshot, user)?,
        None => newest_user(snapshot)? + 1,
    };
    let products = i64::try_from(found.len()).unwrap_or(i64::MAX);
    let looked_at = (LOOKUPS_MAX / products.max(1)).max(USERS_MIN);
    let lowest = before.saturating_sub(looked_at).max(1);
    let numbers: Vec<String> = found.iter().map(i64::to_string).collect();
    let numbers = format!("[{}]", numbers.join(","));
    let mut users = shoppers(snapshot, BUYERS, (before, lowest, numbers, limit + 1))?;
    if cut(&mut users, limit) {
        let next = users.last().map(|it| it.id);
        return Ok((users, next));
    }
    let next = snapshot.row(
        "SELECT id FROM user WHERE number >= ?1 AND ?1 > 1 ORDER BY number LIMIT 1",
        [lowest],
        |row| row.get(0).map(Uuid::from_bytes),
    )?;
    Ok((users, next))
}

fn newest_user(snapshot: &RawSnapshot) -> Result<i64, DbErr> {
    let newest = snapshot.row("SELECT max(number) FROM user", (), |row| row.get(0))?;
    Ok(newest.flatten().unwrap_or(0))
}

/// Who ordered the product with this number.
pub(super) fn sales(snapshot: &RawSnapshot, product: i64) -> Result<Sales, DbErr> {
    let newest = newest_user(snapshot)?;
    let lowest = (newest - LOOKUPS_MAX).max(0);
    let counted = snapshot.row(
        "SELECT count(*), max(first_ordered_at + span)
         FROM user CROSS JOIN purchase ON purchase.user = user.number AND product = ?1
         WHERE state <> 2 AND number > ?2",
        (product, lowest),
        |row| {
            Ok(Sales {
                users: row.get(0)?,
                last_ordered_at: row.get(1)?,
                of_newest: (lowest > 0).then_some(LOOKUPS_MAX.unsigned_abs()),
            })
        },
    )?;
    Ok(counted.expect("an aggregate has one row"))
}

#[cfg(test)]
mod tests {
    use headwater::{Clock, Envelope, Projection as _};
    use headwater_testkit::{Store, envelope};
    use rusqlite::{Connection, StatementStatus};
    use sea_orm::raw_sql;
    use shop_events::{OrderPlaced, ProductCreated, ProductUpdated, UserErased, UserRegistered};

    use super::*;
    use crate::{MIGRATIONS, Purchases};

    fn registered(user: u128) -> Envelope {
        envelope(&UserRegistered {
            user_id: Uuid::from_u128(user).to_string(),
            registered_at: None,
        })
    }

    fn created(product: u128, title: &str) -> Envelope {
        envelope(&ProductCreated {
            product_id: Uuid::from_u128(product).to_string(),
            title: title.to_owned(),
            image: "https://example.com/x.png".to_owned(),
        })
    }

    fn placed(user: u128, products: &[u128], at: i64) -> Envelope {
        let id = |id: &u128| Uuid::from_u128(*id).to_string();
        envelope(&OrderPlaced {
            order_id: id(&7),
            user_id: id(&user),
            product_ids: products.iter().map(id).collect(),
            placed_at: Some(shop_events::timestamp(at)),
        })
    }

    async fn store(batches: impl IntoIterator<Item = Vec<Envelope>>) -> Store {
        let store = Store::open("purchases", MIGRATIONS, Clock::system()).await;
        for batch in batches {
            let written = store.db.write(move |tx| Purchases.apply(tx, &batch));
            written.await.unwrap();
        }
        store
    }

    async fn read<T: Send + 'static>(
        store: &Store,
        read: impl Fn(&RawSnapshot) -> Result<T, DbErr> + Send + 'static,
    ) -> T {
        store.db.read_raw(move |it| read(it)).await.unwrap()
    }

    /// All users, in pages of `limit`.
    async fn all_users(store: &Store, limit: usize) -> Vec<(u128, u64, Option<i64>)> {
        let (mut seen, mut from) = (Vec::new(), From::Start);
        loop {
            let (page, next) = read(store, move |it| users(it, from, limit)).await;
            assert!(page.len() <= limit);
            seen.extend(
                page.iter()
                    .map(|it| (it.id.as_u128(), it.products.0, it.last_ordered_at)),
            );
            match next {
                Some(next) => from = next,
                None => return seen,
            }
        }
    }

    #[tokio::test]
    async fn users_come_by_their_newest_order_and_then_the_newest_first() {
        let mut store = store([
            (1..=5).map(registered).collect(),
            vec![placed(2, &[20, 21], 9), placed(4, &[20], 5)],
            vec![placed(4, &[20], 5), placed(4, &[22, 22], 30)],
            // Orders may have been placed earlier than those before them: a clock was set back.
            vec![placed(4, &[22], 8), placed(1, &[], 40)],
        ])
        .await;
        let expected = [
            (4, 2, Some(30)),
            (2, 2, Some(9)),
            (5, 0, None),
            (3, 0, None),
            (1, 0, None),
        ];
        for limit in 1..=6 {
            assert_eq!(all_users(&store, limit).await, expected, "{limit}");
        }
        let erased = envelope(&UserErased {
            user_id: Uuid::from_u128(4).to_string(),
        });
        let written = store.db.write(move |tx| Purchases.apply(tx, &[erased]));
        written.await.unwrap();
        store.reopen().await;
        assert_eq!(all_users(&store, 2).await, expected[1..]);
    }

    #[tokio::test]
    async fn of_very_many_users_only_the_newest_orders_decide_the_order() {
        let at = |user: u128| 5_000 - i64::try_from(user).unwrap();
        let orders = (1..=1_200).map(|user| placed(user, &[20], at(user)));
        let (many, few): (Vec<_>, Vec<_>) = orders.enumerate().partition(|(n, _)| n % 3 > 0);
        let events = |some: Vec<(usize, Envelope)>| some.into_iter().map(|(_, it)| it).collect();
        let store = store([events(few), events(many)]).await;
        let seen = all_users(&store, 70).await;
        assert_eq!(seen.len(), 1_200);
        let newest: Vec<u128> = seen.iter().map(|it| it.0).take(500).collect();
        assert_eq!(newest, (1..=500).collect::<Vec<_>>());
        let mut ids: Vec<u128> = seen.iter().map(|it| it.0).collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=1_200).collect::<Vec<_>>(), "each of them once");
        assert!(seen.iter().all(|it| it.2 == Some(at(it.0))));
    }

    /// `known` of a user, and the number of products and the time of the last order in the list.
    async fn figures(store: &Store, user: u128) -> (String, Option<i64>) {
        let users = read(store, move |it| known(it, &[Uuid::from_u128(user)])).await;
        (users[0].products.to_string(), users[0].last_ordered_at)
    }

    #[tokio::test]
    async fn of_very_many_products_the_list_says_only_that_there_are_more() {
        let max = u128::from(COUNTED_MAX);
        let many = |user: u128, count: u128| {
            let products: Vec<u128> = (1_000..1_000 + count).collect();
            placed(user, &products, 5)
        };
        // Newer orders of others, so that the two are not among those with the newest.
        let others = (10..600).map(|user| placed(user, &[20], 9)).collect();
        let store = store([vec![many(1, max), many(2, max + 1)], others]).await;
        let exact = ("10,000".to_owned(), Some(5));
        assert_eq!(figures(&store, 1).await, exact);
        let more = "more than 10,000".to_owned();
        assert_eq!(figures(&store, 2).await, (more.clone(), None));
        let again = placed(2, &[1_000], 30);
        let written = store.db.write(move |tx| Purchases.apply(tx, &[again]));
        written.await.unwrap();
        assert_eq!(figures(&store, 2).await, (more, Some(30)), "it is recent");
        let first = read(&store, |it| users(it, From::Start, 1)).await.0;
        assert_eq!(
            (first[0].id, first[0].last_ordered_at),
            (Uuid::from_u128(2), Some(30))
        );
    }

    /// The steps of SQLite's virtual machine that a query takes.
    fn steps(db: &Connection, sql: &str, values: impl Params) -> i32 {
        let mut query = db.prepare(sql).unwrap();
        let found: Vec<i64> = query
            .query_map(values, |row| row.get(0))
            .and_then(Iterator::collect)
            .unwrap();
        assert!(!found.is_empty(), "{sql}");
        query.get_status(StatementStatus::VmStep)
    }

    #[test]
    fn a_list_costs_the_same_however_many_products_its_users_ordered() {
        let db = Connection::open_in_memory().unwrap();
        for migration in MIGRATIONS {
            db.execute_batch(migration.sql).unwrap();
        }
        let id = [7; 16];
        let users = "INSERT INTO user VALUES (1, ?1, 1), (2, zeroblob(16), 1)";
        db.execute(users, [id]).unwrap();
        db.execute("INSERT INTO recent VALUES (2, 9)", ()).unwrap();
        let order = |from: u64, to: u64| {
            let purchases = "WITH RECURSIVE line (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM line WHERE n < ?2)
                 INSERT INTO purchase SELECT 1 + n % 2, n, n, 0, 1 FROM line";
            db.execute(purchases, (from, to)).unwrap();
        };
        let cost = || {
            [
                steps(&db, RECENT, (i64::MAX, id, 50)),
                steps(&db, OTHERS, (i64::MAX, 50)),
                steps(&db, KNOWN, [id]),
                steps(&db, BUYERS, (i64::MAX, 0, "[2,3]", 50)),
                steps(&db, FIGURES, (1, COUNTED_MAX + 1)),
            ]
        };
        order(1, 3 * COUNTED_MAX);
        let few = cost();
        order(3 * COUNTED_MAX + 1, 20 * COUNTED_MAX);
        assert_eq!(cost(), few);
    }

    /// The products that a search finds, and the users who ordered one of them.
    async fn found(store: &Store, text: &str) -> (Vec<u128>, Vec<u128>) {
        let words = shop_events::search::words(text).unwrap();
        read(store, move |it| {
            let found = products(it, Some(&words), None, 10)?.unwrap();
            let numbers: Vec<i64> = found.iter().map(|it| it.0).collect();
            let (mut all, mut from) = (Vec::new(), None);
            loop {
                let (users, next) = buyers(it, &numbers, from, 2)?;
                all.extend(users.iter().map(|it| it.id.as_u128()));
                from = next;
                if next.is_none() {
                    let found = found.iter().map(|it| it.1.id.as_u128());
                    return Ok((found.collect(), all));
                }
            }
        })
        .await
    }

    #[tokio::test]
    async fn a_title_finds_its_product_and_the_users_who_ordered_it() {
        let renamed = envelope(&ProductUpdated {
            product_id: Uuid::from_u128(22).to_string(),
            title: "Brass compass".to_owned(),
            image: String::new(),
        });
        let store = store([
            // The order comes before its products.
            vec![placed(1, &[20, 21], 1), placed(2, &[22], 2)],
            vec![placed(3, &[21], 3), placed(4, &[20, 22], 4)],
            vec![placed(4, &[20], 2)],
            vec![created(20, "Enamel Müg, river green"), created(21, "חצובה")],
            vec![created(22, "Old mug"), renamed],
        ])
        .await;
        assert_eq!(found(&store, "mug").await, (vec![20], vec![4, 1]));
        assert_eq!(found(&store, "GREEN river").await, (vec![20], vec![4, 1]));
        assert_eq!(found(&store, "com").await, (vec![22], vec![4, 2]));
        assert_eq!(found(&store, "חצו").await, (vec![21], vec![3, 1]));
        assert_eq!(found(&store, "old").await, (vec![], vec![]));
        assert_eq!(found(&store, "mug\" OR \"compass").await, (vec![], vec![]));
        let of_mug = read(&store, |it| {
            let (number, product) = find_product(it, Uuid::from_u128(20))?.unwrap();
            Ok((product.look.unwrap().0, sales(it, number)?))
        });
        let (title, sales) = of_mug.await;
        assert_eq!(title, "Enamel Müg, river green");
        let expected = Sales {
            users: 2,
            last_ordered_at: Some(4),
            of_newest: None,
        };
        assert_eq!(sales, expected);
    }

    #[tokio::test]
    async fn a_search_of_very_many_titles_is_broken_off() {
        let store = store([]).await;
        let written = store.db.write(|tx| {
            tx.run_raw(raw_sql!(
                Sqlite,
                "WITH RECURSIVE line (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM line WHERE n < 60000)
                 INSERT INTO product (id, title, image) SELECT randomblob(16), 'A mug', '' FROM line"
            ))
        });
        written.await.unwrap();
        let search = async |text: &str| {
            let words = shop_events::search::words(text).unwrap();
            let found = read(&store, move |it| products(it, Some(&words), None, 10));
            found.await.map(|found| found.len())
        };
        // Every title has the word, and none has it twice: FTS5 looks through all of them 100 times.
        assert_eq!(search(&"a-".repeat(100)).await, None);
        assert_eq!(search("mug a").await, Some(10));
    }

    #[tokio::test]
    async fn a_page_of_buyers_looks_at_a_bounded_number_of_users_and_continues() {
        let store = store([
            vec![placed(1, &[20], 1)],
            (2..=1_300).map(registered).collect(),
        ])
        .await;
        let numbers: Vec<i64> = (1..=i64::try_from(FOUND_MAX).unwrap()).collect();
        let (mut pages, mut from) = (0, None);
        let last = loop {
            let numbers = numbers.clone();
            let (users, next) = read(&store, move |it| buyers(it, &numbers, from, 10)).await;
            pages += 1;
            from = next;
            if next.is_none() {
                break users;
            }
            assert!(users.is_empty());
        };
        assert_eq!((pages, last.len()), (3, 1), "500 users a page");
    }
}
