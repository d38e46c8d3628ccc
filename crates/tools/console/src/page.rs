//! What all pages have around them.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use headwater::causes;

use crate::app::App;

/// The frame of a page.
pub(crate) struct Frame {
    /// The page in the navigation that this page belongs to.
    pub(crate) here: &'static str,
    pub(crate) place: String,
    pub(crate) nats: String,
    pub(crate) is_operator: bool,
}

impl Frame {
    pub(crate) fn of(app: &App, here: &'static str) -> Self {
        Self {
            here,
            place: app.place.clone(),
            nats: app.journal.who().nats.clone(),
            is_operator: app.is_operator,
        }
    }
}

/// The pages of the navigation.
pub(crate) const PAGES: [(&str, &str); 5] = [
    ("/", "Overview"),
    ("/events", "Events"),
    ("/dead-letters", "Dead letters"),
    ("/actions", "Actions"),
    ("/log", "Log"),
];

/// A page that only says something.
#[derive(Template)]
#[template(path = "note.html")]
struct Note {
    frame: Frame,
    title: String,
    lines: Vec<String>,
}

/// The rendered page.
pub(crate) fn page(template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => Html(html).into_response(),
        Err(error) => {
            let text = format!("the page cannot be rendered: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

/// A page that says why there is nothing else to show.
pub(crate) fn note(
    app: &App,
    here: &'static str,
    status: StatusCode,
    title: &str,
    lines: Vec<String>,
) -> Response {
    let note = Note {
        frame: Frame::of(app, here),
        title: title.to_owned(),
        lines,
    };
    (status, page(&note)).into_response()
}

/// A page for an error.
pub(crate) fn failed(app: &App, here: &'static str, error: &anyhow::Error) -> Response {
    let lines = vec![causes(error.as_ref())];
    note(
        app,
        here,
        StatusCode::BAD_GATEWAY,
        "This could not be read",
        lines,
    )
}

/// A file of the program.
pub(crate) fn file(kind: &'static str, text: &'static str) -> Response {
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(kind));
    ([kind], text).into_response()
}
