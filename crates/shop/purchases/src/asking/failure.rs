//! A source that did not answer.

use std::time::Duration;

use axum::http::StatusCode;
use headwater::Positions;
use headwater::http::Problem;
use headwater::request_reply::NoAnswer;

/// When to ask again what could not be answered.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a source answered, and the positions of the answer.
pub(super) type Answer<T> = Result<(T, Positions), Why>;

/// A source that did not answer, and why.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{of} {why}")]
pub(crate) struct Failure {
    pub(super) of: &'static str,
    pub(super) why: Why,
}

/// Why a source did not answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Why {
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    #[error("did not answer in time")]
    Late,
    /// An HTTP status that is no answer.
    #[error("answered {0}")]
    Status(u16),
    #[error("refused the question: {0}")]
    Refused(String),
    #[error("answered nonsense: {0}")]
    Nonsense(String),
    #[error("was not asked: too many questions are under way")]
    Full,
    /// Other answers hold the room.
    #[error("was not asked further: {0} products are being put together for answers")]
    NoRoom(usize),
    /// It will not fit at another time either.
    #[error(
        "has more than {0} products of this user, which is more than is put together for an answer; ask the service purchases in its style replica"
    )]
    TooMuch(usize),
}

/// The sources answered, but are not at the positions that were asked for.
pub(super) fn not_yet(at: &Positions, asked: &Positions) -> Problem {
    let detail = format!("the answer would be as of `{at}`, not yet of `{asked}`; try again");
    Problem::unavailable(detail, RETRY_AFTER)
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        if matches!(failure.why, Why::TooMuch(_)) {
            let status = StatusCode::INSUFFICIENT_STORAGE;
            return Self::new(status, "too-many-products", failure.to_string());
        }
        Self::unavailable(format!("{failure}; try again"), RETRY_AFTER)
    }
}

impl From<NoAnswer> for Why {
    fn from(no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::Full => Self::Full,
            NoAnswer::Late => Self::Late,
            NoAnswer::NotConnected | NoAnswer::NoResponders => {
                Self::Unreachable(no_answer.to_string())
            }
            NoAnswer::TooLarge(why) | NoAnswer::Refused(why) => Self::Refused(why),
            NoAnswer::Malformed(why) => Self::Nonsense(why),
        }
    }
}
