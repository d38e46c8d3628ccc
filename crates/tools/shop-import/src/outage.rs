//! When to stop: waiting out the patience once for each of a million lines helps nobody.

use std::fmt;

use reqwest::Url;
use tokio::time::Instant;

use crate::ids::Kind;
use crate::requests::{Failure, Trouble};

/// So many lines in a row that a service answered and did not take, each for the whole patience.
const MAX_CONSECUTIVE_FAILURES: u32 = 16;

/// A service that cannot be worked with. Printed, it says what to do.
#[derive(Clone, Debug)]
pub struct Outage {
    /// The service.
    pub kind: Kind,
    /// Where it should have been.
    pub url: Url,
    /// Whether there was an answer at all.
    pub answered: bool,
    /// What happened last.
    pub trouble: String,
}

/// Watches how the lines of one service end.
pub(crate) struct Watch {
    /// When the service last settled a line, created or refused.
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

    /// Errors with the last trouble when it is time to stop: a line found no answer in its whole
    /// patience while no other line did, or line after line was put off.
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
                "has put off {MAX_CONSECUTIVE_FAILURES} lines in a row: {trouble}; look at its log"
            )
        } else {
            format!(
                "cannot be reached: {trouble}; start the shop with `cargo dev`, or say where it is \
                 with --{kind}-url"
            )
        };
        write!(
            f,
            "the {kind} service at {url} {what}; then run the same import again, nothing will be \
             doubled"
        )
    }
}
