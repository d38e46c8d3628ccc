//! The failure of a source to answer.

use std::time::Duration;

use axum::http::StatusCode;
use headwater::Positions;
use headwater::http::Problem;
use headwater::request_reply::NoAnswer;

/// `Retry-After` of a question that could not be answered.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The answer of a source, and its positions.
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
    /// An HTTP status other than 200 or 404.
    #[error("answered {0}")]
    Status(u16),
    #[error("refused the question: {0}")]
    Refused(String),
    #[error("gave an invalid answer: {0}")]
    InvalidAnswer(String),
    #[error("was not asked: too many questions are pending")]
    Full,
    /// Other answers take up the room. A retry may succeed.
    #[error("was not asked further: answers in progress combine {0} products already")]
    NoRoom(usize),
    /// The answer never fits.
    #[error(
        "has more than {0} products of this user, the most that an answer may combine; ask the service purchases in its style replica"
    )]
    TooMuch(usize),
}

/// The sources answered, but have not reached the positions in `asked`.
pub(super) fn not_yet(at: &Positions, asked: &Positions) -> Problem {
    let detail = format!("the answer would be as of `{at}`, not yet as of `{asked}`; try again");
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
            NoAnswer::Malformed(why) => Self::InvalidAnswer(why),
            other => Self::InvalidAnswer(other.to_string()),
        }
    }
}
