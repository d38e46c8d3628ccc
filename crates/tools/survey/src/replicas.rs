//! What of a survey a person has to look at.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use headwater::health::State;
use headwater::replicas::{LEADERLESS, NO_QUORUM, PART, Replicas, WITHOUT_QUORUM};
use headwater::{Clock, stream};
use serde::Serialize;
use terminal::output::printable;
use terminal::table::{age, count};

use super::{Projection, Survey};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// It works, and should be looked at.
    Warning,
    /// It does not.
    Critical,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trouble {
    pub(crate) level: Level,
    pub(crate) what: String,
}

/// What a stream does not have, and what can be done about it.
pub(crate) struct Incomplete {
    pub(crate) what: String,
    pub(crate) fix: String,
}

impl Trouble {
    pub(crate) fn new(level: Level, what: String) -> Self {
        Self { level, what }
    }
}

impl Display for Trouble {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let word = match self.level {
            Level::Warning => "warning",
            Level::Critical => "CRITICAL",
        };
        write!(f, "{word}: {}", printable(&self.what))
    }
}

impl Survey {
    /// The brokers, and the copies that they have.
    pub(crate) fn of_brokers(&self) -> Vec<Trouble> {
        let mut troubles = self.brokers.troubles();
        let replicas = self.short_of_replicas().into_iter();
        troubles.extend(replicas.map(|(_, trouble)| trouble));
        troubles
    }

    /// What has not the copies that it should, with the name of the stream that it is, or is of.
    pub(crate) fn short_of_replicas(&self) -> Vec<(String, Trouble)> {
        let silent = self.silent.iter().map(|name| {
            let what = format!("{} that answers; {WITHOUT_QUORUM}", leaderless(name));
            (name.clone(), Trouble::new(Level::Critical, what))
        });
        let streams = self.streams.iter().filter_map(|stream| {
            let trouble = of_replicas(&stream.name, &stream.replicas)?;
            Some((stream.name.clone(), trouble))
        });
        let mut troubles: Vec<_> = silent.chain(streams).collect();
        for group in &self.groups {
            let Some(trouble) = of_replicas(&group.name, &group.replicas) else {
                continue;
            };
            // What its stream is short of a consumer is as well.
            let is_of_stream = |(of, said): &(String, Trouble)| {
                Some(of) == group.of.as_ref() && said.level >= trouble.level
            };
            if !troubles.iter().any(is_of_stream) {
                troubles.push((group.name.clone(), trouble));
            }
        }
        troubles
    }

    /// Whether nobody leads the stream of `source`.
    pub(crate) fn is_leaderless(&self, source: &str) -> bool {
        let name = stream::name(source);
        let mut streams = self.streams.iter();
        self.silent.contains(&name)
            || streams.any(|stream| stream.name == name && stream.replicas.is_leaderless())
    }

    /// Whether what a part says is seen of the brokers: a stream that is short of copies, or that
    /// nobody leads.
    pub(crate) fn is_said_of_brokers(&self, part: &str, why: &str) -> bool {
        let short = self.short_of_replicas();
        let is_seen = |name| short.iter().any(|(short, _)| short == name);
        let is_leaderless = |(name, _): &(String, Trouble)| why.contains(&leaderless(name));
        let is_down = !self.brokers.is_usable();
        match part.strip_prefix(PART) {
            Some(name) => is_down || is_seen(name),
            None if is_down => why.contains(NO_QUORUM) || why.contains(LEADERLESS),
            None => short.iter().any(is_leaderless),
        }
    }

    /// Who is missing, and what has failed: whatever limits there are for the rest.
    pub(crate) fn failures(&self) -> Vec<Trouble> {
        let missing = self.missing.iter().cloned();
        let failed = self.services.iter().flat_map(|service| {
            let parts = service.parts.iter();
            parts.filter_map(move |(part, state)| match state {
                State::Failed(why) => Some(format!("{}: {part}: {why}", service.name)),
                _ => None,
            })
        });
        let mut failures: Vec<String> = missing.chain(failed).collect();
        for projection in &self.projections {
            let Projection { service, name, .. } = projection;
            for (source, fault) in projection.faults() {
                // What fails a part is in its state already.
                if !failures.iter().any(|what| what.contains(fault)) {
                    failures.push(format!("{service}: {name} from {source}: {fault}"));
                }
            }
        }
        let failures = failures.into_iter();
        failures
            .map(|what| Trouble::new(Level::Critical, what))
            .collect()
    }

    /// Streams that have more than the outbox has.
    pub(crate) fn ahead(&self) -> Vec<Trouble> {
        let streams = self.relays.iter().filter_map(|relay| {
            let (head, published) = (relay.head?, relay.published?);
            (published > head).then(|| {
                format!(
                    "the stream of {} is ahead of its outbox: it ends with {published}, the outbox with {head}",
                    relay.source
                )
            })
        });
        streams
            .map(|what| Trouble::new(Level::Critical, what))
            .collect()
    }

