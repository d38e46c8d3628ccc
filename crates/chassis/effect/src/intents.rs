//! The projection of an effect: writes an intent for each event.

use headwater_event::{Envelope, is_newer};
use headwater_projection::{ApplyError, Projection};
use headwater_store::Tx;

use crate::begin::{self, Unknown};
use crate::effect::Effect;
use crate::ledger;

/// The projection that writes the intents of the effect `E`.
#[derive(Debug)]
pub struct Intents<E> {
    pub(crate) effect: E,
    pub(crate) unknown: Unknown,
}

impl<E> Intents<E> {
    /// The projection of `effect`.
    pub fn of(effect: E) -> Self {
        Self {
            effect,
            unknown: Unknown::default(),
        }
    }
}

impl<E: Effect> Projection for Intents<E> {
    const NAME: &'static str = E::NAME;
    // Never raised: intents are not rebuilt.
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = E::SOURCES;
    const EVENTS: &'static [&'static [&'static str]] = &[E::EVENTS];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            let kind = event.kind();
            if !E::EVENTS
                .iter()
                .any(|known| *known == kind || is_newer(known, [kind]))
            {
                continue;
            }
            // That of another source counts as none: the message was copied by hand.
            let own = event.id.as_ref().filter(|id| id.source == event.source);
            let Some(id) = own else {
                // Without an id there is no key.
                tracing::warn!(
                    effect = E::NAME,
                    event.subject = &*event.subject,
                    event.sequence = event.sequence,
                    "an event without a position of its source, published by hand: not performed"
                );
                continue;
            };
            if begin::is_due(tx, E::NAME, id, &self.unknown)? {
                ledger::intend(&self.effect, tx, event, id)?;
            }
        }
        Ok(())
    }

    fn key(&self, event: &Envelope) -> Option<String> {
        self.effect.key(event)
    }
}
