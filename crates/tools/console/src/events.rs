//! Events of all sources, the newest first, and new ones as they come.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use client::Nats;
use client::arrived::{Arrived, time};
use client::direct::{self, Reader};
use client::feed::{Begin, Feed, News};
use client::pattern::Pattern;
use client::schemas::kind_of;
use futures_util::stream::{self, SelectAll, poll_fn};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::app::{App, Shared};
use crate::live::{Update, last_id, live};
use crate::page::{Frame, failed, note, page};
use crate::params::Params;
use crate::readable::{Readable, is_shown, log_shown};
use crate::text::short;

const HERE: &str = "/events";

/// How many events a page has.
const SHOWN: usize = 100;

/// How many events of a stream are searched for those of a page.
const SEARCHED_MAX: u64 = 20_000;

/// How many events of a stream are read at first; each attempt reads four times as many.
const WINDOW: u64 = 256;

/// How many events of a stream are read ahead of a page that follows.
const AHEAD: usize = 256;

/// The search of the page, which is its query string.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    params: Params,
    /// A source, or empty.
    source: String,
    /// An event type, or empty: `orders.v1.placed` or `placed`.
    kind: String,
    key: String,
    /// A text of the decoded event, in lower case.
    text: String,
    is_shown: bool,
}

/// An event in the list.
#[derive(Template)]
#[template(path = "event_row.html")]
struct Row {
    at: String,
    /// `orders:17`, or `orders@17` for an event without a position.
    place: String,
    href: String,
    kind: String,
    kind_href: String,
    key: String,
    key_href: Option<String>,
    text: String,
    is_masked: bool,
    problem: Option<String>,
}

#[derive(Template)]
#[template(path = "events.html")]
struct Events {
    frame: Frame,
    filter: Filter,
    sources: Vec<String>,
    rows: Vec<Row>,
    /// The address of new events.
    live: String,
    /// The address of the same events with personal fields shown, or masked.
    personal: String,
    older: Option<String>,
    /// What was not searched.
    limits: Vec<String>,
    is_first: bool,
}

pub(crate) async fn show(State(app): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let params = Params::parse(query.unwrap_or_default().as_bytes());
    let filter = Filter::of(params);
    if let Err(error) = log_shown(&app, HERE, &filter.params) {
        return failed(&app, HERE, &error);
    }
    match list(&app, filter).await {
        Ok(Ok(events)) => page(&events),
        Ok(Err(wrong)) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            note(
                &app,
                HERE,
                status,
                "This filter matches no event",
                vec![wrong],
            )
        }
        Err(error) => failed(&app, HERE, &error),
    }
}

/// Sends new events that match.
pub(crate) async fn follow(
    State(app): State<Shared>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let params = Params::parse(query.unwrap_or_default().as_bytes());
    let filter = Filter::of(params);
    if let Err(error) = log_shown(&app, HERE, &filter.params) {
        return failed(&app, HERE, &error);
    }
    let after = last_id(&headers).unwrap_or(filter.params.get("after"));
    match updates(&app, filter.clone(), after).await {
        Ok(updates) => live(&app, updates),
        Err(error) => failed(&app, HERE, &error),
    }
}

impl Filter {
    fn of(params: Params) -> Self {
        Self {
            source: params.get("source").to_owned(),
            kind: params.get("type").to_owned(),
            key: params.get("key").to_owned(),
            text: params.get("text").to_lowercase(),
            is_shown: is_shown(&params),
            params,
        }
    }

    /// The subjects that can match. The error says what cannot.
    fn pattern(&self) -> Result<Pattern, String> {
        let (source, kind) = (&*self.source, &*self.kind);
        let any = |source: &str| if source.is_empty() { "*" } else { source }.to_owned();
        let subject = match (source, kind) {
            ("", "") => ">".to_owned(),
            (source, "") => source.to_owned(),
            (source, kind) if !kind.contains('.') => format!("{}.*.{kind}", any(source)),
            (_, kind) => kind.to_owned(),
        };
        let pattern = Pattern::parse(&subject).map_err(|wrong| wrong.to_string())?;
        if let Some(other) = pattern
            .source()
            .filter(|own| !source.is_empty() && *own != source)
        {
            return Err(format!(
                "events of the type {kind} are of {other}, not of {source}"
            ));
        }
        if self.key.is_empty() {
            return Ok(pattern);
        }
        let with_key = pattern.with_key(&self.key);
        with_key.map_err(|wrong| wrong.to_string())
    }

    fn is_meant(&self, event: &Readable, subject: &str) -> bool {
        let has_key = self.key.is_empty() || event.key.as_ref() == Some(&self.key);
        has_key
            && (self.text.is_empty() || {
                let json = event.json.as_deref().unwrap_or_default().to_lowercase();
                json.contains(&self.text) || subject.to_lowercase().contains(&self.text)
            })
    }

    fn link(&self, name: &str, value: &str) -> String {
        self.params.with("before", "").with(name, value).link(HERE)
    }
}

