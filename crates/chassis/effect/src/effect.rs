//! The trait that authors of effects implement.

use std::time::Duration;

use headwater_event::Envelope;
use headwater_projection::ApplyError;
use headwater_store::Tx;

/// Work outside of the database that events cause. See the [crate] for the rules.
pub trait Effect: Send + Sync + 'static {
    /// The last part of every key, the key of the checkpoint, and the durable consumer's name.
    /// Never rename.
    const NAME: &'static str;
    /// The sources whose events it reads.
    const SOURCES: &'static [&'static str];
    /// The events that it intends something for, each as the [`Event::SUBJECT`] of its newest
    /// version, which [`Envelope::decode`] reads old ones as; it passes others.
    ///
    /// [`Event::SUBJECT`]: headwater_event::Event::SUBJECT
    const EVENTS: &'static [&'static str];

    /// Decides what to do about `event`, in the transaction that moves the checkpoint. May write to
    /// tables of its own, which are then never rebuilt. By default, each event is performed at once.
    ///
    /// # Errors
    /// Transient: tried again. Poison: the event becomes a dead letter without an intent; a retry
    /// decides again.
    fn intend(&self, tx: &Tx, event: &Envelope) -> Result<Intent, ApplyError> {
        let _ = (tx, event);
        Ok(Intent::Now)
    }

    /// The key of `event`. The intents of a key are performed in the order of their events, each
    /// after the one before is done or a dead letter. `None`: as soon as there is room.
    fn key(&self, event: &Envelope) -> Option<String> {
        let _ = event;
        None
    }

    /// Does the work for `event`. Its `key`, `source:epoch:position:name`, is the same at each
    /// attempt, and no two attempts overlap. Send it along: after a crash, work that was done is
    /// done again.
    fn perform(&self, event: &Envelope, key: &str) -> impl Future<Output = Outcome> + Send;
}

/// What an effect intends for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Intent {
    /// Nothing.
    None,
    /// To perform it at once.
    Now,
    /// To perform it this much later, and after every event that the sources recorded until then was
    /// read: a timer.
    After(Duration),
}

/// The result of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The work is done.
    Done,
    /// It may succeed later.
    Retry {
        /// Why it failed.
        reason: String,
        /// How long to wait at least. More than a day counts as a day.
        after: Option<Duration>,
    },
    /// It will never succeed, with the reason. Does not count as a failure of the receiver.
    GiveUp(String),
    /// The receiver wants no more, with the reason.
    SwitchOff(String),
}

impl Outcome {
    /// The work failed and is tried again by the schedule.
    pub fn retry(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Retry {
            reason,
            after: None,
        }
    }

    /// The work failed and is tried again by the schedule, but not before `after`. A time of more
    /// than a day counts as a day.
    pub fn retry_after(reason: impl Into<String>, after: Duration) -> Self {
        let (reason, after) = (reason.into(), Some(after));
        Self::Retry { reason, after }
    }
}
