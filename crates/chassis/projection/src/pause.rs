//! The operator's stored pause of a projection, until an operator resumes it.
//!
//! Events that come meanwhile stay in the stream and are applied afterwards. The pause is stored in
//! the service's database, so a restart does not end it; the [barrier](crate::barrier) enforces it.

use headwater_nats::control::Pause;
use headwater_store::{Database, Tx};
use headwater_telemetry::Clock;
use headwater_telemetry::health::{Health, State};
use sea_orm::{ConnectionTrait, DbErr, Statement, Value};

use crate::barrier::ApplyBarrier;
use crate::error::Error;

/// The stored pause of `projection`, if any.
pub(super) fn load(db: &impl ConnectionTrait, projection: &str) -> Result<Option<Pause>, DbErr> {
    let row = db.query_one_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        "SELECT since, reason FROM headwater_pause WHERE projection = ?",
        [Value::from(projection)],
    ))?;
    row.map(|row| {
        Ok(Pause {
            since: row.try_get_by("since")?,
            reason: row.try_get_by("reason")?,
        })
    })
    .transpose()
}

/// Stores or removes the pause of `projection`.
pub fn save(tx: &Tx, projection: &str, pause: Option<&Pause>) -> Result<(), DbErr> {
    let backend = tx.get_database_backend();
    tx.run_raw(match pause {
        Some(pause) => Statement::from_sql_and_values(
            backend,
            "INSERT INTO headwater_pause (projection, since, reason) VALUES (?, ?, ?)
             ON CONFLICT DO UPDATE SET since = excluded.since, reason = excluded.reason",
            [
                projection.into(),
                pause.since.into(),
                (&*pause.reason).into(),
            ] as [Value; 3],
        ),
        None => Statement::from_sql_and_values(
            backend,
            "DELETE FROM headwater_pause WHERE projection = ?",
            [Value::from(projection)],
        ),
    })
}

/// The operator's pause control of one projection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PauseControl {
    projection: &'static str,
    db: Database,
    barrier: ApplyBarrier,
    health: Health,
}

impl PauseControl {
    /// The control for `projection`, whose events go through `barrier`. If `db` has a stored pause,
    /// it applies at once.
    pub(super) async fn load(
        projection: &'static str,
        db: Database,
        barrier: ApplyBarrier,
        health: Health,
    ) -> Result<Self, DbErr> {
        let pause = db.read(move |snapshot| load(snapshot, projection)).await?;
        let pause_control = Self {
            projection,
            db,
            barrier,
            health,
        };
        pause_control.put(pause).await;
        Ok(pause_control)
    }

    /// The pause, if any.
    pub fn now(&self) -> Option<Pause> {
        self.barrier.pause()
    }

    /// Pauses the projection. Returns once it has stopped applying. If it was already paused, the
    /// start time stays.
    ///
    /// # Errors
    /// [`Error::PauseNotStored`].
    pub async fn pause(&self, reason: String) -> Result<(), Error> {
        let this = self.clone();
        let store = move |tx: &Tx| this.store(tx, reason.clone());
        let stored = self.db.write(store).await.map_err(Error::PauseNotStored)?;
        self.begin(stored.value).await;
        Ok(())
    }

    /// Stores a pause with other work. Once that is committed, [`begin`](Self::begin) it; a restart
    /// does so, too. If the projection was already paused, the start time stays.
    ///
    /// # Errors
    /// The database's.
    pub fn store(&self, tx: &Tx, reason: String) -> Result<Pause, DbErr> {
        let since = self.now().map(|pause| pause.since);
        let since = since.unwrap_or_else(|| tx.now_ms());
        let pause = Pause { since, reason };
        save(tx, self.projection, Some(&pause))?;
        Ok(pause)
    }

    /// Begins a stored pause. Returns once the projection has stopped applying.
    pub async fn begin(&self, pause: Pause) {
        tracing::warn!(
            projection = self.projection,
            reason = pause.reason,
            "the projection is paused"
        );
        self.put(Some(pause)).await;
    }

    /// Resumes the projection.
    ///
    /// # Errors
    /// [`Error::PauseNotRemoved`].
    pub async fn resume(&self) -> Result<(), Error> {
        let projection = self.projection;
        let forget = self.db.write(move |tx| save(tx, projection, None)).await;
        forget.map_err(Error::PauseNotRemoved)?;
        if self.now().is_some() {
            tracing::info!(
                projection = self.projection,
                "an operator resumed the projection"
            );
        }
        self.put(None).await;
        Ok(())
    }

    async fn put(&self, pause: Option<Pause>) {
        match &pause {
            Some(pause) => self.health.set(self.projection, self.state_of(pause)),
            None => self.health.forget(self.projection),
        }
        self.barrier.set_pause(pause).await;
    }

    fn state_of(&self, pause: &Pause) -> State {
        State::Degraded(format!(
            "paused since {}: {}; `headwater projection resume {}` resumes it",
            Clock::text(pause.since),
            pause.reason,
            self.projection
        ))
    }
}
