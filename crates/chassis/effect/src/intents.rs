//! The projection of an effect: writes an intent for each event.

use std::sync::Arc;

use headwater_event::{Envelope, is_newer};
use headwater_projection::{ApplyError, Projection};
use headwater_store::Tx;

use crate::effect::Effect;
use crate::ledger;

/// The projection that writes the intents of the effect `E`.
#[derive(Debug)]
pub struct Intents<E>(Arc<E>);

impl<E> Intents<E> {
    /// The projection of `effect`.
    pub fn of(effect: &Arc<E>) -> Self {
        Self(Arc::clone(effect))
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
            if event.id.is_none() {
                // Without an id there is no key.
                tracing::warn!(
                    effect = E::NAME,
                    event.subject = &*event.subject,
                    event.sequence = event.sequence,
                    "an event without a position, published by hand: not performed"
                );
                continue;
            }
            ledger::intend(&*self.0, tx, event)?;
        }
        Ok(())
    }

    fn key(&self, event: &Envelope) -> Option<String> {
        self.0.key(event)
    }
}
