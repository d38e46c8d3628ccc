//! The pages of actions: to confirm one, to follow it, to cancel it.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use client::schemas::MASK;
use futures_util::stream;
use headwater::causes;
use maintenance::replay::Change;
use terminal::Progress;

use crate::act;
use crate::app::{App, Shared};
use crate::job::{self, Job};
use crate::live::{Update, live};
use crate::page::{Frame, failed, note, page};
use crate::params::Params;
use crate::readable::{is_shown, log_shown};
use crate::text::short;
use crate::verb::Verb;

/// The name of these pages in the navigation.
const HERE: &str = "/actions";

/// The time between two looks at a running action.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// What a read-only console answers to an action.
pub(crate) const READ_ONLY: &str = "This console is read-only. To act, end it and start `headwater console --as-operator`, with the operator's login: --context, --creds, or --user and --password.";

#[derive(Template)]
#[template(path = "confirm.html")]
struct Confirm {
    frame: Frame,
    /// What is to be done.
    short: String,
    /// The page to go back to.
    back: &'static str,
    lines: Vec<String>,
    fields: Vec<(String, String)>,
    needs_reason: bool,
    is_final: bool,
    can_cancel: bool,
}

#[derive(Template)]
#[template(path = "actions.html")]
struct Actions {
    frame: Frame,
    jobs: Vec<Arc<Job>>,
}

#[derive(Template)]
#[template(path = "action.html")]
struct Action {
    frame: Frame,
    id: u64,
    what: String,
    is_running: bool,
    live: Standing,
}

/// The part of an action's page that follows.
#[derive(Template)]
#[template(path = "standing.html")]
struct Standing {
    id: u64,
    begun: String,
    state: job::State,
    progress: Vec<Progress>,
    /// Whether it can be cancelled now.
    can_cancel: bool,
    /// The rows that a replayed event has changed.
    rows: Vec<Row>,
    /// Whether their values may be personal, and then are masked unless `is_shown`.
    is_personal: bool,
    is_shown: bool,
}

/// A row that a replayed event has changed.
struct Row {
    table: String,
    word: &'static str,
    cells: Vec<Cell>,
}

/// A value in it, before and after the event.
struct Cell {
    name: String,
    before: Option<String>,
    after: Option<String>,
    is_changed: bool,
}

/// Asks for a confirmation.
pub(crate) async fn confirm(State(app): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let params = Params::parse(query.unwrap_or_default().as_bytes());
    if !app.is_operator {
        return read_only(&app);
    }
    if let Err(error) = log_shown(&app, "/confirm", &params) {
        return failed(&app, HERE, &error);
    }
    let params = match act::with_all(&app, params).await {
        Ok(params) => params,
        Err(error) => return failed(&app, HERE, &error),
    };
    let verb = match allowed(&app, &params) {
        Ok(verb) => verb,
        Err(refused) => return *refused,
    };
    let lines = match act::consequence(&app, &verb).await {
        Ok(lines) => lines,
        Err(error) => return failed(&app, HERE, &error),
    };
    let fields = params.iter().filter(|(name, _)| *name != "reason");
    page(&Confirm {
        frame: Frame::of(&app, HERE),
        short: short(&verb.what()),
        back: verb.page(),
        lines,
        fields: fields
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        needs_reason: verb.needs_reason(),
        is_final: verb.is_final(),
        can_cancel: verb.can_cancel(),
    })
}

/// Begins an action that was confirmed.
pub(crate) async fn begin(State(app): State<Shared>, body: Bytes) -> Response {
    let params = Params::parse(&body);
    let verb = match allowed(&app, &params) {
        Ok(verb) => verb,
        Err(refused) => return *refused,
    };
    let reason = params.get("reason").to_owned();
    if verb.needs_reason() && reason.is_empty() {
        return wrong(&app, "a reason is missing: go back and give one".to_owned());
    }
    let mut what = verb.what();
    if verb.needs_reason() {
        what = format!("{what}; reason: {reason}");
    }
    let can_cancel = verb.can_cancel();
    let own = Arc::clone(&app);
    let run = move |handles| async move { act::run(&own, verb, reason, handles).await };
    match app.jobs.start(&app.journal, what, can_cancel, run) {
        Ok(id) => Redirect::to(&format!("/actions/{id}")).into_response(),
        Err(error) => {
            let lines = vec![format!("{}; nothing was done", causes(error.as_ref()))];
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            note(&app, HERE, status, "The action could not be logged", lines)
        }
    }
}

