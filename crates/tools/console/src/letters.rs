//! Dead letters: the list, and one of them.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use client::schemas::{Members, kind_of};
use headwater::operator::{Endpoint, Filter, InOutbox, Letter};
use headwater::{Clock, causes};
use maintenance::dead_letter::{letters_of, whole_letter};

use crate::app::{App, Shared};
use crate::masks::{mask, mask_all, masked_key};
use crate::page::{Frame, failed, note, page};
use crate::params::{Params, link};
use crate::readable::{Readable, is_shown, log_shown};
use crate::text::plain;

const HERE: &str = "/dead-letters";

/// How many letters of a service are listed.
const SHOWN: usize = 200;

#[derive(Template)]
#[template(path = "letters.html")]
struct Letters {
    frame: Frame,
    params: Params,
    services: Vec<Service>,
    /// Services whose letters could not be listed, and why.
    failed: Vec<String>,
    is_discarded: bool,
    other: String,
    is_masked: bool,
    is_shown: bool,
    /// The address of the same letters with keys shown, or masked.
    personal: String,
}

/// The letters of one service.
struct Service {
    name: String,
    total: u64,
    rows: Vec<Row>,
}

struct Row {
    pick: String,
    href: String,
    projection: String,
    place: String,
    event: Option<String>,
    kind: String,
    lane: String,
    lane_href: Option<String>,
    reason: String,
    is_masked: bool,
    is_waiting: bool,
    /// How many of the listed letters wait behind it.
    behind: usize,
    at: String,
    because: String,
}

#[derive(Template)]
#[template(path = "letter.html")]
struct OneLetter {
    frame: Frame,
    pick: String,
    facts: Vec<(&'static str, String)>,
    event: Option<String>,
    reason: String,
    is_waiting: bool,
    fields: Vec<(String, String)>,
    problem: Option<String>,
    is_masked: bool,
    is_shown: bool,
    personal: String,
    outbox: Option<String>,
    /// The letter that it waits behind.
    first: Option<String>,
    behind: Vec<Row>,
    behind_total: u64,
    retry: String,
    discard: String,
}

pub(crate) async fn all(State(app): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let params = Params::parse(query.unwrap_or_default().as_bytes());
    if let Err(error) = log_shown(&app, HERE, &params) {
        return failed(&app, HERE, &error);
    }
    match Letters::of(&app, params).await {
        Ok(letters) => page(&letters),
        Err(error) => failed(&app, HERE, &error),
    }
}

pub(crate) async fn one(
    State(app): State<Shared>,
    Path((service, id)): Path<(String, u64)>,
    RawQuery(query): RawQuery,
) -> Response {
    let params = Params::parse(query.unwrap_or_default().as_bytes());
    let path = format!("{HERE}/{service}/{id}");
    if survey::source(&service).is_err() {
        let line = format!("`{service}` is not the name of a service");
        return note(
            &app,
            HERE,
            StatusCode::NOT_FOUND,
            "No such letter",
            vec![line],
        );
    }
    if let Err(error) = log_shown(&app, &path, &params) {
        return failed(&app, HERE, &error);
    }
    match whole_letter(&app.nats, &service, id).await {
        Ok(letter) => page(&OneLetter::of(&app, &service, letter, &params, &path).await),
        Err(client::Error::Refused(refusal)) => {
            let lines = vec![refusal.to_string()];
            note(&app, HERE, StatusCode::NOT_FOUND, "No such letter", lines)
        }
        Err(error) => failed(&app, HERE, &error.into()),
    }
}

impl Letters {
    async fn of(app: &App, params: Params) -> anyhow::Result<Self> {
        let is_discarded = params.get("show") == "discarded";
        let endpoint = if is_discarded {
            Endpoint::DeadLettersDiscarded
        } else {
            Endpoint::DeadLettersList
        };
        let wanted = params.get("service");
        let mut names = app.nats.services_with(endpoint).await?;
        names.retain(|name| wanted.is_empty() || name == wanted);
        let (mut services, mut failures) = (Vec::new(), Vec::new());
        for name in names {
            let mut letters = Vec::new();
            let each = |letter| letters.push(letter);
            let filter = filter(&params);
            let asked = letters_of(&app.nats, &name, endpoint, filter, SHOWN, each).await;
            match asked {
                Ok(total) => services.push(Service::of(app, name, letters, total, &params).await),
                Err(error) => failures.push(causes(error.as_ref())),
            }
        }
        services.retain(|service| service.total > 0);
        let other = params.with("show", if is_discarded { "" } else { "discarded" });
        let is_shown = is_shown(&params);
        let toggled = if is_shown { "" } else { "shown" };
        let mut rows = services.iter().flat_map(|service| &service.rows);
        Ok(Self {
            frame: Frame::of(app, HERE),
            // A search does not look into what is masked.
            is_masked: !params.get("error").is_empty() || rows.any(|row| row.is_masked),
            is_shown,
            personal: params.with("personal", toggled).link(HERE),
            other: other.link(HERE),
            params,
            services,
            failed: failures,
            is_discarded,
        })
    }

