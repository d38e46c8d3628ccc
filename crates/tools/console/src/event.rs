//! One event end to end: outbox, stream, and every projection that reads its source.

use askama::Template;
use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use client::arrived::time;
use client::schemas::Members;
use client::{Nats, Unreachable};
use futures_util::future::join_all;
use headwater::operator::{
    Endpoint, EventsAnswer, EventsRequest, Filter, Letter, ProjectionStatus, StatusAnswer,
    StatusRequest, fetch_events,
};
use headwater::outbox::Row;
use headwater::{Clock, EventId};
use maintenance::dead_letter::letters_of;
use survey::event::{self, Place};
use terminal::table::{age, bytes};

use crate::app::{App, Shared};
use crate::masks::mask;
use crate::page::{Frame, failed, note, page};
use crate::params::{Params, link};
use crate::readable::{Readable, is_shown, log_shown};
use crate::text::plain;

const HERE: &str = "/events";

/// How many dead letters of a service are searched for the event.
const LETTERS_MAX: usize = 1_000;

/// The header with the W3C trace context.
const TRACEPARENT: &str = "traceparent";

#[derive(Template)]
#[template(path = "event.html")]
struct Event {
    frame: Frame,
    place: String,
    kind: String,
    facts: Vec<(&'static str, String)>,
    /// What contradicts or is missing.
    notes: Vec<String>,
    fields: Vec<(String, String)>,
    problem: Option<String>,
    is_masked: bool,
    is_shown: bool,
    headers: Vec<(String, String)>,
    readers: Vec<Reader>,
    key_link: Option<String>,
    personal: String,
    earlier: Option<String>,
    later: Option<String>,
}

/// A projection that reads the event's source.
struct Reader {
    service: String,
    projection: String,
    checkpoint: u64,
    state: String,
    class: &'static str,
    letter: Option<String>,
    /// Where to have it shown what the event did to its rows.
    replay: Option<String>,
    /// Whether a part of the letter's reason is masked.
    is_masked: bool,
}

/// What was found of an event.
struct Found {
    source: String,
    status: Option<StatusAnswer>,
    /// In the outbox of the present epoch.
    row: Option<Row>,
    /// In the stream.
    message: Option<StreamMessage>,
    notes: Vec<String>,
}

pub(crate) async fn show(
    State(app): State<Shared>,
    Path(place): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let params = Params::parse(query.unwrap_or_default().as_bytes());
    let wanted: Place = match place.parse() {
        Ok(wanted) => wanted,
        Err(why) => {
            let status = StatusCode::NOT_FOUND;
            return note(&app, HERE, status, "No such event", vec![why]);
        }
    };
    let path = format!("{HERE}/{place}");
    if let Err(error) = log_shown(&app, &path, &params) {
        return failed(&app, HERE, &error);
    }
    let found = match Found::look(&app.nats, &wanted).await {
        Ok(found) => found,
        Err(error) => return failed(&app, HERE, &error),
    };
    if found.row.is_none() && found.message.is_none() {
        let mut lines = vec![format!(
            "{place} is neither in the outbox nor in the stream."
        )];
        lines.extend(found.notes);
        return note(&app, HERE, StatusCode::NOT_FOUND, "No such event", lines);
    }
    page(&Event::of(&app, place, found, &params, &path).await)
}

impl Found {
    async fn look(nats: &Nats, place: &Place) -> anyhow::Result<Self> {
        let source = place.source();
        let status = match nats.status(source).await {
            Ok(status) => Some(status),
            Err(client::Error::Unreachable(away @ Unreachable::Broker { .. })) => {
                return Err(away.into());
            }
            Err(_) => None,
        };
        let mut found = Self {
            source: source.to_owned(),
            status,
            row: None,
            message: None,
            notes: Vec::new(),
        };
        if found.status.is_none() {
            let note = format!("{source} does not answer: its outbox cannot be read now");
            found.notes.push(note);
        }
        found.message = place.message(nats, found.epoch()).await?;
        let position = match place {
            Place::Position(_, position) => Some(*position),
            Place::Sequence(..) => found.position(),
        };
        if let Some(position) = position {
            found.row = found.in_outbox(nats, position).await?;
        }
        found.compare();
        Ok(found)
    }

