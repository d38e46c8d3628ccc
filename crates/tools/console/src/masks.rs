//! Personal data in dead letters: their keys, and their reasons, which may quote the events.

use client::schemas::MASK;
use headwater::operator::Letter;

use crate::app::App;

/// A masked key of dead letters.
pub(crate) fn masked_key() -> String {
    format!("key {MASK}")
}

/// [`mask`] for several letters; returns whether each was masked, too.
pub(crate) async fn mask_all(
    app: &App,
    letters: Vec<Letter>,
    is_shown: bool,
) -> Vec<(Letter, bool)> {
    let mut all = Vec::new();
    for mut letter in letters {
        let any = mask(app, &mut letter, is_shown).await;
        all.push((letter, any));
    }
    all
}

/// Masks the key and the reason of a letter unless `is_shown`; returns whether it masked
/// anything.
pub(crate) async fn mask(app: &App, letter: &mut Letter, is_shown: bool) -> bool {
    if is_shown {
        return false;
    }
    let key = key(app, letter).await;
    let reason = reason(app, letter).await;
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

/// The masked reason, if the event has personal fields: it may quote them in any form.
async fn reason(app: &App, letter: &Letter) -> Option<String> {
    // The reason of one that waits is on no page.
    let is_shown = letter.waiting || letter.reason.is_empty();
    let is_personal = !is_shown && app.schemas.lock().await.has_personal(&letter.subject).await;
    is_personal.then(|| MASK.to_owned())
}
