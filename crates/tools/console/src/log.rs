//! The page of the log.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use crate::app::Shared;
use crate::journal::Entry;
use crate::page::{Frame, page};

#[derive(Template)]
#[template(path = "log.html")]
struct Log {
    frame: Frame,
    entries: Vec<Entry>,
    path: String,
}

pub(crate) async fn show(State(app): State<Shared>) -> Response {
    page(&Log {
        frame: Frame::of(&app, "/log"),
        entries: app.journal.newest(),
        path: app.journal.path.display().to_string(),
    })
}
