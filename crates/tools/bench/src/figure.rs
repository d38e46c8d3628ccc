//! A figure: a table of measurements, and ratios to limits.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::load::Load;

/// The result of one measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) table: Table,
    pub(crate) ratios: Vec<Ratio>,
    /// What was measured, and with how much data.
    pub(crate) notes: Vec<String>,
}

/// Rows of numbers under named columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Table {
    /// What the rows are.
    pub(crate) of: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
}

/// A column. Its name ends with the unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) decimals: usize,
}

/// A row: an optional number for each column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) cells: Vec<Option<f64>>,
}

/// The comparison of two things measured alternately in the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    /// What is divided by what. It identifies the ratio across runs, so it must be unique in a
    /// figure.
    pub(crate) name: String,
    pub(crate) median: f64,
    /// The lowest of all rounds.
    pub(crate) lowest: f64,
    /// The highest of all rounds.
    pub(crate) highest: f64,
    pub(crate) rounds: usize,
    pub(crate) target: Target,
}

/// The target of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// No target, only reported.
    None,
}

impl Table {
    /// An empty table of `of`, with the columns' names and decimals.
    pub(crate) fn new(of: &str, columns: &[(&str, usize)]) -> Self {
        let column = |&(name, decimals): &(&str, usize)| Column {
            name: name.to_owned(),
            decimals,
        };
        Self {
            of: of.to_owned(),
            columns: columns.iter().map(column).collect(),
            rows: Vec::new(),
        }
    }

    /// A table of loads: rate and percentiles.
    pub(crate) fn of_loads(of: &str) -> Self {
        Self::new(
            of,
            &[
                ("per second", 0),
                ("p50 ms", 2),
                ("p99 ms", 2),
                ("p99.9 ms", 2),
            ],
        )
    }

    /// Adds a row with a number in each column.
    pub(crate) fn row(&mut self, name: impl Into<String>, cells: &[f64]) {
        let cells: Vec<_> = cells.iter().copied().map(Some).collect();
        self.partial(name, &cells);
    }

    /// Adds a row that lacks the numbers of some columns.
    pub(crate) fn partial(&mut self, name: impl Into<String>, cells: &[Option<f64>]) {
        self.rows.push(Row {
            name: name.into(),
            cells: cells.to_vec(),
        });
    }

    /// Adds the rounds of one load as a row to a table [`of_loads`](Self::of_loads).
    pub(crate) fn load(&mut self, name: impl Into<String>, rounds: &[Load]) {
        self.row(name, &Load::of_all(rounds).cells());
    }
}

impl Figure {
    /// A figure without measurements.
    pub(crate) fn new(table: Table) -> Self {
        Self {
            table,
            ratios: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds the ratio of `ours` to `theirs`, round by round; `number` selects the number.
    pub(crate) fn compare<T>(
        &mut self,
        name: impl Into<String>,
        (ours, theirs): (&[T], &[T]),
        number: impl Fn(&T) -> f64,
        target: Target,
    ) {
        let pairs = ours.iter().zip(theirs);
        let ratios = pairs.map(|(ours, theirs)| number(ours) / number(theirs));
        self.ratios
            .push(Ratio::over(name, ratios.collect(), target));
    }

    /// Adds a ratio that was measured once.
    pub(crate) fn ratio(&mut self, name: impl Into<String>, ratio: f64, target: Target) {
        self.ratios.push(Ratio::over(name, vec![ratio], target));
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

impl Ratio {
    /// A ratio with one value per round.
    pub(crate) fn over(name: impl Into<String>, mut rounds: Vec<f64>, target: Target) -> Self {
        rounds.sort_by(f64::total_cmp);
        let at = |index: usize| rounds.get(index).copied().unwrap_or(f64::NAN);
        let count = rounds.len();
        Self {
            name: name.into(),
            median: f64::midpoint(at(count.saturating_sub(1) / 2), at(count / 2)),
            lowest: at(0),
            highest: at(count.saturating_sub(1)),
            rounds: count,
            target,
        }
    }

    /// How far the target is reached: at least 1 if met. `None` without a target.
    pub(crate) fn score(&self) -> Option<f64> {
        match self.target {
            Target::AtLeast(target) => Some(self.median / target),
            Target::AtMost(target) => Some(target / self.median),
            Target::None => None,
        }
    }

    /// The verdict in one word.
    pub(crate) fn verdict(&self) -> &'static str {
        match self.score() {
            Some(score) if score >= 1.0 => "met",
            Some(_) => "missed",
            None => "",
        }
    }
}

/// The median of `rounds`; `number` selects the number.
pub(crate) fn median<T>(rounds: &[T], number: impl Fn(&T) -> f64) -> f64 {
    Ratio::over("", rounds.iter().map(number).collect(), Target::None).median
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(target) => write!(f, "≥ {target}"),
            Self::AtMost(target) => write!(f, "≤ {target}"),
            Self::None => write!(f, "–"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_its_rounds_with_their_spread() {
        let mut figure = Figure::new(Table::new("x", &[]));
        let pair: (&[f64], &[f64]) = (&[2.0, 9.0, 4.0], &[2.0, 3.0, 2.0]);
        figure.compare("x", pair, |n| *n, Target::None);
        let ratio = &figure.ratios[0];
        assert_eq!((ratio.lowest, ratio.median, ratio.highest), (1.0, 2.0, 3.0));
        assert_eq!(ratio.rounds, 3);
        let even = Ratio::over("x", vec![4.0, 1.0, 2.0, 3.0], Target::None);
        assert!((even.median - 2.5).abs() < 1e-9);
    }

    #[test]
    fn a_target_is_met_on_its_own_side() {
        let verdict = |median, target| Ratio::over("x", vec![median], target).verdict();
        assert_eq!(verdict(0.9, Target::AtLeast(0.9)), "met");
        assert_eq!(verdict(0.8, Target::AtLeast(0.9)), "missed");
        assert_eq!(verdict(1.2, Target::AtMost(1.2)), "met");
        assert_eq!(verdict(1.3, Target::AtMost(1.2)), "missed");
        assert_eq!(verdict(1.3, Target::None), "");
    }
}