    /// The id in the message's headers.
    fn id(&self) -> Option<EventId> {
        self.message.as_ref().and_then(event::id)
    }

    /// When the stream has it, in milliseconds since 1970.
    fn stored_ms(&self) -> Option<i64> {
        let stored = self.message.as_ref()?.time.unix_timestamp_nanos();
        i64::try_from(stored / 1_000_000).ok()
    }

    fn epoch(&self) -> Option<&str> {
        Some(&*self.status.as_ref()?.epoch)
    }

    /// The position in the present epoch.
    fn position(&self) -> Option<u64> {
        if let Some(row) = &self.row {
            return Some(row.position);
        }
        let id = self.id().filter(|id| *id.source == *self.source)?;
        let is_current = self.epoch().is_none_or(|epoch| *epoch == *id.epoch);
        is_current.then_some(id.position)
    }

    async fn in_outbox(&self, nats: &Nats, position: u64) -> anyhow::Result<Option<Row>> {
        if self.status.is_none() {
            return Ok(None);
        }
        let request = EventsRequest {
            from: position,
            limit: 1,
            ..EventsRequest::default()
        };
        let ask = async |request: EventsRequest| {
            let asked = nats.ask(&self.source, Endpoint::Events, &request);
            asked.await
        };
        let answer: EventsAnswer = fetch_events(request, ask).await?;
        let mut rows = answer.events.into_iter();
        Ok(rows.find(|row| row.position == position))
    }