    /// Parts that have warned of something and go on. What is said as a pause or as dead letters is
    /// left out.
    pub(crate) fn warned(&self) -> Vec<Trouble> {
        let parts = self.services.iter().flat_map(|service| {
            let parts = service.parts.iter();
            parts.filter_map(move |(part, state)| match state {
                State::Degraded(why)
                    if !self.is_said(part, why) && !self.is_said_of_brokers(part, why) =>
                {
                    Some(format!("{}: {part}: {why}", service.name))
                }
                _ => None,
            })
        });
        parts
            .map(|what| Trouble::new(Level::Warning, what))
            .collect()
    }

    /// Whether what a part says is said of its projection: that it is paused, or has dead letters.
    fn is_said(&self, part: &str, why: &str) -> bool {
        self.projections.iter().any(|projection| {
            let is_paused = projection.paused.is_some() && part == projection.name;
            let has_letters = projection.sources.iter().any(|(source, lag)| {
                part == format!("{} from {source}", projection.name) && lag.met.dead_letters > 0
            });
            is_paused || has_letters && why.ends_with("see headwater dead-letter list")
        })
    }

    /// Projections that an operator holds, or that are not whole yet.
    pub(crate) fn unfinished(&self) -> Vec<Trouble> {
        let said = self.projections.iter().filter_map(|projection| {
            let Projection { service, name, .. } = projection;
            match &projection.paused {
                Some(pause) => Some(format!(
                    "{name} of {service} is paused since {}: {}",
                    Clock::text(pause.since),
                    pause.reason
                )),
                None if !projection.is_complete => Some(format!(
                    "{name} of {service} is folded from the first event on and not whole yet"
                )),
                None => None,
            }
        });
        said.map(|what| Trouble::new(Level::Warning, what))
            .collect()
    }

    /// Streams that do not have all events of their source.
    pub(crate) fn incomplete(&self) -> Vec<Incomplete> {
        let streams = self.streams.iter();
        streams
            .filter_map(|stream| {
                let (name, source) = (&stream.name, &stream.source);
                if !stream.discards.is_empty() {
                    let limits = stream.discards.join(", ");
                    return Some(Incomplete {
                        what: format!(
                            "{name} drops events by its {limits}: what is rebuilt gets them from \
                             the outbox of {source}"
                        ),
                        fix: format!(
                            "`nats stream edit {name}`, unless it is wanted; then `headwater stream restore {source}` has all events in the stream again"
                        ),
                    });
                }
                let first = stream.begins_at?;
                Some(Incomplete {
                    what: format!(
                        "{name} begins with position {first} of {source}: those before are in the \
                         outbox only"
                    ),
                    fix: format!("headwater stream restore {source}"),
                })
            })
            .collect()
    }

    /// All of it, where events may wait for as long as `max_lag`, and no dead letter.
    pub(crate) fn troubles(&self, max_lag: Duration) -> Vec<Trouble> {
        let late = self
            .relays
            .iter()
            .filter(|relay| relay.depth.is_older_than(max_lag))
            .map(|relay| {
                format!(
                    "{} events of {} wait for the relay, the oldest for {}",
                    count(relay.depth.events),
                    relay.source,
                    age(relay.depth.seconds)
                )
            });
        let behind = self.projections.iter().filter(|projection| {
            let mut lags = projection.sources.values();
            projection.paused.is_none() && lags.any(|source| source.waiting.is_older_than(max_lag))
        });
        let behind = behind.map(|projection| {
            let lag = projection.lag();
            format!(
                "{} of {} lags by {} events, the oldest is {} old",
                projection.name,
                projection.service,
                count(lag.events),
                age(lag.seconds)
            )
        });
        let parked = self
            .projections
            .iter()
            .filter(|projection| projection.dead_letters > 0);
        let parked = parked.map(|projection| {
            format!(
                "{} dead letters of {} wait: `headwater dead-letter list --service {}`",
                projection.dead_letters, projection.name, projection.service
            )
        });
        let incomplete = self.incomplete().into_iter().map(|found| found.what);
        let warnings = late.chain(behind).chain(parked).chain(incomplete);
        let mut troubles = self.of_brokers();
        troubles.extend(self.failures());
        troubles.extend(self.ahead());
        troubles.extend(self.warned());
        troubles.extend(warnings.map(|what| Trouble::new(Level::Warning, what)));
        troubles.extend(self.unfinished());
        troubles
    }
}

fn leaderless(name: &str) -> String {
    format!("{name} {LEADERLESS}")
}

fn of_replicas(name: &str, replicas: &Replicas) -> Option<Trouble> {
    let trouble = replicas.trouble(true)?;
    let level = if replicas.has_quorum() {
        Level::Warning
    } else {
        Level::Critical
    };
    Some(Trouble::new(level, format!("{name} {trouble}")))
}
