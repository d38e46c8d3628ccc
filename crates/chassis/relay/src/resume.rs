//! Finds the resume point from the stream's tail, the outbox and the relay's note.

use anyhow::Context as _;
use async_nats::jetstream::stream::Stream;
use headwater_event::EventId;
use headwater_nats::stream;
use headwater_store::{Database, outbox};
use sea_orm::DbErr;

use crate::cursor::{StreamCursor, StreamStart};
use crate::memory::Note;
use crate::stop::Stop;
use crate::tail::{self, Own, Tail};

/// The result of reading the tail.
pub(crate) enum ResumePoint {
    /// Publish the next event after `cursor`.
    Continue {
        cursor: StreamCursor,
        /// The newest event known to be stored.
        note: Note,
        /// How many stored events the stream has lost; they are published again.
        lost: u64,
        /// Where the stream began when the tail was read.
        begins: StreamStart,
    },
    /// The stream and the outbox contradict each other.
    Contradiction(Stop),
}

/// Compares the stream's tail with the outbox and with the note of what is `known` to be stored.
pub(crate) async fn find(
    db: &Database,
    stream: &Stream,
    known: Note,
) -> anyhow::Result<ResumePoint> {
    let (source, epoch) = (db.owner(), &*db.epoch());
    let tail = Tail::read(stream, source, epoch)
        .await
        .context("read the stream's tail")?;
    let stop = match (&tail.own, &tail.foreign) {
        (Some(own), _) => contradiction(db, own).await?,
        // A database that has read this stream before skips events published by others.
        (None, Some(foreign)) if !known.is_of(&tail.info) => {
            Some(unknown_epoch(source, epoch, foreign))
        }
        _ => None,
    };
    if let Some(stop) = stop {
        return Ok(ResumePoint::Contradiction(stop));
    }
    let found = tail.own.map_or(StreamCursor::START, |own| StreamCursor {
        position: own.position,
        sequence: own.sequence,
    });
    let is_behind = found.position < known.cursor.position;
    // An operator's limit may remove events. An older event at the end is not a loss if the newest
    // is still in its place: then an old event was published again by hand.
    let is_loss = is_behind
        && !(known.is_of(&tail.info) && stream::is_discarded(&tail.info, known.cursor.sequence))
        && !tail::holds(stream, source, epoch, known.cursor).await?;
    let newest = if is_behind && !is_loss {
        known.cursor
    } else {
        found
    };
    Ok(ResumePoint::Continue {
        cursor: StreamCursor {
            position: newest.position,
            sequence: tail.info.state.last_sequence,
        },
        note: Note {
            stream_created: stream::created(&tail.info),
            cursor: newest,
        },
        lost: if is_loss {
            known.cursor.position - found.position
        } else {
            0
        },
        begins: StreamStart::of(&tail.info),
    })
}

/// Why `own` cannot be a copy of this outbox's event, if it cannot.
async fn contradiction(db: &Database, own: &Own) -> anyhow::Result<Option<Stop>> {
    let position = own.position;
    let (head, row) = db
        .read(move |snapshot| {
            let row = outbox::page(snapshot, position, 1)?.pop();
            Ok::<_, DbErr>((outbox::head(snapshot)?, row))
        })
        .await?;
    let sequence = own.sequence;
    let what = match row {
        None => format!(
            "the stream is ahead: it has position {position} (sequence {sequence}) of this \
             source, but the database ends with {head}"
        ),
        Some(row) if row.subject != own.subject || row.payload != own.payload => format!(
            "position {position} is one event in the stream and another in the database \
             (sequence {sequence} of the stream)"
        ),
        Some(_) => return Ok(None),
    };
    let source = db.owner();
    let advice = format!(
        "either an event was published by hand onto the subjects of {source}, or the database \
         was restored from an old copy. `headwater verify --source {source}` shows both events. \
         If the database is right, refill the stream from it: `headwater stream restore \
         {source}`. If the database is old, put back the newest copy, and the relay resumes \
         automatically; without a newer copy, see docs/operations.md"
    );
    Ok(Some(Stop::Contradiction { what, advice }))
}

/// The stream has events of another epoch, and none of this database.
fn unknown_epoch(source: &str, epoch: &str, foreign: &EventId) -> Stop {
    Stop::Contradiction {
        what: format!(
            "the stream has events of the epoch {} up to position {}, and none of this \
             database's epoch {epoch}: the database was lost, emptied or replaced",
            foreign.epoch, foreign.position
        ),
        advice: format!(
            "put back the newest copy of the database, and the relay resumes automatically; or \
             begin a new epoch: `headwater stream restore {source}` removes the events of the \
             former epoch (docs/operations.md)"
        ),
    }
}
