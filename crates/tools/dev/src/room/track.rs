//! The answers of one style, over time.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::heads::{Behind, Positions};

/// What is shown: half a minute.
pub(super) const SHOWN: Duration = Duration::from_secs(30);

/// An answer that lacks events for longer than this is reported.
const LATE: Duration = Duration::from_secs(1);

/// A question that has no answer after this time is shown as waiting.
const WAITS: Duration = Duration::from_millis(400);

/// This many answers in a row end a failure.
const WELL: u32 = 2;

/// What a style answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// How many products: `24`, or `1000+`.
    pub(super) products: String,
    /// The title of the newest.
    pub(super) last: Option<String>,
    pub(super) as_of: Positions,
}

/// One question, and what came of it.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) asked: Instant,
    pub(super) took: Duration,
    /// The error says why there is no answer.
    pub(super) answer: Result<Answer, String>,
    pub(super) behind: Behind,
}

/// A sample in the chart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) at: Instant,
    pub(super) took: Duration,
    /// How old the newest answer is.
    pub(super) age: Duration,
    pub(super) is_answer: bool,
}

/// What people should hear of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Fails(String),
    Answers,
    IsBehind,
    HasCaughtUp,
}

/// The answers of one style.
#[derive(Debug, Default)]
pub(super) struct Track {
    pub(super) last: Option<Sample>,
    /// The newest answer, and when it was asked for.
    pub(super) answer: Option<(Answer, Instant)>,
    /// When the question that has no answer yet was asked.
    pub(super) waits: Option<Instant>,
    pub(super) points: VecDeque<Point>,
    fails: bool,
    is_behind: bool,
    well: u32,
}

impl Track {
    /// Adds a sample; returns what changed.
    pub(super) fn add(&mut self, sample: Sample) -> Option<Change> {
        let now = sample.asked + sample.took;
        self.waits = None;
        let (change, age) = match &sample.answer {
            Ok(answer) => {
                self.answer = Some((answer.clone(), sample.asked));
                self.well += 1;
                (self.answered(sample.behind), sample.behind.since)
            }
            Err(why) => {
                self.well = 0;
                let first = !std::mem::replace(&mut self.fails, true);
                let change = first.then(|| Change::Fails(why.clone()));
                (change, self.age(now).unwrap_or_default())
            }
        };
        self.points.push_back(Point {
            at: now,
            took: sample.took,
            age,
            is_answer: sample.answer.is_ok(),
        });
        let is_old = |point: &Point| point.at + SHOWN < now;
        while self.points.front().is_some_and(is_old) {
            self.points.pop_front();
        }
        self.last = Some(sample);
        change
    }

    /// How long the newest answer has been the newest.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        let (_, asked) = self.answer.as_ref()?;
        Some(now.saturating_duration_since(*asked))
    }

    /// A question that waits for its answer, as the point that it would be now.
    pub(super) fn waiting(&self, now: Instant) -> Option<Point> {
        let took = now.saturating_duration_since(self.waits?);
        (took > WAITS).then(|| Point {
            at: now,
            took,
            age: self.age(now).unwrap_or_default(),
            is_answer: false,
        })
    }

    fn answered(&mut self, behind: Behind) -> Option<Change> {
        if self.fails && self.well >= WELL {
            self.fails = false;
            return Some(Change::Answers);
        }
        if !self.is_behind && behind.since > LATE {
            self.is_behind = true;
            return Some(Change::IsBehind);
        }
        if self.is_behind && behind.events == 0 {
            self.is_behind = false;
            return Some(Change::HasCaughtUp);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(answer: Result<(), &str>, events: u64, since: u64) -> Sample {
        let answer = answer.map(|()| Answer {
            products: "1".to_owned(),
            last: None,
            as_of: Positions::new(),
        });
        Sample {
            asked: Instant::now(),
            took: Duration::from_millis(1),
            answer: answer.map_err(str::to_owned),
            behind: Behind {
                events,
                since: Duration::from_secs(since),
            },
        }
    }

    #[test]
    fn each_change_is_reported_once() {
        let mut track = Track::default();
        let why = || Change::Fails("no".to_owned());
        let course = [
            (sample(Ok(()), 0, 0), None),
            (sample(Err("no"), 0, 0), Some(why())),
            (sample(Err("no"), 0, 0), None),
            (sample(Ok(()), 0, 0), None),
            (sample(Err("no"), 0, 0), None),
            (sample(Ok(()), 0, 0), None),
            (sample(Ok(()), 0, 0), Some(Change::Answers)),
            (sample(Ok(()), 7, 0), None),
            (sample(Ok(()), 7, 2), Some(Change::IsBehind)),
            (sample(Ok(()), 7, 3), None),
            (sample(Ok(()), 1, 0), None),
            (sample(Ok(()), 0, 0), Some(Change::HasCaughtUp)),
            (sample(Ok(()), 0, 0), None),
        ];
        for (step, (sample, expected)) in course.into_iter().enumerate() {
            assert_eq!(track.add(sample), expected, "step {step}");
        }
    }

    #[test]
    fn a_question_that_waits_is_as_old_as_the_answer_before_it() {
        let mut track = Track::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        track.waits = Some(start);
        let waits = |track: &Track, ms| {
            let point = track.waiting(at(ms))?;
            Some([point.at - start, point.took, point.age].map(|time| time.as_millis()))
        };
        assert_eq!(waits(&track, 300), None, "not for long");
        assert_eq!(waits(&track, 900), Some([900, 900, 0]), "the first one");
        let mut answer = sample(Ok(()), 0, 0);
        answer.asked = start;
        track.add(answer);
        assert_eq!(waits(&track, 900), None, "answered");
        track.waits = Some(at(100));
        assert_eq!(waits(&track, 900), Some([900, 800, 900]));
    }
}
