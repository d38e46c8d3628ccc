//! The result of an import.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use terminal::Exit;

use crate::ids::Kind;
use crate::outage::Outage;
use crate::refusals::Refused;

/// The result of an import, per kind.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub users: Counts,
    pub products: Counts,
    pub orders: Counts,
    /// The time of the whole run; users and products run concurrently.
    pub elapsed: Duration,
    /// Why the import ended early; lines that were not tried are not counted.
    pub stopped: Option<Stopped>,
    /// The failed lines by file and reason, the most frequent first.
    pub refused: Vec<Refused>,
}

/// Why an import ended early, and how to continue.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Stopped {
    /// A service cannot be used.
    #[error("{0}")]
    Outage(Outage),
    /// The process received this signal.
    #[error(
        "interrupted by {0}: lines in progress may or may not be imported; run the same import \
         again, nothing is duplicated"
    )]
    Interrupted(&'static str),
}

/// The results of the lines of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Created now or in an earlier run (201).
    pub imported: u64,
    /// Invalid, refused, or failed after all retries; reported or counted on stderr.
    pub failed: u64,
    /// The time from the file's first line to its last.
    pub elapsed: Duration,
    /// The service's highest known position: a reader can wait for it with `?after`.
    pub position: Option<u64>,
}

/// A line of the summary.
#[derive(Serialize)]
struct Row {
    read: u64,
    imported: u64,
    failed: u64,
    seconds: f64,
    lines_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
}

impl Counts {
    /// The number of lines read; blank lines do not count.
    pub fn read(&self) -> u64 {
        self.imported + self.failed
    }

    pub(crate) fn add<E>(&mut self, outcome: &Result<Option<u64>, E>) {
        match outcome {
            Ok(position) => {
                self.imported += 1;
                self.position = self.position.max(*position);
            }
            Err(_) => self.failed += 1,
        }
    }

    /// Lines completed per second.
    #[expect(clippy::cast_precision_loss, reason = "an approximate rate")]
    pub fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 {
            self.read() as f64 / seconds
        } else {
            0.0
        }
    }

    fn row(&self) -> Row {
        Row {
            read: self.read(),
            imported: self.imported,
            failed: self.failed,
            seconds: (self.elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
            lines_per_second: self.rate().round(),
            position: self.position,
        }
    }
}

impl Summary {
    /// The sum of all kinds.
    pub fn total(&self) -> Counts {
        let kinds = [&self.users, &self.products, &self.orders];
        Counts {
            imported: kinds.iter().map(|kind| kind.imported).sum(),
            failed: kinds.iter().map(|kind| kind.failed).sum(),
            elapsed: self.elapsed,
            position: None,
        }
    }

    /// The positions to wait for, in the format of `?after`: `users:208,products:194`.
    pub(crate) fn after(&self) -> String {
        let positions = [(Kind::Users, &self.users), (Kind::Products, &self.products)];
        let positions = positions.iter().filter_map(|(kind, counts)| {
            counts
                .position
                .map(|position| format!("{}:{position}", kind.name()))
        });
        positions.collect::<Vec<_>>().join(",")
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match &self.stopped {
            Some(Stopped::Interrupted(_)) => Exit::Interrupted,
            Some(Stopped::Outage(_)) => Exit::Unreachable,
            None if self.total().failed > 0 => Exit::Failed,
            None => Exit::Done,
        }
    }

    fn rows(&self) -> [(&'static str, Row); 4] {
        [
            (Kind::Users.name(), self.users.row()),
            (Kind::Products.name(), self.products.row()),
            (Kind::Orders.name(), self.orders.row()),
            ("total", self.total().row()),
        ]
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{:8} {:>10} {:>10} {:>8} {:>9} {:>8}",
            "", "read", "imported", "failed", "seconds", "lines/s"
        )?;
        for (name, row) in self.rows() {
            let (read, imported, failed) = (row.read, row.imported, row.failed);
            let (seconds, rate) = (row.seconds, row.lines_per_second);
            write!(
                f,
                "\n{name:8} {read:>10} {imported:>10} {failed:>8} {seconds:>9.3} {rate:>8.0}"
            )?;
        }
        Ok(())
    }
}

/// `{"users": {…}, "products": {…}, "orders": {…}, "total": {…}, "stopped": text or null,
/// "refused": [{"file", "reason", "lines"}]}`
impl Serialize for Summary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(None)?;
        for (name, row) in self.rows() {
            map.serialize_entry(name, &row)?;
        }
        map.serialize_entry("stopped", &self.stopped.as_ref().map(ToString::to_string))?;
        map.serialize_entry("refused", &self.refused)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_position_counts_in_whatever_order_answers_come() {
        let mut counts = Counts::default();
        for outcome in [Ok(Some(2)), Ok(Some(5)), Ok(None), Err(()), Ok(Some(3))] {
            counts.add(&outcome);
        }
        assert_eq!(
            (counts.imported, counts.failed, counts.position),
            (4, 1, Some(5))
        );
    }

    #[test]
    fn orders_wait_for_what_is_known_only() {
        let mut summary = Summary::default();
        assert_eq!(summary.after(), "");
        summary.products.position = Some(3);
        assert_eq!(summary.after(), "products:3");
        summary.users.position = Some(2);
        assert_eq!(summary.after(), "users:2,products:3");
    }
}
