//! Where to publish from: what the stream's tail, the outbox and this relay know.

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

/// What reading the tail came to.
pub(crate) enum ResumePoint {
    /// The next event goes after `cursor`.
    Continue {
        cursor: StreamCursor,
        /// The newest event that is known to be stored.
        note: Note,
        /// How many events the stream has lost since they were stored; they are published again.
        lost: u64,
        /// Where the stream began when its tail was read.
        begins: StreamStart,
    },
    /// The stream and the outbox contradict each other.
    Contradiction(Stop),
}

/// Reads the stream's tail and compares it with the outbox, and with what is `known` to be stored.
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
        // A database that has looked at this stream before steps over what others publish.
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
    // An operator's limit takes events out of the stream, and an older event at the end is no
    // loss as long as the newest is still where it was: somebody published it once more.
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
             source, the database ends with {head}"
        ),
        Some(row) if row.subject != own.subject || row.payload != own.payload => format!(
            "position {position} is one event in the stream and another in the database \
             (sequence {sequence} of the stream)"
        ),
        Some(_) => return Ok(None),
    };
    let source = db.owner();
    let advice = format!(
        "either somebody published onto the subjects of {source}, or the database was put back \
         from an old copy. `headwater verify --source {source}` shows both events. If the \
         database is right, `headwater stream restore {source}` fills the stream again from \
         it; if it is old, put back the newest copy of the database, and the relay goes on by \
         itself; without a newer copy, see docs/operations.md"
    );
    Ok(Some(Stop::Contradiction { what, advice }))
}

/// This database knows nothing of the events of another epoch, and has none in the stream.
fn unknown_epoch(source: &str, epoch: &str, foreign: &EventId) -> Stop {
    Stop::Contradiction {
        what: format!(
            "the stream has events of the epoch {} up to position {}, and none of this database, \
             whose epoch is {epoch}: the database was lost, emptied or exchanged",
            foreign.epoch, foreign.position
        ),
        advice: format!(
            "put back the newest copy of the database, and the relay goes on by itself; or begin \
             a new epoch: `headwater stream restore {source}` forgets the events of the former \
             one (docs/operations.md)"
        ),
    }
}
