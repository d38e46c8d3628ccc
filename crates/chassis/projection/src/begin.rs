//! Begins a projection with the events after a time, instead of with the first event.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use headwater_store::{Tx, WriteError};
use headwater_telemetry::causes;
use headwater_telemetry::health::State;
use sea_orm::{ConnectionTrait, DbErr, Statement, Value};

use crate::checkpoint::{self, Checkpoint};
use crate::projection::Projection;
use crate::shared::Shared;
use crate::source::WAITING;
use crate::source_watch;

/// Pauses between attempts while a source does not answer.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Passes the events that each source recorded before `at_ms`, in milliseconds since 1970, unless
/// the projection has begun to read that source. Waits until every source has answered.
pub(crate) async fn after<P: Projection>(shared: &Shared<P>, at_ms: i64) {
    for source in P::SOURCES {
        let mut pause = PAUSE_MIN;
        while let Err(error) = source_after(shared, source, at_ms).await {
            let why = causes(&error);
            tracing::debug!(
                projection = P::NAME,
                source,
                error = why,
                "cannot begin to read"
            );
            let waits = format!("{WAITING}{source} does not say where to begin: {why}");
            shared.sources.get(source).report(State::Degraded(waits));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// The boundary is found in the source's outbox, because a stream that was recreated has later
/// times than its events.
async fn source_after<P: Projection>(
    shared: &Shared<P>,
    source: &'static str,
    at_ms: i64,
) -> anyhow::Result<()> {
    let (db, bus) = (&shared.db, &shared.bus);
    let has_begun = move |snapshot: &_| has_begun(snapshot, P::NAME, source);
    if db.read(has_begun).await.context("load the checkpoint")? {
        return Ok(());
    }
    let answer = source_watch::ask(bus, source, None).await?;
    // The events before `first` are earlier, those from `end` on are not: positions are recorded in
    // order.
    let (mut first, mut end) = (1, answer.head + 1);
    while first < end {
        let middle = first + (end - first) / 2;
        let at = source_watch::ask(bus, source, Some(middle)).await?;
        ensure!(
            at.epoch == answer.epoch,
            "{source} has begun another epoch meanwhile"
        );
        let recorded_at = at.recorded_at;
        let recorded_at = recorded_at.with_context(|| format!("{source} has no event {middle}"))?;
        if recorded_at < at_ms {
            first = middle + 1;
        } else {
            end = middle;
        }
    }
    let checkpoint = Checkpoint::behind(P::NAME, source, &answer.epoch, first - 1);
    let begin = move |tx: &Tx| {
        checkpoint.save(tx)?;
        checkpoint::as_of::<P>(tx)
    };
    let written = db.write(begin).await.map_err(WriteError::flat);
    let as_of = written.context("save the checkpoint")?.value;
    shared.as_of.send_replace(as_of);
    tracing::info!(
        projection = P::NAME,
        source,
        position = first,
        "begins with the event at this position"
    );
    Ok(())
}

fn has_begun(db: &impl ConnectionTrait, projection: &str, source: &str) -> Result<bool, DbErr> {
    let found = db.query_one_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        "SELECT 1 FROM headwater_checkpoint WHERE projection = ? AND source = ?",
        [projection, source].map(Value::from),
    ))?;
    Ok(found.is_some())
}
