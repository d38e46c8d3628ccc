//! What the control room knows, and what it reports to people.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::heads::Heads;
use super::track::{Change, Sample, Track};

/// Reports that are kept.
const STORY_MAX: usize = 8;

/// A style of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Style {
    Replica,
    Composition,
    RequestReply,
}

impl Style {
    pub(super) const ALL: [Self; 3] = [Self::Replica, Self::Composition, Self::RequestReply];

    /// Its name in texts.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Replica => "Replica",
            Self::Composition => "API composition",
            Self::RequestReply => "Request-reply",
        }
    }

    /// The service that answers in this style.
    pub(super) fn service(self) -> &'static str {
        match self {
            Self::Replica => "purchases",
            Self::Composition => "purchases-composition",
            Self::RequestReply => "purchases-inquiry",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// 1, 2, 3 …
    pub(super) number: u64,
    /// Minutes and seconds since the room was opened, and what happened.
    pub(super) text: String,
}

/// What the control room knows.
#[derive(Debug)]
pub(super) struct Known {
    opened: Instant,
    pub(super) heads: Heads,
    /// The highest position seen in each stream.
    pub(super) streams: BTreeMap<String, u64>,
    pub(super) tracks: BTreeMap<Style, Track>,
    /// The newest last.
    pub(super) story: VecDeque<Report>,
    said: u64,
    /// Of each direction of the slow link.
    pub(super) delay: Duration,
    pub(super) is_pouring: bool,
}

/// Shared by all tasks of the room.
#[derive(Clone, Debug)]
pub(super) struct Board(Arc<Mutex<Known>>);

impl Board {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Known {
            opened: Instant::now(),
            heads: Heads::default(),
            streams: BTreeMap::new(),
            tracks: Style::ALL.map(|style| (style, Track::default())).into(),
            story: VecDeque::new(),
            said: 0,
            delay: Duration::ZERO,
            is_pouring: false,
        })))
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn say(&self, what: &str) {
        self.known().say(what);
    }
}

impl Known {
    pub(super) fn say(&mut self, what: &str) {
        self.said += 1;
        let seconds = self.opened.elapsed().as_secs();
        let mut text = format!("{}:{:02} ", seconds / 60, seconds % 60);
        let _infallible = write!(text, "{what}");
        self.story.push_back(Report {
            number: self.said,
            text,
        });
        if self.story.len() > STORY_MAX {
            self.story.pop_front();
        }
    }

    /// An event of `source` was seen in its stream.
    pub(super) fn published(&mut self, source: &str, position: u64) {
        self.heads.note(source, position, Instant::now());
        let seen = self.streams.entry(source.to_owned()).or_default();
        *seen = position.max(*seen);
    }

    pub(super) fn asked(&mut self, style: Style, at: Instant) {
        self.track(style).waits = Some(at);
    }

    pub(super) fn answered(&mut self, style: Style, mut sample: Sample) {
        if let Ok(answer) = &sample.answer {
            let now = Instant::now();
            sample.behind = self.heads.behind(&answer.as_of, sample.asked);
            for (source, position) in &answer.as_of {
                self.heads.note(source, *position, now);
                if style == Style::Replica {
                    // What it has applied was in the stream.
                    let seen = self.streams.entry(source.clone()).or_default();
                    *seen = (*position).max(*seen);
                }
            }
        }
        let name = style.name();
        match self.track(style).add(sample) {
            Some(Change::Fails(why)) => self.say(&format!("{name} fails: {why}")),
            Some(Change::Answers) => self.say(&format!("{name} answers again.")),
            Some(Change::IsBehind) => {
                self.say(&format!(
                    "{name} is behind: it answers, without the newest events."
                ));
            }
            Some(Change::HasCaughtUp) => self.say(&format!("{name} has caught up.")),
            None => {}
        }
    }

    fn track(&mut self, style: Style) -> &mut Track {
        self.tracks.entry(style).or_default()
    }
}