    fn total(&self) -> u64 {
        self.services.iter().map(|service| service.total).sum()
    }
}

/// The conditions in the query string.
pub(crate) fn filter(params: &Params) -> Filter {
    let given = |name: &str| Some(params.get(name).to_owned()).filter(|text| !text.is_empty());
    Filter {
        source: given("source"),
        lane: given("lane").map(whole_key),
        error: given("error"),
        waiting: None,
    }
}

/// A blocked key as services name it; an operator may leave out the first word.
fn whole_key(key: String) -> String {
    if key.starts_with("key ") || key.starts_with("event ") {
        key
    } else {
        format!("key {key}")
    }
}

/// Whether the reason has the wanted text as it is shown: a search does not reveal what is masked.
pub(crate) fn is_found(reason: &str, params: &Params) -> bool {
    reason.contains(params.get("error"))
}

impl Service {
    async fn of(
        app: &App,
        name: String,
        letters: Vec<Letter>,
        total: u64,
        params: &Params,
    ) -> Self {
        let listed = letters.len();
        let mut rows = rows(app, &name, letters, params).await;
        rows.retain(|row| is_found(&row.reason, params));
        let masked = (listed - rows.len()) as u64;
        Self {
            total: total.saturating_sub(masked),
            name,
            rows,
        }
    }
}

async fn rows(app: &App, service: &str, letters: Vec<Letter>, params: &Params) -> Vec<Row> {
    let own = |letter: &Letter| {
        let (source, lane) = (letter.source.clone(), letter.lane.clone());
        (letter.projection.clone(), source, lane)
    };
    let mut waiting: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    for letter in letters.iter().filter(|letter| letter.waiting) {
        *waiting.entry(own(letter)).or_default() += 1;
    }
    let behind = letters.iter().map(|letter| {
        let behind = waiting.get(&own(letter)).filter(|_| !letter.waiting);
        behind.copied().unwrap_or(0)
    });
    let behind: Vec<usize> = behind.collect();
    let masked = mask_all(app, letters, is_shown(params)).await;
    let rows = masked.into_iter().zip(behind);
    rows.map(|(masked, behind)| Row::of(service, masked, behind, params))
        .collect()
}

impl Row {
    /// `is_masked`: whether the letter's key or reason is.
    fn of(
        service: &str,
        (letter, is_masked): (Letter, bool),
        behind: usize,
        params: &Params,
    ) -> Self {
        let is_whole = letter.lane != masked_key();
        let lane_href = is_whole.then(|| params.with("lane", &letter.lane).link(HERE));
        let (place, event) = place(&letter);
        let id = letter.id;
        Self {
            pick: format!("{service}:{id}"),
            href: params
                .with("show", "")
                .with("lane", "")
                .link(&format!("{HERE}/{service}/{id}")),
            projection: letter.projection,
            place,
            event,
            kind: kind_of(&letter.subject).to_owned(),
            lane: letter.lane,
            lane_href,
            reason: letter.reason,
            is_masked,
            is_waiting: letter.waiting,
            behind,
            at: Clock::text(letter.discarded_at.unwrap_or(letter.recorded_at)),
            because: letter.discarded_because.unwrap_or_default(),
        }
    }
}

/// Where the letter's event is, and the link to it.
fn place(letter: &Letter) -> (String, Option<String>) {
    let source = &letter.source;
    let place = match (letter.position, letter.sequence) {
        (Some(position), _) => format!("{source}:{position}"),
        (None, Some(sequence)) => format!("{source}@{sequence}"),
        (None, None) => return (source.clone(), None),
    };
    let href = format!("/events/{place}");
    (place, Some(href))
}

impl OneLetter {
    async fn of(app: &App, service: &str, mut letter: Letter, params: &Params, path: &str) -> Self {
        let is_shown = is_shown(params);
        let (first, behind, behind_total) = same_key(app, service, &letter, params).await;
        let is_masked = mask(app, &mut letter, is_shown).await;
        let payload = letter.payload.as_deref().unwrap_or_default();
        let payload = BASE64_STANDARD.decode(payload).unwrap_or_default();
        let read = Readable::of(app, &letter.subject, &payload, is_shown).await;
        let members = read.json.as_deref().and_then(Members::of);
        let fields = members.unwrap_or_default().0.into_iter();
        let (place, event) = place(&letter);
        let mut facts = vec![
            ("Service", service.to_owned()),
            ("Projection", letter.projection.clone()),
            ("Event", place),
            ("Type", kind_of(&letter.subject).to_owned()),
            ("Blocked key", letter.lane.clone()),
            ("Recorded", Clock::text(letter.recorded_at)),
        ];
        if let Some(epoch) = &letter.epoch {
            facts.push(("Epoch", epoch.clone()));
        }
        let pick = format!("{service}:{}", letter.id);
        let confirm = |verb: &str| link("/confirm", &[("verb", verb), ("pick", &pick)]);
        let toggled = if is_shown { "" } else { "shown" };
        Self {
            frame: Frame::of(app, HERE),
            facts,
            event,
            fields: fields
                .map(|(name, value)| (name, plain(value.get())))
                .collect(),
            problem: read.problem,
            is_masked: read.is_masked || is_masked,
            is_shown,
            personal: params.with("personal", toggled).link(path),
            outbox: outbox(&letter),
            retry: confirm("retry"),
            discard: confirm("discard"),
            reason: letter.reason,
            is_waiting: letter.waiting,
            first,
            behind,
            behind_total,
            pick,
        }
    }
}

/// How the outbox differs from what was delivered.
fn outbox(letter: &Letter) -> Option<String> {
    let source = &letter.source;
    match letter.outbox.as_ref()? {
        InOutbox::Same => None,
        InOutbox::Other { .. } => {
            Some("The outbox has another event at this position, which a retry applies.".to_owned())
        }
        InOutbox::Missing => Some(format!(
            "The outbox has no such position: it is not an event of {source}; discard it."
        )),
        InOutbox::Unknown(why) => Some(format!("The outbox could not be read: {why}")),
    }
}

/// Of the letters of the same key: the one that this one waits behind, or those that wait behind it,
/// and how many they are.
async fn same_key(
    app: &App,
    service: &str,
    letter: &Letter,
    params: &Params,
) -> (Option<String>, Vec<Row>, u64) {
    let filter = Filter {
        source: Some(letter.source.clone()),
        lane: Some(letter.lane.clone()),
        error: None,
        waiting: Some(!letter.waiting),
    };
    let mut letters = Vec::new();
    let each = |letter| letters.push(letter);
    let list = Endpoint::DeadLettersList;
    let asked = letters_of(&app.nats, service, list, filter, SHOWN, each).await;
    letters.retain(|other: &Letter| other.projection == letter.projection);
    if letter.waiting {
        let first = letters
            .first()
            .map(|first| format!("{service}/{}", first.id));
        return (first, Vec::new(), 0);
    }
    let total = asked.unwrap_or(0).max(letters.len() as u64);
    (None, rows(app, service, letters, params).await, total)
}
