//! Lag as a line, drawn as SVG, with the same in words.

use terminal::table::age;

use crate::sample::{KEPT, Point};

/// The size of a drawing, in the units of its `viewBox`.
pub(crate) const WIDTH: u32 = 240;
pub(crate) const HEIGHT: u32 = 40;

/// A chart of the last hour.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chart {
    /// The points of each line. A line ends where the lag is unknown.
    pub(crate) lines: Vec<String>,
    /// The same in words.
    pub(crate) label: String,
}

impl Chart {
    /// `what`: the projection and its source. The points are sorted by time.
    pub(crate) fn of(what: &str, points: &[Point]) -> Self {
        let known = points.iter().filter_map(|(_, events)| *events);
        let most = known.max().unwrap_or(0);
        let end_ms = points.last().map_or(0, |(at, _)| *at);
        Self {
            lines: lines(&columns(points, end_ms), most),
            label: label(what, points, most),
        }
    }
}

/// The largest lag in each column of the drawing.
fn columns(points: &[Point], end_ms: i64) -> Vec<Point> {
    let mut columns: Vec<Point> = Vec::new();
    let kept_ms = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
    for (at, events) in points {
        let ago = (end_ms - at).clamp(0, kept_ms);
        let column = i64::from(WIDTH) - ago * i64::from(WIDTH) / kept_ms;
        match columns.last_mut() {
            Some((last, most)) if *last == column => *most = (*most).max(*events),
            _ => columns.push((column, *events)),
        }
    }
    columns
}

fn lines(columns: &[Point], most: u64) -> Vec<String> {
    let runs = columns.split(|(_, events)| events.is_none());
    let runs = runs.filter(|run| !run.is_empty());
    let point = |(column, events): &Point| {
        let inner = u128::from(HEIGHT - 4);
        let part = u128::from(events.unwrap_or(0)) * inner / u128::from(most.max(1));
        format!("{column},{}", u128::from(HEIGHT) - 2 - part)
    };
    let line = |run: &[Point]| {
        let points: Vec<String> = run.iter().map(point).collect();
        match points.as_slice() {
            // A single point would not be drawn.
            [one] => format!("{one} {one}"),
            points => points.join(" "),
        }
    };
    runs.map(line).collect()
}

fn label(what: &str, points: &[Point], most: u64) -> String {
    let (Some((first, _)), Some((last, now))) = (points.first(), points.last()) else {
        return format!("Lag of {what}: not known yet");
    };
    let now = match now {
        Some(now) => format!("{now} events now"),
        None => "not known now".to_owned(),
    };
    let seconds = u32::try_from((last - first) / 1000).unwrap_or(0);
    let span = age(Some(f64::from(seconds)));
    format!("Lag of {what}: {now}, at most {most} in the last {span}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_a_line_for_each_run_of_known_lags_and_says_the_same_in_words() {
        let points = [
            (0, Some(0)),
            (1_785_001, Some(100)),
            (1_800_000, Some(50)),
            (2_700_000, None),
            (3_600_000, Some(25)),
        ];
        let chart = Chart::of("p behind s", &points);
        assert_eq!(chart.lines, ["0,38 120,2", "240,29 240,29"]);
        let label = "Lag of p behind s: 25 events now, at most 100 in the last 1 h 0 min";
        assert_eq!(chart.label, label);
        let none = Chart::of("p behind s", &[]);
        assert!(none.lines.is_empty() && none.label.ends_with("not known yet"));
    }
}
