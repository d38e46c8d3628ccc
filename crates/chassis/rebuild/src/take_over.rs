//! Puts a new store into service: by swapping the file, or by changing the rows that differ.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use headwater_projection::barrier::BarrierGuard;
use headwater_projection::pause;
use headwater_projection::projection::Projection;
use headwater_projection::runner::RunnerHandle;
use headwater_store::{Database, Tx, WriteError};
use headwater_telemetry::crash;
use sea_orm::DbErr;
use tokio::sync::mpsc;

use crate::align::Aligned;
use crate::changes::{self, CHANGES_MAX, Change};
use crate::compare::Stores;
use crate::thread::on_thread;

/// How long to wait for a full writer queue.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// The pause before a chunk is retried for which the writer had no room.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// Swaps in the new store; the live projection continues with it.
pub(super) async fn swap<P: Projection>(
    live: &RunnerHandle<P>,
    next: Database,
    guard: BarrierGuard,
) -> anyhow::Result<()> {
    let db = live.db();
    carry_pause(live, &next).await?;
    let old = db.switch_to(next)?;
    note_tables(live, true).await?;
    drop(guard);
    crash::point("rebuild.swapped");
    tracing::info!(projection = P::NAME, path = %db.path().display(), "the new store serves");
    old.retire().await;
    Ok(())
}

/// Updates the live projection's positions from its new tables.
async fn note_tables<P: Projection>(
    live: &RunnerHandle<P>,
    is_complete: bool,
) -> anyhow::Result<()> {
    let read = live
        .db()
        .read(|snapshot| headwater_projection::as_of::<P>(snapshot));
    live.note_tables(read.await?, is_complete);
    Ok(())
}

/// Copies the pause to the new store: no event carries it.
async fn carry_pause<P: Projection>(live: &RunnerHandle<P>, next: &Database) -> anyhow::Result<()> {
    let pause = live.barrier().pause();
    let saved = next.write(move |tx| pause::save(tx, P::NAME, pause.as_ref()));
    match saved.await {
        Ok(_) => Ok(()),
        Err(error) => Err(anyhow!("{error}")).context("copy the pause"),
    }
}

/// Makes the live tables equal to those of `db`, at the sequences at which both are `aligned`.
/// Returns how long the live projection was stopped there.
pub(super) async fn merge<P: Projection>(
    live: &RunnerHandle<P>,
    db: &Database,
    aligned: Aligned,
) -> anyhow::Result<Duration> {
    let taking_over = TakingOver::begin(live);
    // Writes of the tables that began before this are done afterwards.
    write(live, |_| Ok(())).await?;
    let changed = change_rows(live, db).await.context("change the rows")?;
    drop(taking_over);
    note_tables(live, live.is_complete()).await?;
    let stopped_for = aligned.took();
    drop(aligned);
    crash::point("rebuild.merged");
    tracing::info!(
        projection = P::NAME,
        changed,
        "the live tables are equal to the new store's"
    );
    Ok(stopped_for)
}

/// Changes the rows that differ from those of `db`; returns how many.
async fn change_rows<P: Projection>(
    live: &RunnerHandle<P>,
    db: &Database,
) -> anyhow::Result<usize> {
    let (live_path, rebuilt_path) = (live.db().path(), db.path());
    // The next chunk is found while one is written.
    let (sender, mut found) = mpsc::channel(1);
    let finding = on_thread("merge", move || {
        find(&live_path, &rebuilt_path, P::NAME, P::TABLES, &sender)
    });
    let mut count = 0;
    while let Some(Chunk { changes, is_last }) = found.recv().await {
        count += changes.len();
        let changes = Arc::new(changes);
        if is_last {
            // The version is stored with the last changes.
            write(live, move |tx| {
                apply(&changes, tx)?;
                headwater_projection::note_version(tx, P::NAME, P::VERSION)
            })
            .await?;
        } else {
            write(live, move |tx| apply(&changes, tx)).await?;
        }
        crash::point("rebuild.merging");
    }
    finding.await.context("compare the rows")?;
    Ok(count)
}

/// Runs `work` in its own transaction in the live database. For a while, a busy service goes first.
async fn write<P: Projection>(
    live: &RunnerHandle<P>,
    work: impl Fn(&Tx) -> Result<(), DbErr> + Clone + Send + 'static,
) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        match live.db().write_exclusive(work.clone()).await {
            Ok(()) => return Ok(()),
            Err(WriteError::Refused(error)) => return Err(error.into()),
            Err(WriteError::Busy) if began.elapsed() < BUSY_MAX => {}
            // Wait for room, as all writes do.
            Err(WriteError::Full) => {}
            Err(error) => return Err(anyhow!("{error}")),
        }
        tokio::time::sleep(BUSY_PAUSE).await;
    }
}

/// Rows to change in one transaction.
struct Chunk {
    changes: Vec<Change>,
    is_last: bool,
}

/// Finds the differing rows and sends them in chunks; the last chunk may be empty.
fn find(
    live: &Path,
    rebuilt: &Path,
    projection: &str,
    tables: &[&str],
    chunks: &mpsc::Sender<Chunk>,
) -> rusqlite::Result<()> {
    let stores = Stores::open(live, rebuilt)?;
    let send = |changes, is_last| {
        let chunk = Chunk { changes, is_last };
        chunks.blocking_send(chunk).is_ok()
    };
    let mut changes = Vec::new();
    let mut is_wanted = true;
    changes::between(&stores, projection, tables, &mut |change| {
        changes.push(change);
        if changes.len() == CHANGES_MAX {
            is_wanted = send(std::mem::take(&mut changes), false);
        }
        is_wanted
    })?;
    // Fails only if the receiver is gone.
    send(changes, true);
    Ok(())
}

fn apply(changes: &[Change], tx: &Tx) -> Result<(), DbErr> {
    changes.iter().try_for_each(|change| change.apply(tx))
}

/// While it lives, operators cannot change the tables that are made equal to the new store's.
struct TakingOver<P: Projection>(RunnerHandle<P>);

impl<P: Projection> TakingOver<P> {
    fn begin(live: &RunnerHandle<P>) -> Self {
        live.set_taken_over(true);
        Self(live.clone())
    }
}

impl<P: Projection> Drop for TakingOver<P> {
    fn drop(&mut self) {
        self.0.set_taken_over(false);
    }
}
