//! Small charts of the last half minute, as attributes of SVG elements.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use super::track::{Point, SHOWN};

/// The view box of a chart is `0 0 300 60`.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 60.0;

/// The scale is logarithmic, from 0.3 ms to 30 s.
const LEAST_MS: f64 = 0.3;
const MOST_MS: f64 = 30_000.0;

/// Between samples that are further apart, nobody watched; an answer takes less.
const GAP: Duration = Duration::from_secs(6);

/// The `d` of a `path` through `points`, and then the question that is waiting now, if one is.
pub(super) fn line(
    points: &VecDeque<Point>,
    waiting: Option<Point>,
    now: Instant,
    value: impl Fn(&Point) -> Duration,
) -> String {
    let mut text = String::new();
    let mut before = None;
    for point in points.iter().chain(&waiting) {
        let (x, y) = (x(point.at, now), y(value(point)));
        let is_next = before.is_some_and(|before| point.at - before < GAP);
        let command = if is_next { 'L' } else { 'M' };
        let _infallible = write!(text, "{command}{x:.1} {y:.1}");
        before = Some(point.at);
    }
    text
}

/// The `d` of a `path`: a stroke for each question without an answer.
pub(super) fn failures(points: &VecDeque<Point>, now: Instant) -> String {
    let mut text = String::new();
    for point in points.iter().filter(|point| !point.is_answer) {
        let _infallible = write!(text, "M{:.1} 0V{HEIGHT}", x(point.at, now));
    }
    text
}

fn x(at: Instant, now: Instant) -> f64 {
    let ago = now.saturating_duration_since(at).as_secs_f64();
    WIDTH * (1.0 - ago / SHOWN.as_secs_f64())
}

fn y(value: Duration) -> f64 {
    let ms = (value.as_secs_f64() * 1000.0).clamp(LEAST_MS, MOST_MS);
    let part = (ms / LEAST_MS).ln() / (MOST_MS / LEAST_MS).ln();
    2.0 + (HEIGHT - 4.0) * (1.0 - part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_is_on_the_right_much_is_on_top_and_gaps_stay_gaps() {
        let now = Instant::now() + SHOWN;
        let point = |ago: u64, ms, is_answer| Point {
            at: now - Duration::from_secs(ago),
            took: Duration::from_millis(ms),
            age: Duration::ZERO,
            is_answer,
        };
        let points = VecDeque::from([
            point(30, 0, true),
            point(15, 3, true),
            point(12, 3, true),
            point(0, 60_000, false),
        ]);
        let took = line(&points, None, now, |point| point.took);
        assert_eq!(took, "M0.0 58.0M150.0 46.8L180.0 46.8M300.0 2.0");
        let (before, waiting) = ([points[2]].into(), Some(point(9, 30, false)));
        let took = line(&before, waiting, now, |point| point.took);
        assert_eq!(took, "M180.0 46.8L210.0 35.6");
        assert_eq!(failures(&points, now), "M300.0 0V60");
    }
}