pub(crate) async fn cancel(State(app): State<Shared>, Path(id): Path<u64>) -> Response {
    if !app.is_operator {
        return read_only(&app);
    }
    let Some(job) = app.jobs.get(id) else {
        return unknown(&app, id);
    };
    if job.can_cancel && job.state() == job::State::Running {
        if let Err(error) = app.journal.write(Some(id), &job.what, "cancel requested") {
            return failed(&app, HERE, &error);
        }
        if job.cancel() {
            return Redirect::to(&format!("/actions/{id}")).into_response();
        }
    }
    let lines = vec!["It has ended, or it cannot be cancelled.".to_owned()];
    note(&app, HERE, StatusCode::CONFLICT, "Nothing to cancel", lines)
}

pub(crate) async fn all(State(app): State<Shared>) -> Response {
    page(&Actions {
        frame: Frame::of(&app, HERE),
        jobs: app.jobs.newest(),
    })
}

pub(crate) async fn one(
    State(app): State<Shared>,
    Path(id): Path<u64>,
    RawQuery(query): RawQuery,
) -> Response {
    let params = Params::parse(query.unwrap_or_default().as_bytes());
    let path = format!("{HERE}/{id}");
    if let Err(error) = log_shown(&app, &path, &params) {
        return failed(&app, HERE, &error);
    }
    let Some(job) = app.jobs.get(id) else {
        return unknown(&app, id);
    };
    page(&Action {
        frame: Frame::of(&app, HERE),
        id,
        what: job.what.clone(),
        is_running: job.is_running(),
        live: Standing::of(&app, &job, is_shown(&params)),
    })
}

/// Follows an action until it has ended.
pub(crate) async fn follow(State(app): State<Shared>, Path(id): Path<u64>) -> Response {
    let Some(job) = app.jobs.get(id) else {
        return unknown(&app, id);
    };
    let own = Arc::clone(&app);
    let updates = stream::unfold((job, false), move |(job, is_last)| {
        let app = Arc::clone(&own);
        async move {
            if is_last {
                return None;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
            let is_last = !job.is_running();
            let html = Standing::of(&app, &job, false).render().unwrap_or_default();
            let name = if is_last { "end" } else { "page" };
            let update = Update {
                name,
                id: String::new(),
                html,
            };
            Some((update, (job, is_last)))
        }
    });
    live(&app, updates)
}

impl Row {
    fn of(change: &Change, is_masked: bool) -> Self {
        let masked = |text: &Option<String>| {
            let text = text.as_deref()?;
            let is_masked = is_masked && text != "NULL";
            Some(if is_masked { MASK } else { text }.to_owned())
        };
        let cells = change.columns.iter().map(|column| Cell {
            name: column.name.clone(),
            before: masked(&column.before),
            after: masked(&column.after),
            is_changed: column.before != column.after,
        });
        Self {
            table: change.table.clone(),
            word: change.word(),
            cells: cells.collect(),
        }
    }
}

impl Standing {
    /// `is_shown`: whether personal values are shown.
    fn of(app: &App, job: &Job, is_shown: bool) -> Self {
        let state = job.state();
        let replayed = job.replayed();
        let is_personal = replayed.is_some_and(|it| it.is_personal);
        let changes = replayed.iter().flat_map(|it| &it.changes);
        let is_masked = is_personal && !is_shown;
        Self {
            rows: changes.map(|change| Row::of(change, is_masked)).collect(),
            is_personal,
            is_shown,
            id: job.id,
            begun: job.begun.clone(),
            can_cancel: app.is_operator && job.can_cancel && state == job::State::Running,
            state,
            progress: job.progress(),
        }
    }
}

/// The action, or why it is refused.
fn allowed(app: &App, params: &Params) -> Result<Verb, Box<Response>> {
    if !app.is_operator {
        return Err(Box::new(read_only(app)));
    }
    Verb::parse(params).map_err(|why| Box::new(wrong(app, why)))
}

fn read_only(app: &App) -> Response {
    let lines = vec![READ_ONLY.to_owned()];
    note(app, HERE, StatusCode::FORBIDDEN, "Not here", lines)
}

fn wrong(app: &App, why: String) -> Response {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    note(app, HERE, status, "This cannot be done", vec![why])
}

fn unknown(app: &App, id: u64) -> Response {
    let line = format!(
        "There is no action {id} since this console was started. The log has earlier ones."
    );
    note(
        app,
        HERE,
        StatusCode::NOT_FOUND,
        "No such action",
        vec![line],
    )
}
