//! The relay's note in the database: where its newest event was stored.
//!
//! The tail of the stream shows how far the relay got, as long as the stream has one. It does not
//! show that the stream lost events, that an operator's age limit removed them, or that this
//! database has never published into the stream. So the relay also notes the cursor of its newest
//! event: at most once per second, after publishing, without delaying anything. The note may be
//! behind. That is safe, because the tail shows what was published since.

use std::time::Duration;

use async_nats::jetstream::stream::Info;
use headwater_nats::stream;
use headwater_store::number::{signed, unsigned};
use headwater_store::{Database, Snapshot, Tx, WriteError};
use sea_orm::{ConnectionTrait as _, DbErr, Statement, Value};
use tokio::sync::watch;

use crate::cursor::StreamCursor;

/// How often the note is saved, at most.
const EVERY: Duration = Duration::from_secs(1);

/// Where the newest event is stored, and in which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Note {
    /// When the stream was created, in nanoseconds since 1970; 0 before the first.
    pub(crate) stream_created: i64,
    pub(crate) cursor: StreamCursor,
}

impl Note {
    /// Nothing is known yet.
    pub(crate) const NONE: Self = Self {
        stream_created: 0,
        cursor: StreamCursor::START,
    };

    pub(crate) fn is_of(self, info: &Info) -> bool {
        self.stream_created == stream::created(info)
    }
}

/// The note of this epoch of the database.
pub(crate) async fn load(db: &Database) -> Result<Note, DbErr> {
    let epoch = db.epoch();
    let load = move |snapshot: &Snapshot| {
        let row = snapshot.query_one_raw(Statement::from_sql_and_values(
            snapshot.get_database_backend(),
            "SELECT stream_created, sequence, position FROM headwater_relay WHERE epoch = ?",
            [Value::from(&*epoch)],
        ))?;
        let Some(row) = row else {
            return Ok(Note::NONE);
        };
        Ok::<_, DbErr>(Note {
            stream_created: row.try_get_by("stream_created")?,
            cursor: StreamCursor {
                position: unsigned(row.try_get_by("position")?),
                sequence: unsigned(row.try_get_by("sequence")?),
            },
        })
    };
    db.read(load).await
}

/// Saves the note on every change. Runs until it is dropped.
pub(crate) async fn keep(db: &Database, mut noted: watch::Receiver<Note>) {
    while noted.changed().await.is_ok() {
        let note = *noted.borrow_and_update();
        save(db, note).await;
        tokio::time::sleep(EVERY).await;
    }
    std::future::pending::<()>().await;
}

/// Saves `note`. If that fails, the next save makes up for it.
pub(crate) async fn save(db: &Database, note: Note) {
    let epoch = db.epoch();
    let save = move |tx: &Tx| {
        tx.execute_raw(Statement::from_sql_and_values(
            tx.get_database_backend(),
            "INSERT INTO headwater_relay (id, epoch, stream_created, sequence, position)
             VALUES (1, ?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET epoch = excluded.epoch, sequence = excluded.sequence,
                 stream_created = excluded.stream_created, position = excluded.position",
            [
                (*epoch).into(),
                note.stream_created.into(),
                signed(note.cursor.sequence).into(),
                signed(note.cursor.position).into(),
            ] as [Value; 4],
        ))
        .map(drop)
    };
    let saved: Result<_, WriteError<DbErr>> = db.write(save).await;
    if let Err(error) = saved {
        tracing::debug!(source = db.owner(), %error, "the relay's cursor was not saved");
    }
}
