//! Personal data in dead letters: their keys, and their reasons, which may quote the events.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use client::schemas::MASK;
use futures_util::stream::{self, StreamExt as _};
use headwater::operator::{InOutbox, Letter};
use maintenance::dead_letter::whole_letter;

use crate::app::App;

/// How many letters are requested at once, for the events that their reasons may quote.
const ASKED_AT_ONCE: usize = 16;

/// A masked key of dead letters.
pub(crate) fn masked_key() -> String {
    format!("key {MASK}")
}

/// [`mask`] for several letters of a service; returns whether each was masked, too.
pub(crate) async fn mask_all(
    app: &App,
    service: &str,
    letters: Vec<Letter>,
    is_shown: bool,
) -> Vec<(Letter, bool)> {
    let each = letters.into_iter().map(async |mut letter| {
        let any = mask(app, service, &mut letter, is_shown).await;
        (letter, any)
    });
    stream::iter(each).buffered(ASKED_AT_ONCE).collect().await
}

/// Masks the key and the reason of a service's letter unless `is_shown`; returns whether it masked
/// anything.
pub(crate) async fn mask(app: &App, service: &str, letter: &mut Letter, is_shown: bool) -> bool {
    if is_shown {
        return false;
    }
    let key = key(app, letter).await;
    let reason = reason(app, service, letter).await;
    let any = key.is_some() || reason.is_some();
    letter.lane = key.unwrap_or_else(|| std::mem::take(&mut letter.lane));
    letter.reason = reason.unwrap_or_else(|| std::mem::take(&mut letter.reason));
    any
}

/// The masked key, if keys of this kind of event are personal.
async fn key(app: &App, letter: &Letter) -> Option<String> {
    let mut schemas = app.schemas.lock().await;
    let is_personal =
        letter.lane.starts_with("key ") && schemas.is_key_personal(&letter.subject).await;
    is_personal.then(masked_key)
}

/// The masked reason, if it quotes personal values of the event. If they are not known, all of the
/// reason is masked.
async fn reason(app: &App, service: &str, letter: &Letter) -> Option<String> {
    // The reason of one that waits is on no page.
    if letter.waiting || !app.schemas.lock().await.has_personal(&letter.subject).await {
        return None;
    }
    if letter.discarded_at.is_some() {
        // Services do not send the events of these.
        return Some(MASK.to_owned());
    }
    let fetched;
    let whole = match &letter.payload {
        Some(_) => letter,
        None => {
            let asked = whole_letter(&app.nats, service, letter.id).await;
            // It may have been retried meanwhile, and failed for another reason.
            fetched = asked.ok().filter(|whole| whole.reason == letter.reason);
            match &fetched {
                Some(whole) => whole,
                None => return Some(MASK.to_owned()),
            }
        }
    };
    let mut events = vec![(&*whole.subject, whole.payload.as_ref())];
    // A retry applies this one.
    if let Some(InOutbox::Other {
        subject, payload, ..
    }) = &whole.outbox
    {
        events.push((subject, payload.as_ref()));
    }
    let (mut reason, mut any) = (letter.reason.clone(), false);
    for (subject, payload) in events {
        let payload = payload.and_then(|payload| BASE64_STANDARD.decode(payload).ok());
        let Some(payload) = payload else {
            return Some(MASK.to_owned());
        };
        let values = app.schemas.lock().await.personal(subject, &payload).await;
        if let Some(masked) = values.mask(&reason) {
            (reason, any) = (masked, true);
        }
    }
    any.then_some(reason)
}
