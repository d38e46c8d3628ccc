//! The replicas of streams and consumers, and reports of missing ones.

use headwater::replicas::{LEADERLESS, PART, Replicas, WITHOUT_QUORUM};
use headwater::stream;

use crate::survey::Survey;

/// A stream or consumer with too few replicas.
#[derive(Debug)]
pub(crate) struct Short {
    name: String,
    pub(crate) what: String,
    /// Whether nothing can be published to it.
    pub(crate) is_stopped: bool,
}

impl Short {
    fn of(name: &str, replicas: &Replicas) -> Option<Self> {
        let trouble = replicas.trouble(true)?;
        Some(Self {
            name: name.to_owned(),
            what: format!("{name} {trouble}"),
            is_stopped: !replicas.has_quorum(),
        })
    }
}

impl Survey {
    /// The streams and consumers with too few replicas.
    pub(crate) fn short_of_replicas(&self) -> Vec<Short> {
        let silent = self.silent.iter().map(|name| Short {
            name: name.clone(),
            what: format!("{} that answers; {WITHOUT_QUORUM}", leaderless(name)),
            is_stopped: true,
        });
        let streams = self.streams.iter();
        let streams = streams.filter_map(|stream| Short::of(&stream.name, &stream.replicas));
        let mut all: Vec<Short> = silent.chain(streams).collect();
        for group in &self.groups {
            let Some(short) = Short::of(&group.name, &group.replicas) else {
                continue;
            };
            // A consumer shares its stream's lack of replicas.
            let is_said = |stream: &Short| {
                Some(&stream.name) == group.of.as_ref() && stream.is_stopped >= short.is_stopped
            };
            if !all.iter().any(is_said) {
                all.push(short);
            }
        }
        all
    }

    /// Whether the stream of `source` has no leader.
    pub(crate) fn is_leaderless(&self, source: &str) -> bool {
        let name = stream::name(source);
        let mut streams = self.streams.iter();
        self.silent.contains(&name)
            || streams.any(|stream| stream.name == name && stream.replicas.is_leaderless())
    }

    /// Whether a component's message is already reported about the brokers: a stream with too few
    /// replicas or without a leader.
    pub(crate) fn is_said_of_brokers(&self, part: &str, why: &str) -> bool {
        let short = self.short_of_replicas();
        let is_seen = |name| short.iter().any(|short| short.name == name);
        let is_leaderless = |short: &Short| why.contains(&leaderless(&short.name));
        let is_down = !self.brokers.is_usable();
        match part.strip_prefix(PART) {
            Some(name) => is_down || is_seen(name),
            None if is_down => why.contains("no quorum") || why.contains(LEADERLESS),
            None => short.iter().any(is_leaderless),
        }
    }
}

fn leaderless(name: &str) -> String {
    format!("{name} {LEADERLESS}")
}