    /// Notes what contradicts.
    fn compare(&mut self) {
        let source = &self.source;
        let note = match (&self.row, &self.message) {
            (Some(row), Some(message)) if row.payload != message.payload => Some(format!(
                "the stream has another payload than the outbox of {source}: `headwater verify --source {source}`"
            )),
            (Some(row), None) => Some(format!(
                "position {} is not in the stream, or not yet",
                row.position
            )),
            (None, Some(_)) if self.id().is_none() => {
                Some("it was published by hand: it is in no outbox".to_owned())
            }
            (None, Some(_)) if self.status.is_some() && self.position().is_none() => {
                Some("it is of a former epoch of its source".to_owned())
            }
            (None, Some(_)) if self.status.is_some() => Some(format!(
                "the outbox of {source} has no event at this position"
            )),
            _ => None,
        };
        self.notes.extend(note);
    }
}

impl Event {
    async fn of(app: &App, place: String, found: Found, params: &Params, path: &str) -> Self {
        let is_shown = is_shown(params);
        let (subject, payload) = match (&found.message, &found.row) {
            (Some(message), _) => (message.subject.to_string(), message.payload.to_vec()),
            (None, Some(row)) => (row.subject.clone(), row.payload.clone()),
            (None, None) => (String::new(), Vec::new()),
        };
        let read = Readable::of(app, &subject, &payload, is_shown).await;
        let key_link = (read.key.as_ref().filter(|_| !read.is_key_masked))
            .map(|key| link(HERE, &[("source", &found.source), ("key", key)]));
        let members = read.json.as_deref().and_then(Members::of);
        let fields = members.unwrap_or_default().0.into_iter();
        let position = found.position();
        let toggled = if is_shown { "" } else { "shown" };
        let neighbour = |position: u64| {
            let path = format!("{HERE}/{}:{position}", found.source);
            params.link(&path)
        };
        let head = found.status.as_ref().map(|status| status.head);
        let readers = readers(app, &found, position, &place, is_shown).await;
        Self {
            frame: Frame::of(app, HERE),
            kind: client::schemas::kind_of(&subject).to_owned(),
            facts: facts(&found, &subject, &read, payload.len()),
            fields: fields
                .map(|(name, value)| (name, plain(value.get())))
                .collect(),
            problem: read.problem,
            is_masked: read.is_masked || readers.iter().any(|reader| reader.is_masked),
            is_shown,
            headers: found
                .message
                .as_ref()
                .map(|it| headers(&it.headers))
                .unwrap_or_default(),
            readers,
            key_link,
            personal: params.with("personal", toggled).link(path),
            earlier: position.filter(|it| *it > 1).map(|it| neighbour(it - 1)),
            later: position
                .filter(|it| head.is_some_and(|head| *it < head))
                .map(|it| neighbour(it + 1)),
            notes: found.notes,
            place,
        }
    }
}

fn facts(found: &Found, subject: &str, read: &Readable, len: usize) -> Vec<(&'static str, String)> {
    let mut facts = vec![("Subject", subject.to_owned()), ("Key", read.key_text())];
    let mut traceparent = None;
    let appended = found.row.as_ref().map(|row| row.recorded_at);
    if let Some(row) = &found.row {
        facts.push((
            "Position in the outbox",
            format!("{}:{}", found.source, row.position),
        ));
        facts.push(("Appended", Clock::text(row.recorded_at)));
        traceparent.clone_from(&row.traceparent);
    }
    if let Some(id) = found.id() {
        facts.push(("Epoch", id.epoch.to_string()));
    }
    if let Some(message) = &found.message {
        let name = headwater::stream::name(&found.source);
        facts.push((
            "Sequence in the stream",
            format!("{} of {name}", message.sequence),
        ));
        let after = appended.zip(found.stored_ms());
        let after = after.map(|(appended, stored)| (stored - appended).max(0));
        let after = after.and_then(|after| u32::try_from(after).ok());
        let after = after.map(|ms| format!(", {} after it was appended", delay(ms)));
        facts.push(("Stored", time(message.time) + &after.unwrap_or_default()));
        let header = message.headers.get(TRACEPARENT);
        traceparent = traceparent.or_else(|| header.map(|it| it.as_str().to_owned()));
    }
    facts.push(("Payload", bytes(len as u64)));
    if let Some(trace) = traceparent.as_deref().and_then(trace_id) {
        facts.push(("Trace of its command", trace.to_owned()));
    }
    facts
}

fn delay(ms: u32) -> String {
    match ms {
        ..1_000 => format!("{ms} ms"),
        _ => age(Some(f64::from(ms) / 1000.0)),
    }
}

/// The trace id of a W3C trace context.
fn trace_id(traceparent: &str) -> Option<&str> {
    let id = traceparent.split('-').nth(1)?;
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then_some(id)
}

fn headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let each = headers.iter().flat_map(|(name, values)| {
        let values = values.iter();
        values.map(move |value| (name.to_string(), value.as_str().to_owned()))
    });
    let mut all: Vec<_> = each.collect();
    all.sort();
    all
}

/// The projections that read the source, asked now.
async fn readers(
    app: &App,
    found: &Found,
    position: Option<u64>,
    place: &str,
    is_shown: bool,
) -> Vec<Reader> {
    let taken = app.samples.newest();
    let known = taken
        .iter()
        .flat_map(|taken| taken.survey.topology.services.keys());
    let events = position.map(|position| (found.source.clone(), position));
    let request = StatusRequest {
        events: events.into_iter().collect(),
    };
    let ask = |service| app.nats.ask(service, Endpoint::Status, &request);
    let asked = known.map(async |service| ask(service).await.ok());
    let statuses: Vec<StatusAnswer> = join_all(asked).await.into_iter().flatten().collect();
    let mut readers = Vec::new();
    for status in statuses {
        let mut reading = status.projections.iter();
        if !reading.any(|it| it.positions.0.contains_key(&found.source)) {
            continue;
        }
        let letters = letters(&app.nats, &status, &found.source).await;
        for projection in &status.projections {
            let Some(&checkpoint) = projection.positions.0.get(&found.source) else {
                continue;
            };
            let letter = letters.iter().find(|letter| {
                let is_here = letter.projection == projection.name;
                let sequence = found.message.as_ref().map(|message| message.sequence);
                let is_it = match letter.position {
                    Some(at) => {
                        Some(at) == position
                            && letter.epoch
                                == found
                                    .id()
                                    .map(|id| id.epoch.to_string())
                                    .or(letter.epoch.clone())
                    }
                    None => {
                        position.is_none()
                            && letter.sequence.is_some()
                            && letter.sequence == sequence
                    }
                };
                is_here && is_it
            });
            let mut letter = letter.cloned();
            let is_masked = match &mut letter {
                Some(letter) => mask(app, letter, is_shown).await,
                None => false,
            };
            let letter = letter.as_ref();
            let mut reader = Reader::of(
                &status.service,
                projection,
                checkpoint,
                found,
                position,
                letter,
            );
            let can_replay = app.is_operator && projection.can_rebuild;
            reader.replay = found.message.as_ref().filter(|_| can_replay).map(|_| {
                link(
                    "/confirm",
                    &[
                        ("verb", "replay"),
                        ("service", &status.service),
                        ("projection", &projection.name),
                        ("event", place),
                    ],
                )
            });
            reader.is_masked = is_masked;
            readers.push(reader);
        }
    }
    readers
}

