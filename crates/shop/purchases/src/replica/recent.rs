//! The users with the newest orders: the beginning of the list of users.

use std::cmp::Reverse;

use headwater::database::{Bulk, Tx};
use sea_orm::{DbErr, raw_sql};

/// The most users in the list. After them, the pages list the others, the newest user first.
const RECENT_MAX: usize = 500;

const SAVE: Bulk = Bulk {
    before: "INSERT INTO recent (user, ordered_at) VALUES ",
    row: "(?, ?)",
    after: " ON CONFLICT DO UPDATE SET ordered_at = excluded.ordered_at
             WHERE excluded.ordered_at > ordered_at",
};

/// Saves the newest of `orders`, which are users and times, sorted by user.
///
/// A batch that catches up has tens of thousands of orders: all but a few hundred are older than
/// those, and cost nothing.
pub(super) fn save(tx: &Tx, orders: impl Iterator<Item = (i64, i64)>) -> Result<(), DbErr> {
    let mut newest: Vec<(i64, i64)> = Vec::new();
    for (user, at) in orders {
        match newest.last_mut() {
            Some((last, time)) if *last == user => *time = at.max(*time),
            _ => newest.push((user, at)),
        }
    }
    if newest.is_empty() {
        return Ok(());
    }
    if newest.len() > RECENT_MAX {
        newest.select_nth_unstable_by_key(RECENT_MAX, |(user, at)| Reverse((*at, *user)));
        newest.truncate(RECENT_MAX);
        newest.sort_unstable();
    }
    let rows = newest
        .iter()
        .map(|(user, at)| [(*user).into(), (*at).into()]);
    SAVE.run(tx, rows)?;
    let kept = u32::try_from(RECENT_MAX).expect("a few hundred");
    tx.run_raw(raw_sql!(
        Sqlite,
        "DELETE FROM recent WHERE (ordered_at, user) <= (
             SELECT ordered_at, user FROM recent ORDER BY ordered_at DESC, user DESC
             LIMIT 1 OFFSET {kept})"
    ))
}
