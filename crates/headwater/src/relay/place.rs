//! Finding the place to publish from: what the stream's tail, the outbox and this relay know.

use anyhow::Context as _;
use async_nats::jetstream::stream::Stream;
use sea_orm::DbErr;

use super::tail::{self, Own, Tail};
use super::{Beginning, Relay};
use crate::outbox;

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
    /// The stream and the outbox contradict each other: why.
    Contradiction(String),
}

impl Relay {
    /// Reads the stream's tail and compares it with the outbox and with what this relay knows.
    pub(super) async fn take_place(&mut self, stream: &Stream) -> anyhow::Result<Finding> {
        let (source, epoch) = (self.db.owner(), &*self.db.epoch());
        let tail = Tail::read(stream, source, epoch)
            .await
            .context("read the stream's tail")?;
        if let Some(own) = &tail.own
            && let Some(reason) = self.contradiction(own).await?
        {
            return Ok(Finding::Contradiction(reason));
        }
        let found = tail.own.map_or(Place::START, |own| Place {
            position: own.position,
            sequence: own.sequence,
        });
        let known = self.acknowledged;
        // An older event at the end is no loss as long as the newest is still where it was: then
        // somebody published the older one once more.
        let is_loss = found.position < known.position
            && !tail::holds(stream, source, epoch, known.position, known.sequence).await?;
        if is_loss {
            self.warn_of_loss(found.position);
            // What is gone is published again, wherever the stream begins now.
            self.begins = Beginning::of(stream.cached_info());
        }
        if is_loss || found.position >= known.position {
            self.acknowledged = found;
        }
        Ok(Finding::Continue(Place {
            position: self.acknowledged.position,
            sequence: tail.last_sequence,
        }))
    }

    fn warn_of_loss(&self, position: u64) {
        let lost = self.acknowledged.position - position;
        tracing::warn!(
            source = self.db.owner(),
            position,
            acknowledged = self.acknowledged.position,
            "the stream lost events: publishing {lost} again from the outbox"
        );
        metrics::counter!("headwater_relay_republished_total", "source" => self.db.owner().to_owned())
            .increment(lost);
    }

    /// Why `own` cannot be a copy of this outbox's event, if it cannot.
    async fn contradiction(&self, own: &Own) -> anyhow::Result<Option<String>> {
        let position = own.position;
        let (head, row) = self
            .db
            .read(move |snapshot| {
                let row = outbox::page(snapshot, position, 1)?.pop();
                Ok::<_, DbErr>((outbox::head(snapshot)?, row))
            })
            .await?;
        Ok(match row {
            None => Some(format!(
                "the stream is ahead: it ends with position {position} of this source, the \
                 database with {head}: the database was put back from an old copy"
            )),
            Some(row) if row.subject != own.subject || row.payload != own.payload => Some(format!(
                "position {position} is one event in the stream and another in the database: \
                 the database was put back from an old copy and written to since"
            )),
            Some(_) => None,
        })
    }
}
