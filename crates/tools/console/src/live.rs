//! Server-sent events: pages that follow.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::app::App;

/// How many pages may follow at the same time.
pub(crate) const PAGES_MAX: usize = 32;

/// The time between two comments on a quiet stream, so that the browser notices a lost connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// An update of a page: the name of the event, its id, and the HTML.
pub(crate) struct Update {
    pub(crate) name: &'static str,
    pub(crate) id: String,
    pub(crate) html: String,
}

/// Sends updates until there are no more, the console ends, or the page is closed.
pub(crate) fn live(app: &App, updates: impl Stream<Item = Update> + Send + 'static) -> Response {
    let Some(permit) = permit(&app.following) else {
        let why = format!("{PAGES_MAX} pages follow already: close one");
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    };
    let stop = app.stop.clone();
    let events = updates
        .take_until(stop.cancelled_owned())
        .map(move |update| {
            let _held = &permit;
            Ok::<_, Infallible>(update.event())
        });
    let alive = KeepAlive::new().interval(KEEP_ALIVE);
    Sse::new(events).keep_alive(alive).into_response()
}

fn permit(following: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(following).try_acquire_owned().ok()
}

/// The id of the last update that the browser has, when it connects again.
pub(crate) fn last_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("last-event-id")?.to_str().ok()?;
    Some(id).filter(|id| !id.is_empty())
}

impl Update {
    fn event(self) -> Event {
        // A carriage return ends a line of the protocol.
        let plain = |text: String| text.replace(['\r', '\0'], " ");
        let id = plain(self.id).replace('\n', " ");
        Event::default()
            .event(self.name)
            .id(id)
            .data(plain(self.html))
    }
}
