//! Reads from the read store.

use std::time::Duration;

use headwater::prelude::*;
use serde::Serialize;

use crate::projection::Bestsellers;

/// A product and how often it was ordered.
#[derive(Debug, PartialEq, Eq, FromQueryResult, Serialize)]
pub(crate) struct Bestseller {
    pub(crate) title: Option<String>,
    pub(crate) lines: i64,
}

/// The `limit` products ordered most, and the positions of the answer, which include `after`.
pub(crate) async fn read(
    db: &Database,
    progress: &Progress,
    after: &Positions,
    deadline: Duration,
    limit: u32,
) -> Result<(Vec<Bestseller>, Positions), Problem> {
    progress.caught_up(after, deadline).await?;
    db.read(move |snapshot| {
        let as_of = as_of::<Bestsellers>(snapshot)?.without_gaps();
        Ok::<_, Problem>((top(snapshot, limit)?, as_of))
    })
    .await
}

pub(crate) fn top(db: &impl ConnectionTrait, limit: u32) -> Result<Vec<Bestseller>, DbErr> {
    let top = raw_sql!(
        Sqlite,
        "SELECT title, lines FROM bestseller ORDER BY lines DESC LIMIT {limit}"
    );
    Bestseller::find_by_statement(top).all(db)
}
