//! Finding the place to publish from: what the stream's tail, the outbox and this relay know.

use anyhow::Context as _;
use async_nats::jetstream::stream::Stream;
use sea_orm::DbErr;

use super::memory::Note;
use super::tail::{self, Own, Tail};
use super::{Beginning, Relay, Stop};
use crate::envelope::EventId;
use crate::{outbox, stream};

/// Where an event is, or where the next one goes: after the last own position, and after the
/// stream's last sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) position: u64,
    pub(super) sequence: u64,
}

impl Place {
    /// Before the first event.
    pub(super) const START: Self = Self {
        position: 0,
        sequence: 0,
    };
}

/// What reading the tail came to.
pub(super) enum Finding {
    Continue(Place),
    /// The stream and the outbox contradict each other.
    Contradiction(Stop),
}

impl Relay {
    /// Reads the stream's tail and compares it with the outbox and with what this relay knows.
    pub(super) async fn take_place(&mut self, stream: &Stream) -> anyhow::Result<Finding> {
        let (source, epoch) = (self.db.owner(), &*self.db.epoch());
        let known = self.known().await.context("load the relay's note")?;
        let tail = Tail::read(stream, source, epoch)
            .await
            .context("read the stream's tail")?;
        let stop = match (&tail.own, &tail.foreign) {
            (Some(own), _) => self.contradiction(own).await?,
            // A database that has looked at this stream before steps over what others publish.
            (None, Some(foreign)) if !known.is_of(&tail.info) => {
                Some(unknown_epoch(source, epoch, foreign))
            }
            _ => None,
        };
        if let Some(stop) = stop {
            return Ok(Finding::Contradiction(stop));
        }
        let found = tail.own.map_or(Place::START, |own| Place {
            position: own.position,
            sequence: own.sequence,
        });
        let is_behind = found.position < known.place.position;
        // An operator's limit takes events out of the stream, and an older event at the end is no
        // loss as long as the newest is still where it was: somebody published it once more.
        let is_loss = is_behind
            && !(known.is_of(&tail.info) && stream::is_discarded(&tail.info, known.place.sequence))
            && !tail::holds(stream, source, epoch, known.place).await?;
        if is_loss {
            self.warn_of_loss(known.place.position, found.position);
            // What is gone is published again, wherever the stream begins now.
            self.begins = Beginning::of(&tail.info);
        }
        let place = if is_behind && !is_loss {
            known.place
        } else {
            found
        };
        self.note(Note {
            stream_created: stream::created(&tail.info),
            place,
        });
        Ok(Finding::Continue(Place {
            position: place.position,
            sequence: tail.info.state.last_sequence,
        }))
    }

    fn warn_of_loss(&self, acknowledged: u64, position: u64) {
        let lost = acknowledged - position;
        tracing::warn!(
            source = self.db.owner(),
            position,
            acknowledged,
            "the stream lost events: publishing {lost} again from the outbox"
        );
        metrics::counter!("headwater_relay_republished_total", "source" => self.db.owner().to_owned())
            .increment(lost);
    }

    /// Why `own` cannot be a copy of this outbox's event, if it cannot.
    async fn contradiction(&self, own: &Own) -> anyhow::Result<Option<Stop>> {
        let position = own.position;
        let (head, row) = self
            .db
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
        let source = self.db.owner();
        let advice = format!(
            "either somebody published onto the subjects of {source}, or the database was put back \
             from an old copy. `headwater verify --source {source}` shows both events. If the \
             database is right, `headwater stream restore {source}` fills the stream again from \
             it; if it is old, put back the newest copy of the database, and the relay goes on by \
             itself; without a newer copy, see docs/operations.md"
        );
        Ok(Some(Stop::Contradiction { what, advice }))
    }
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
