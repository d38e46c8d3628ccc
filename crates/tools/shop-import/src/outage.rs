//! When to stop: exhausting the patience for each of a million lines is pointless.

use std::fmt;

use reqwest::Url;
use tokio::time::Instant;

use crate::ids::Kind;
use crate::requests::{Failure, Trouble};

/// Stop after this many consecutive lines that were answered but not accepted, each retried for the
/// whole patience.
const MAX_CONSECUTIVE_FAILURES: u32 = 16;

/// A service that cannot be used. The text says what to do.
#[derive(Clone, Debug)]
pub struct Outage {
    /// The service.
    pub kind: Kind,
    /// Its URL.
    pub url: Url,
    /// Whether it answered at all.
    pub answered: bool,
    /// The last error.
    pub trouble: String,
}

/// Watches the results of one service's lines.
pub(crate) struct Watch {
    /// When the service last created or refused a record.
    settled: Instant,
    given_up: u32,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self {
            settled: Instant::now(),
            given_up: 0,
        }
    }

    /// Returns the last error when it is time to stop: a line got no answer for its whole patience
    /// while no other line did, or too many consecutive lines were postponed.
    pub(crate) fn line<'a, T>(
        &mut self,
        outcome: &'a Result<T, Failure>,
    ) -> Result<(), &'a Trouble> {
        match outcome {
            Ok(_) | Err(Failure::Refused(_)) => {
                *self = Self::start();
                Ok(())
            }
            Err(Failure::GaveUp { since, trouble }) => {
                self.given_up += 1;
                let away = !trouble.is_answer() && self.settled <= *since;
                if away || self.given_up >= MAX_CONSECUTIVE_FAILURES {
                    Err(trouble)
                } else {
                    Ok(())
                }
            }
            Err(Failure::Malformed(_)) => Ok(()),
        }
    }
}

impl Outage {
    pub(crate) fn new(kind: Kind, url: &Url, trouble: &Trouble) -> Self {
        let (answered, trouble) = (trouble.is_answer(), trouble.to_string());
        Self {
            kind,
            url: url.clone(),
            answered,
            trouble,
        }
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (kind, url, trouble) = (self.kind.name(), &self.url, &self.trouble);
        let what = if self.answered {
            format!(
                "has postponed {MAX_CONSECUTIVE_FAILURES} lines in a row: {trouble}; read its log"
            )
        } else {
            format!(
                "cannot be reached: {trouble}; start the shop with `cargo dev`, or set its URL \
                 with --{kind}-url"
            )
        };
        write!(
            f,
            "the {kind} service at {url} {what}; then run the same import again, nothing is \
             duplicated"
        )
    }
}
