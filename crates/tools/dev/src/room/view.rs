//! The page: its values, by name, which the page binds to texts and attributes, and its template.

use std::collections::BTreeMap;
use std::time::Duration;

use askama::Template;
use tokio::time::Instant;

use super::board::{Known, Report, Style};
use super::chart;
use super::track::{Point, Track};
use crate::control::{Seen, State, Verb};
use crate::system::{BROKER, SLOWED};

/// The sources, each with the place of its box in the picture.
const SOURCES: [(&str, u32); 3] = [("users", 8), ("products", 141), ("orders", 274)];

/// Texts and attributes, by name.
pub(super) type Values = BTreeMap<String, String>;

/// The values of now.
pub(super) fn values(known: &Known, seen: &[Seen]) -> Values {
    let mut values = Values::new();
    let mut set = |key: String, value: String| {
        values.insert(key, value);
    };
    for Seen { name, state, pid } in seen {
        let is_stopped = *state == State::Stopped;
        let (label, verb) = match state {
            State::Stopped => ("Start", Verb::Start),
            State::Paused => ("Continue", Verb::Continue),
            State::Starting | State::Running | State::Stopping => ("Pause", Verb::Pause),
        };
        set(format!("process.{name}.state"), state.name().to_owned());
        set(format!("process.{name}.pid"), pid.to_string());
        set(format!("process.{name}.label"), label.to_owned());
        set(format!("process.{name}.action"), action(name, verb));
        set(format!("process.{name}.stopped"), is_stopped.to_string());
    }
    let replica = known.tracks.get(&Style::Replica);
    let replica = replica.and_then(|track| track.answer.as_ref());
    for (source, _) in SOURCES {
        let stream = known.streams.get(source).copied().unwrap_or_default();
        let store = replica.and_then(|(answer, _)| answer.as_of.get(source));
        let store = store.copied().unwrap_or_default();
        set(
            format!("source.{source}"),
            known.heads.of(source).to_string(),
        );
        set(format!("stream.{source}"), stream.to_string());
        set(format!("store.{source}"), store.to_string());
    }
    let now = Instant::now();
    for (style, track) in &known.tracks {
        let key = key(*style);
        let Shown {
            state,
            answer,
            age,
            took,
        } = show(track, now);
        set(format!("style.{key}.state"), state.to_owned());
        set(format!("style.{key}.answer"), answer);
        set(format!("style.{key}.age"), age);
        set(format!("style.{key}.took"), took);
        let waiting = track.waiting(now);
        let line = |value: fn(&Point) -> Duration| chart::line(&track.points, waiting, now, value);
        set(format!("style.{key}.tooks"), line(|point| point.took));
        set(format!("style.{key}.ages"), line(|point| point.age));
        set(
            format!("style.{key}.failures"),
            chart::failures(&track.points, now),
        );
    }
    let slow = if known.delay.is_zero() { "" } else { "slow" };
    set("link".to_owned(), slow.to_owned());
    set(
        "link.delay".to_owned(),
        format!("{} ms", known.delay.as_millis()),
    );
    values
}

pub(super) fn action(name: &str, verb: Verb) -> String {
    format!("/processes/{name}/{}", verb.name())
}

/// A style as the page shows it.
struct Shown {
    /// `good`, `late`, `bad`, or `none` before the first answer.
    state: &'static str,
    answer: String,
    age: String,
    took: String,
}

fn show(track: &Track, now: Instant) -> Shown {
    let Some(last) = &track.last else {
        let none = String::new;
        return Shown {
            state: "none",
            answer: "not asked yet".to_owned(),
            age: none(),
            took: none(),
        };
    };
    let waiting = track.waiting(now);
    let took = match &waiting {
        Some(waiting) => format!("waiting for {}", time(waiting.took)),
        None => time(last.took),
    };
    let newest = || match track.age(now) {
        Some(age) => format!("last answer {} ago", time(age)),
        None => "never answered".to_owned(),
    };
    match &last.answer {
        Ok(answer) => {
            let title = answer.last.as_deref().unwrap_or("none");
            let behind = last.behind;
            let (state, age) = match behind.events {
                0 => ("good", "up to date".to_owned()),
                1 => ("late", format!("1 event, {} behind", time(behind.since))),
                events => (
                    "late",
                    format!("{events} events, {} behind", time(behind.since)),
                ),
            };
            Shown {
                state,
                answer: format!("{} products, the newest: {title}", answer.products),
                age: if waiting.is_some() { newest() } else { age },
                took,
            }
        }
        Err(why) => Shown {
            state: "bad",
            answer: format!("No answer: {why}"),
            age: newest(),
            took,
        },
    }
}

/// `0.8 ms`, `120 ms`, `4.1 s`
fn time(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    match ms {
        ..10.0 => format!("{ms:.1} ms"),
        ..1000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1000.0),
    }
}

/// The name of a style in the names of values.
fn key(style: Style) -> &'static str {
    match style {
        Style::Replica => "replica",
        Style::Composition => "composition",
        Style::RequestReply => "request-reply",
    }
}

/// A process with its buttons.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    stop: String,
    kill: String,
}

/// A column with the answers of a style.
#[derive(Debug)]
struct Column {
    key: &'static str,
    name: &'static str,
    how: &'static str,
    /// The service's page of the user.
    url: String,
}

/// A user, and where each style shows what the user ordered.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) whose: String,
    pub(super) urls: [(Style, String); 3],
}

#[derive(Template)]
#[template(path = "room.html")]
pub(super) struct Page {
    values: Values,
    whose: Option<String>,
    columns: Vec<Column>,
    processes: Vec<Process>,
    sources: [(&'static str, u32); 3],
    slowed: &'static str,
    has_links: bool,
    has_broker: bool,
    /// The newest first.
    story: Vec<Report>,
}

impl Page {
    pub(super) fn new(
        known: &Known,
        seen: &[Seen],
        asked: Option<&Asked>,
        has_links: bool,
    ) -> Self {
        let urls = asked.into_iter().flat_map(|asked| &asked.urls);
        let columns = urls.map(|(style, url)| Column {
            key: key(*style),
            name: style.name(),
            how: match style {
                Style::Replica => "reads its own read store",
                Style::Composition => "asks the sources over HTTP",
                Style::RequestReply => "asks the sources over NATS",
            },
            url: url.clone(),
        });
        let processes = seen.iter().map(|seen| Process {
            name: seen.name,
            stop: action(seen.name, Verb::Stop),
            kill: action(seen.name, Verb::Kill),
        });
        Self {
            values: values(known, seen),
            whose: asked.map(|asked| asked.whose.clone()),
            columns: columns.collect(),
            processes: processes.collect(),
            sources: SOURCES,
            slowed: SLOWED,
            has_links,
            has_broker: seen.iter().any(|seen| seen.name == BROKER),
            story: known.story.iter().rev().cloned().collect(),
        }
    }

    /// The value called `first.second.third`, or shorter.
    fn v(&self, first: &str, second: &str, third: &str) -> &str {
        let names = [first, second, third];
        let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty()).collect();
        self.values.get(&names.join(".")).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_or_three_digits() {
        let shown = [800, 9_900, 120_400, 4_120_000].map(|us| time(Duration::from_micros(us)));
        assert_eq!(shown, ["0.8 ms", "9.9 ms", "120 ms", "4.1 s"]);
    }
}
