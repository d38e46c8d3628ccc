//! What is to be thought of what was seen.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;
use terminal::Exit;
use terminal::output::printable;
use terminal::table::{age, count};

use super::limits::{Limit, Limits};
use crate::survey::{Level, Survey, Trouble, Waiting};

/// The states of Nagios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum State {
    Ok,
    Warning,
    Critical,
    Unknown,
}

/// The state, and why.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) state: State,
    /// The worst first; what was seen where all is well.
    messages: Vec<String>,
}

impl Verdict {
    pub(super) fn critical(what: String) -> Self {
        Self {
            state: State::Critical,
            messages: vec![what],
        }
    }

    pub(super) fn unknown(what: String) -> Self {
        Self {
            state: State::Unknown,
            messages: vec![what],
        }
    }

    pub(super) fn of(survey: &Survey, limits: &Limits) -> Self {
        let mut troubles = survey.of_brokers();
        troubles.extend(survey.failures());
        troubles.extend(survey.ahead());
        troubles.extend(survey.warned());
        troubles.extend(survey.unfinished());
        for relay in &survey.relays {
            let name = format!("the outbox of {}", relay.source);
            let levels = (limits.outbox_warning, limits.outbox_critical);
            troubles.extend(waiting(&name, relay.depth, levels));
        }
        for projection in &survey.projections {
            for (source, lag) in &projection.sources {
                let name = format!("{} from {source}", projection.name);
                let levels = (limits.lag_warning, limits.lag_critical);
                troubles.extend(waiting(&name, lag.waiting, levels));
            }
            troubles.extend(letters(&projection.name, projection.dead_letters, limits));
        }
        troubles.sort_by_key(|trouble| std::cmp::Reverse(trouble.level));
        let state = match troubles.first().map(|trouble| trouble.level) {
            None => State::Ok,
            Some(Level::Warning) => State::Warning,
            Some(Level::Critical) => State::Critical,
        };
        let mut messages: Vec<String> = troubles.into_iter().map(|trouble| trouble.what).collect();
        if messages.is_empty() {
            messages.push(format!(
                "{} services, {} outboxes, {} projections",
                survey.services.len(),
                survey.relays.len(),
                survey.projections.len()
            ));
        }
        Self { state, messages }
    }

    pub(super) fn exit(&self) -> Exit {
        match self.state {
            State::Ok => Exit::Done,
            State::Warning => Exit::Warning,
            State::Critical => Exit::Critical,
            State::Unknown => Exit::Unknown,
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let word = format!("{:?}", self.state).to_uppercase();
        write!(f, "{word} - {}", printable(&self.messages.join("; ")))
    }
}

fn waiting(name: &str, waiting: Waiting, (warning, critical): (Limit, Limit)) -> Option<Trouble> {
    let level = if critical.is_passed_by(waiting) {
        Level::Critical
    } else if warning.is_passed_by(waiting) {
        Level::Warning
    } else {
        return None;
    };
    let (events, seconds) = (count(waiting.events), age(waiting.seconds));
    Some(Trouble::new(
        level,
        format!("{name}: {events} events wait, the oldest for {seconds}"),
    ))
}

fn letters(name: &str, letters: u64, limits: &Limits) -> Option<Trouble> {
    let level = if letters >= limits.dead_letters_critical {
        Level::Critical
    } else if letters >= limits.dead_letters_warning {
        Level::Warning
    } else {
        return None;
    };
    (letters > 0).then(|| Trouble::new(level, format!("{name}: {letters} dead letters")))
}