/// The service's dead letters of the source.
async fn letters(nats: &Nats, status: &StatusAnswer, source: &str) -> Vec<Letter> {
    let mut letters = Vec::new();
    if status.projections.iter().all(|it| it.dead_letters == 0) {
        return letters;
    }
    let filter = Filter {
        source: Some(source.to_owned()),
        ..Filter::default()
    };
    let list = Endpoint::DeadLettersList;
    let each = |letter| letters.push(letter);
    // If they cannot be listed, the checkpoint still says whether the event was read.
    let _ = letters_of(nats, &status.service, list, filter, LETTERS_MAX, each).await;
    letters
}

impl Reader {
    fn of(
        service: &str,
        projection: &ProjectionStatus,
        checkpoint: u64,
        found: &Found,
        position: Option<u64>,
        letter: Option<&Letter>,
    ) -> Self {
        let source = &found.source;
        let epoch = projection.epochs.get(source);
        let is_other = epoch.is_some_and(|own| found.epoch().is_some_and(|epoch| epoch != own));
        let (state, class) = match (letter, position) {
            (Some(letter), _) if letter.waiting => {
                ("waits behind a dead letter of its key".to_owned(), "warn")
            }
            (Some(letter), _) => (format!("dead letter: {}", letter.reason), "bad"),
            (None, None) => ("not known: it has no position".to_owned(), "soft"),
            (None, Some(_)) if is_other => ("has read another epoch".to_owned(), "warn"),
            (None, Some(position)) if position <= checkpoint => {
                (applied(projection, found), "good")
            }
            (None, Some(position)) => {
                let before = position - checkpoint - 1;
                let why = match &projection.paused {
                    Some(pause) => format!("paused: {}", pause.reason),
                    None => "not yet".to_owned(),
                };
                (format!("{why}; {before} events before it"), "warn")
            }
        };
        Self {
            service: service.to_owned(),
            projection: projection.name.clone(),
            checkpoint,
            state,
            class,
            letter: letter.map(|letter| format!("/dead-letters/{service}/{}", letter.id)),
            replay: None,
            is_masked: false,
        }
    }
}

/// When a projection applied the event, if that is known.
fn applied(projection: &ProjectionStatus, found: &Found) -> String {
    let source = projection.sources.get(&found.source);
    let Some(at) = source.and_then(|source| source.applied_at) else {
        return "applied, at a time that is no longer known".to_owned();
    };
    let after = found.stored_ms().map(|stored| (at - stored).max(0));
    let after = after.and_then(|after| u32::try_from(after).ok());
    let after = after.map(|ms| format!(", {} after it was stored", delay(ms)));
    format!("applied {}{}", Clock::text(at), after.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_shown_by_its_id() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(&format!("00-{id}-00f067aa0ba902b7-01")), Some(id));
        assert_eq!(trace_id("<script>-x"), None);
    }
}
