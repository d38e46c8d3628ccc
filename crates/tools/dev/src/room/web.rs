//! The routes of the control room.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use askama::Template as _;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use futures_util::stream;
use reqwest::Client;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::ask::Question;
use super::board::Board;
use super::pour::{self, ORDERS_MAX};
use super::view::{self, Asked, Page, Values};
use crate::control::{Control, Verb};
use crate::system::{BROKER, Links, SLOWED};

/// How often an open page gets what has changed.
const EVERY: Duration = Duration::from_millis(250);

/// Pages that are open at the same time.
const PAGES_MAX: usize = 32;

/// The longest delay of the slow link.
const DELAY_MAX: u64 = 2000;

/// An answer that is older is not shown to a page without a script.
const FRESH: Duration = Duration::from_secs(1);

/// What the routes work with.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) board: Board,
    pub(super) control: Control,
    pub(super) links: Option<Arc<Links>>,
    pub(super) client: Client,
    pub(super) orders_url: String,
    pub(super) asked: Option<(Asked, Question)>,
    /// The number of pages that are open.
    pub(super) viewers: watch::Sender<usize>,
}

pub(super) fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/room.css", get(style))
        .route("/room.js", get(script))
        .route("/live", get(live))
        .route("/processes/{name}/{verb}", post(process))
        .route("/link/{delay}", post(link))
        .route("/orders/{count}", post(orders))
        .with_state(shared)
}

async fn page(State(shared): State<Shared>) -> Response {
    let Shared { board, control, .. } = &shared;
    if let Some((_, question)) = &shared.asked {
        let newest = |board: &Board| {
            let known = board.known();
            let mut last = known
                .tracks
                .values()
                .filter_map(|track| track.last.as_ref());
            last.next().map(|sample| sample.asked)
        };
        if newest(board).is_none_or(|asked| asked.elapsed() > FRESH) {
            question.ask_once(board).await;
        }
    }
    let asked = shared.asked.as_ref().map(|(asked, _)| asked);
    let seen = control.seen.borrow().clone();
    let page = Page::new(&board.known(), &seen, asked, shared.links.is_some());
    match page.render() {
        Ok(html) => Html(html).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn style() -> impl IntoResponse {
    let style = concat!(
        include_str!("../../../../chassis/http/src/style.css"),
        include_str!("../../templates/room.css")
    );
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], style)
}

async fn script() -> impl IntoResponse {
    let script = include_str!("../../templates/room.js");
    let kind = "text/javascript; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], script)
}

/// Counts as a viewer until it is dropped.
struct Viewer(watch::Sender<usize>);

impl Drop for Viewer {
    fn drop(&mut self) {
        self.0.send_modify(|viewers| *viewers -= 1);
    }
}

/// What a page has already.
struct Sent {
    values: Values,
    /// The number of the last report.
    report: u64,
    /// When news is due.
    due: Instant,
    /// News that is to be sent before.
    ready: VecDeque<Event>,
    _viewer: Viewer,
}

/// All values, then those that change: `values` is an object, `report` has a `number` and a `text`.
async fn live(State(shared): State<Shared>) -> Response {
    if *shared.viewers.borrow() >= PAGES_MAX {
        let why = "too many pages of the control room are open";
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    }
    shared.viewers.send_modify(|viewers| *viewers += 1);
    let sent = Sent {
        values: Values::new(),
        report: 0,
        due: Instant::now(),
        ready: VecDeque::new(),
        _viewer: Viewer(shared.viewers.clone()),
    };
    let Shared { board, control, .. } = shared;
    let events = stream::unfold(
        (board, control, sent),
        |(board, control, mut sent)| async move {
            loop {
                if let Some(event) = sent.ready.pop_front() {
                    return Some((Ok::<_, Infallible>(event), (board, control, sent)));
                }
                sleep_until(sent.due).await;
                sent.due = Instant::now() + EVERY;
                look(&board, &control, &mut sent);
            }
        },
    );
    Sse::new(events).into_response()
}

/// Makes what is new for a page ready.
fn look(board: &Board, control: &Control, sent: &mut Sent) {
    let known = board.known();
    for report in &known.story {
        if report.number > sent.report {
            sent.report = report.number;
            let data = json!({"number": report.number, "text": report.text}).to_string();
            sent.ready
                .push_back(Event::default().event("report").data(data));
        }
    }
    let values = view::values(&known, &control.seen.borrow());
    drop(known);
    let news: Values = values
        .iter()
        .filter(|(key, value)| sent.values.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    sent.values = values;
    if !news.is_empty() {
        let data = json!(news).to_string();
        sent.ready
            .push_back(Event::default().event("values").data(data));
    }
}

/// Back to the page, also for a browser that sent a form.
fn back() -> Response {
    Redirect::to("/").into_response()
}

async fn process(
    State(shared): State<Shared>,
    Path((name, verb)): Path<(String, String)>,
) -> Response {
    let Some(verb) = Verb::ALL.into_iter().find(|known| known.name() == verb) else {
        return (StatusCode::NOT_FOUND, "there is no such command\n").into_response();
    };
    match shared.control.command(&name, verb).await {
        Ok(()) => {
            let did = match verb {
                Verb::Start => "is started",
                Verb::Stop => "is asked to stop",
                Verb::Pause => "is paused: it keeps its connections and answers nothing",
                Verb::Continue => "continues",
                Verb::Kill => "is killed",
            };
            shared.board.say(&format!("{name} {did}."));
        }
        Err(why) => shared.board.say(&why),
    }
    back()
}

async fn link(State(shared): State<Shared>, Path(delay): Path<u64>) -> Response {
    let delay = Duration::from_millis(delay.min(DELAY_MAX));
    let Some(links) = &shared.links else {
        let why = format!("The link can be slowed only if cargo dev starts {BROKER}.");
        shared.board.say(&why);
        return back();
    };
    links.set_delay(delay);
    let mut known = shared.board.known();
    known.delay = delay;
    if delay.is_zero() {
        known.say(&format!("The link of {SLOWED} is as fast as it was."));
    } else {
        let delay = delay.as_millis();
        known.say(&format!(
            "The link of {SLOWED} is slow: {delay} ms in each direction."
        ));
    }
    drop(known);
    back()
}

#[expect(
    clippy::disallowed_methods,
    reason = "it ends by itself, also when the page has gone, and reports how"
)]
async fn orders(State(shared): State<Shared>, Path(count): Path<u32>) -> Response {
    let Shared {
        board,
        client,
        orders_url,
        ..
    } = shared;
    // A page without a script shows the result if it comes soon.
    let placing = tokio::spawn(pour::orders(
        count.min(ORDERS_MAX),
        client,
        orders_url,
        board,
    ));
    let _still_placing = tokio::time::timeout(FRESH, placing).await;
    back()
}