/// The page, or what is wrong with its filter.
async fn list(app: &App, filter: Filter) -> anyhow::Result<Result<Events, String>> {
    let pattern = match filter.pattern() {
        Ok(pattern) => pattern,
        Err(wrong) => return Ok(Err(wrong)),
    };
    let before: Option<u64> = filter.params.get("before").parse().ok();
    let mut found: Vec<(i128, Row)> = Vec::new();
    let (mut limits, mut ends, mut earliest) = (Vec::new(), BTreeMap::new(), None);
    let streams = pattern.streams(&app.nats).await?;
    // A sequence belongs to one stream.
    let before = before.filter(|_| streams.len() == 1);
    for (stream, source) in &streams {
        let filters = pattern.of(source);
        let part = Part::read(app, &filter, (stream, source), &filters, before).await?;
        ends.insert(source.clone(), part.end);
        if let Some(searched) = part.searched {
            limits.push(format!(
                "of {source}, only the newest {searched} events were searched"
            ));
        }
        earliest = part.earliest;
        found.extend(part.rows);
    }
    found.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let is_more = found.len() > SHOWN;
    found.truncate(SHOWN);
    let older = match (&streams[..], earliest) {
        ([_], Some(earliest)) => Some(filter.link("before", &earliest.to_string())),
        _ => None,
    };
    if is_more && streams.len() > 1 {
        limits.push("choose a source to see older events".to_owned());
    }
    let after = filter
        .params
        .with("before", "")
        .with("after", &text_of(&ends));
    let personal = if filter.is_shown { "" } else { "shown" };
    Ok(Ok(Events {
        frame: Frame::of(app, HERE),
        sources: sources(app, &filter),
        rows: found.into_iter().map(|(_, row)| row).collect(),
        live: after.link("/live/events"),
        personal: filter.params.with("personal", personal).link(HERE),
        older,
        limits,
        is_first: before.is_none(),
        filter,
    }))
}

/// The sources that are known, and the one that is searched.
fn sources(app: &App, filter: &Filter) -> Vec<String> {
    let taken = app.samples.newest();
    let known = taken
        .iter()
        .flat_map(|taken| taken.survey.topology.sources.iter());
    let mut all: Vec<String> = known.cloned().collect();
    if !filter.source.is_empty() && !all.contains(&filter.source) {
        all.push(filter.source.clone());
    }
    all
}

/// The events of one stream for a page.
#[derive(Default)]
struct Part {
    rows: Vec<(i128, Row)>,
    /// The last sequence of the stream.
    end: u64,
    /// The sequence of the earliest event of the page, if there may be earlier ones.
    earliest: Option<u64>,
    /// How many events were searched, if not all.
    searched: Option<u64>,
}

impl Part {
    /// Reads back from the end, or from the sequence `before`, until there are enough.
    async fn read(
        app: &App,
        filter: &Filter,
        (name, source): (&str, &str),
        filters: &[String],
        before: Option<u64>,
    ) -> anyhow::Result<Self> {
        let stream = app.nats.jetstream.get_stream(name).await?;
        let state = &stream.cached_info().state;
        let (first, end) = (state.first_sequence.max(1), state.last_sequence);
        let top = before.map_or(end, |before| end.min(before.saturating_sub(1)));
        let mut part = Self {
            end,
            ..Self::default()
        };
        let (mut last, mut window, mut searched) = (top, WINDOW, 0);
        while last >= first && searched < SEARCHED_MAX {
            let start = (last + 1).saturating_sub(window).max(first);
            let mut reader = Reader::new(&app.nats, filters, start);
            let mut rows = Vec::new();
            while let Some(event) = reader.next(&stream, last).await? {
                let sequence = event.sequence;
                let at = event.at.unix_timestamp_nanos();
                if let Some(row) = Row::of(app, filter, source, event).await {
                    rows.push((sequence, at, row));
                }
            }
            rows.reverse();
            searched += last + 1 - start;
            for (sequence, at, row) in rows {
                if part.rows.len() < SHOWN {
                    part.rows.push((at, row));
                    part.earliest = Some(sequence);
                }
            }
            if part.rows.len() >= SHOWN || start == first {
                if part.rows.len() < SHOWN {
                    part.earliest = None;
                }
                return Ok(part);
            }
            last = start - 1;
            window = (window * 4).min(SEARCHED_MAX);
        }
        if last >= first {
            part.searched = Some(searched);
            part.earliest = Some(last + 1);
        }
        Ok(part)
    }
}

impl Row {
    /// `None` if the event does not match.
    async fn of(app: &App, filter: &Filter, source: &str, event: direct::Event) -> Option<Self> {
        let is_shown = filter.is_shown;
        let read = Readable::of(app, &event.subject, &event.payload, is_shown).await;
        if !filter.is_meant(&read, &event.subject) {
            return None;
        }
        let id = event.id.filter(|id| *id.source == *source);
        let is_current = id
            .as_ref()
            .is_some_and(|id| is_epoch(app, source, &id.epoch));
        let place = match id {
            Some(id) if is_current => format!("{source}:{}", id.position),
            _ => format!("{source}@{}", event.sequence),
        };
        let kind = kind_of(&event.subject).to_owned();
        let key_href = match &read.key {
            Some(key) if !read.is_key_masked => Some(filter.link("key", key)),
            _ => None,
        };
        let personal = if is_shown { "?personal=shown" } else { "" };
        Some(Self {
            at: time(event.at),
            href: format!("/events/{place}{personal}"),
            place,
            kind_href: filter.link("type", &kind),
            kind,
            key: read.key_text(),
            key_href,
            text: short(read.json.as_deref().unwrap_or_default()),
            is_masked: read.is_masked,
            problem: read.problem,
        })
    }
}

