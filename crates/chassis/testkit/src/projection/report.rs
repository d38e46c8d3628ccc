//! The report of a projection that does not converge.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use headwater::Envelope;

use crate::projection::course::Step;

/// Tables by name, each with its rows as text.
pub(super) type Tables = BTreeMap<String, Vec<String>>;

/// The table of dead letters.
pub(super) const DEAD_LETTERS: &str = "dead letters";
/// The most rows in a report.
const ROWS_MAX: usize = 20;
/// Equal lines that are shown around those that differ.
const AROUND: usize = 3;

/// A step of a course as text, and how many events it applies: none if it is a fault.
pub(super) type Line = (String, usize);

/// The steps of a course.
pub(super) fn lines(sources: &[(&str, Vec<Envelope>)], course: &[Step]) -> Vec<Line> {
    let mut applied = vec![0; sources.len()];
    let mut lines = Vec::new();
    for step in course {
        let text = match *step {
            Step::Apply { source, events } => {
                let from = applied[source] + 1;
                applied[source] += events;
                batch(&sources[source], from, events)
            }
            Step::RollBack { source, events } => {
                let batch = batch(&sources[source], applied[source] + 1, events);
                format!("(rolled back: {batch})")
            }
            Step::Duplicate { source, position } => {
                format!("(published again: {}:{position})", sources[source].0)
            }
            Step::Replay { source, position } => {
                format!("(read again: {} from {position} on)", sources[source].0)
            }
            Step::Restart => "(the process starts again)".to_owned(),
            Step::Settle => "(the background work runs)".to_owned(),
        };
        let events = match *step {
            Step::Apply { events, .. } => events,
            _ => 0,
        };
        lines.push((text, events));
    }
    lines
}

/// A batch of `source`: `orders:3 placed`.
fn batch((source, events): &(&str, Vec<Envelope>), from: usize, count: usize) -> String {
    let event = |position: usize| {
        let kind = events[position - 1].kind().split('.').next_back();
        format!("{source}:{position} {}", kind.unwrap_or_default())
    };
    let each: Vec<_> = (from..from + count).map(event).collect();
    each.join(" + ")
}

/// Two courses in two columns, on the left without batches; `>` marks where they differ.
pub(super) fn side_by_side([left, right]: &[Vec<Line>; 2]) -> String {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    let mut left = left.iter().map(|(text, _)| &**text);
    for (text, events) in right {
        let mut others = left.by_ref().take(*events);
        pairs.push((others.next().unwrap_or_default(), text));
        pairs.extend(others.map(|text| (text, "")));
    }
    pairs.extend(left.map(|text| (text, "")));
    let width = pairs.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    let differs = |at: usize| pairs.get(at).is_some_and(|(left, right)| left != right);
    let mut text = String::new();
    let mut left_out = 0;
    for (at, (left, right)) in pairs.iter().enumerate() {
        if !(at.saturating_sub(AROUND)..=at + AROUND).any(differs) {
            left_out += 1;
            continue;
        }
        more(&mut text, &mut left_out);
        let mark = if differs(at) { '>' } else { ' ' };
        let line = format!("  {mark} {left:width$}  |  {right}");
        text += line.trim_end();
        text.push('\n');
    }
    more(&mut text, &mut left_out);
    text
}

fn more(text: &mut String, left_out: &mut usize) {
    if *left_out > 0 {
        writeln!(text, "    ... {left_out} equal steps").expect("a string takes text");
        *left_out = 0;
    }
}

/// The rows that only one of two ends has.
pub(super) fn differences([left, right]: &[Tables; 2]) -> String {
    let mut rows = Vec::new();
    let names = left
        .keys()
        .chain(right.keys().filter(|name| !left.contains_key(*name)));
    for name in names {
        let only = |side: &str, of: &Tables, other: &Tables| {
            let mut others = other.get(name).cloned().unwrap_or_default();
            let mut only = Vec::new();
            for row in of.get(name).into_iter().flatten() {
                match others.iter().position(|it| it == row) {
                    Some(at) => drop(others.swap_remove(at)),
                    None => only.push(format!("  {name}, only {side}: {row}\n")),
                }
            }
            only
        };
        rows.extend(only("left", left, right));
        rows.extend(only("right", right, left));
    }
    let left_out = rows.len().saturating_sub(ROWS_MAX);
    rows.truncate(ROWS_MAX);
    if left_out > 0 {
        rows.push(format!("  ... {left_out} more rows differ\n"));
    }
    rows.concat()
}
