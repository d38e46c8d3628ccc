//! Queries of the pages' lists. Each reads a bounded number of rows.

use headwater::database::RawSnapshot;
use headwater::http::cut;
use rusqlite::Row;
use sea_orm::DbErr;
use uuid::Uuid;

use crate::list::{From, Product, Sales, Shopper};

/// The most pairs of a user and a product that one page looks up, 1 µs each: there is no index from
/// a product to its users, which would make every purchase half as large again. Pages that need
/// more continue on the next one.
const LOOKUPS_MAX: i64 = 50_000;

/// The fewest users that such a page looks at, for however many products.
const USERS_MIN: i64 = 500;

/// The most products of a search whose users are listed.
pub(super) const FOUND_MAX: usize = 100;

const RECENT: &str =
    "SELECT id, (SELECT count(*) FROM purchase WHERE user = recent.user), ordered_at
     FROM recent CROSS JOIN user ON number = recent.user
     WHERE state <> 2
       AND (ordered_at, recent.user) < (?1, (SELECT number FROM user WHERE id = ?2))
     ORDER BY ordered_at DESC, recent.user DESC LIMIT ?3";

const OTHERS: &str = "SELECT id, (SELECT count(*) FROM purchase WHERE user = number),
            (SELECT max(first_ordered_at + span) FROM purchase WHERE user = number)
     FROM user
     WHERE state <> 2 AND number < ?1 AND number NOT IN (SELECT user FROM recent)
     ORDER BY number DESC LIMIT ?2";

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
        Some((at, user)) => snapshot.rows(RECENT, (at, user, limit + 1), shopper)?,
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
    let mut others = snapshot.rows(OTHERS, (before, room + 1), shopper)?;
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

fn shopper(row: &Row<'_>) -> rusqlite::Result<Shopper> {
    Ok(Shopper {
        id: Uuid::from_bytes(row.get(0)?),
        products: row.get(1)?,
        last_ordered_at: row.get(2)?,
    })
}

/// Those of `users` who are known here, in their order.
pub(super) fn known(snapshot: &RawSnapshot, users: &[Uuid]) -> Result<Vec<Shopper>, DbErr> {
    let find = |user: &Uuid| {
        snapshot
            .row(
                "SELECT id, (SELECT count(*) FROM purchase WHERE user = number),
                    (SELECT max(first_ordered_at + span) FROM purchase WHERE user = number)
             FROM user WHERE id = ? AND state <> 2",
                [user.as_bytes()],
                shopper,
            )
            .transpose()
    };
    users.iter().filter_map(find).collect()
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

/// The newest products; with `words`, a query of FTS5, those whose titles have them.
pub(super) fn products(
    snapshot: &RawSnapshot,
    words: Option<&str>,
    from: Option<Uuid>,
    limit: usize,
) -> Result<Vec<Numbered>, DbErr> {
    let before = match from {
        Some(product) => product_number(snapshot, product)?,
        None => i64::MAX,
    };
    match words {
        Some(words) => snapshot.rows(
            "SELECT number, id, product.title, image
             FROM titles CROSS JOIN product ON number = titles.rowid
             WHERE titles MATCH ?1 AND titles.rowid < ?2 ORDER BY titles.rowid DESC LIMIT ?3",
            (words, before, limit),
            numbered,
        ),
        None => snapshot.rows(
            "SELECT number, id, title, image FROM product
             WHERE title IS NOT NULL AND number < ?1 ORDER BY number DESC LIMIT ?2",
            (before, limit),
            numbered,
        ),
    }
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
    let mut users = snapshot.rows(
        "SELECT id, (SELECT count(*) FROM purchase WHERE user = number),
                (SELECT max(first_ordered_at + span) FROM purchase WHERE user = number)
         FROM user
         WHERE state <> 2 AND number < ?1 AND number >= ?2 AND EXISTS (
             SELECT 1 FROM purchase
             WHERE purchase.user = user.number AND product IN (SELECT value FROM json_each(?3)))
         ORDER BY number DESC LIMIT ?4",
        (before, lowest, numbers, limit + 1),
        shopper,
    )?;
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
                    .map(|it| (it.id.as_u128(), it.products, it.last_ordered_at)),
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

    /// The products that a search finds, and the users who ordered one of them.
    async fn found(store: &Store, text: &str) -> (Vec<u128>, Vec<u128>) {
        let words = shop_events::search::words(text).unwrap();
        read(store, move |it| {
            let found = products(it, Some(&words), None, 10)?;
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