/// Whether this is the source's present epoch, as far as is known.
fn is_epoch(app: &App, source: &str, epoch: &str) -> bool {
    let Some(taken) = app.samples.newest() else {
        return true;
    };
    let status = taken.survey.topology.services.get(source);
    status.is_none_or(|status| status.epoch == epoch)
}

/// The state of a page that follows.
struct Following {
    app: Shared,
    filter: Filter,
    inboxes: SelectAll<std::pin::Pin<Box<dyn Stream<Item = News> + Send>>>,
    /// Up to where each stream was read.
    ends: BTreeMap<String, u64>,
    /// Read the streams until the page is closed.
    _feeds: JoinSet<()>,
}

/// New events after the sequences in `after`: `orders:17,users:5`. A stream that it does not name is
/// followed from its end.
async fn updates(
    app: &Shared,
    filter: Filter,
    after: &str,
) -> anyhow::Result<impl Stream<Item = Update> + Send + use<>> {
    let pattern = filter.pattern().map_err(|wrong| anyhow::anyhow!(wrong))?;
    let ends = ends_of(after);
    let mut feeds = JoinSet::new();
    let mut inboxes = SelectAll::new();
    for (stream, source) in pattern.streams(&app.nats).await? {
        let begin = match ends.get(&source) {
            Some(end) => Begin::From(end + 1),
            None => Begin::Last(0),
        };
        let filters = pattern.of(&source);
        inboxes.push(follow_one(
            &app.nats,
            (stream, source),
            filters,
            begin,
            &mut feeds,
        ));
    }
    let following = Following {
        app: app.clone(),
        filter,
        inboxes,
        ends,
        _feeds: feeds,
    };
    Ok(stream::unfold(following, Following::next))
}

fn follow_one(
    nats: &Nats,
    stream: (String, String),
    filters: Vec<String>,
    begin: Begin,
    feeds: &mut JoinSet<()>,
) -> std::pin::Pin<Box<dyn Stream<Item = News> + Send>> {
    let (news, mut inbox) = mpsc::channel(AHEAD);
    let feed = Feed::new(nats.clone(), stream, filters, begin, true, news);
    feeds.spawn(feed.run());
    Box::pin(poll_fn(move |context| inbox.poll_recv(context)))
}

impl Following {
    /// The next event that matches.
    async fn next(mut self) -> Option<(Update, Self)> {
        loop {
            let News::Event(Arrived { source, event }) = self.inboxes.next().await? else {
                continue;
            };
            self.ends.insert(source.clone(), event.sequence);
            let row = Row::of(&self.app, &self.filter, &source, event).await;
            if let Some(html) = row.and_then(|row| row.render().ok()) {
                let update = Update {
                    name: "row",
                    id: text_of(&self.ends),
                    html,
                };
                return Some((update, self));
            }
        }
    }
}

fn text_of(ends: &BTreeMap<String, u64>) -> String {
    let ends = ends.iter().map(|(source, end)| format!("{source}:{end}"));
    ends.collect::<Vec<_>>().join(",")
}

fn ends_of(text: &str) -> BTreeMap<String, u64> {
    let ends = text.split(',').filter_map(|end| {
        let (source, end) = end.split_once(':')?;
        Some((source.to_owned(), end.parse().ok()?))
    });
    ends.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(query: &str, source: &str) -> Result<Vec<String>, String> {
        let filter = Filter::of(Params::parse(query.as_bytes()));
        filter.pattern().map(|pattern| pattern.of(source))
    }

    #[test]
    fn a_filter_reads_only_subjects_that_can_match() {
        let of = |query: &str| subjects(query, "orders").expect(query);
        assert_eq!(of(""), ["orders.>"]);
        assert_eq!(of("source=orders"), ["orders.>"]);
        let placed = ["orders.v1.placed", "orders.v1.placed.>"];
        assert_eq!(of("type=orders.v1.placed"), placed);
        assert_eq!(of("type=placed"), ["orders.*.placed", "orders.*.placed.>"]);
        assert!(of("source=users&type=placed").is_empty());
        let partition = headwater::partition("u1");
        assert_eq!(of("key=u1"), [format!("orders.*.*.{partition}")]);
        let wrong = subjects("source=users&type=orders.v1.placed", "orders");
        assert!(wrong.expect_err("another source").contains("not of users"));
        assert!(subjects("type=a..b", "orders").is_err());
    }

    #[test]
    fn how_far_streams_were_read_survives_a_lost_connection() {
        let ends = ends_of("orders:17,users:5,,x,y:z");
        assert_eq!(text_of(&ends), "orders:17,users:5");
    }
}
