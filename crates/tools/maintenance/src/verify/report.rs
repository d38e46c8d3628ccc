//! What was found, for people and programs.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use headwater::operator::{Difference, Side};
use serde::Serialize;
use terminal::Exit;
use terminal::output::printable;

use super::merge::{Doubled, Late};
use super::source::SHOWN;
use super::{projection, source};

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub sources: Vec<source::Report>,
    pub projections: Vec<projection::Report>,
    /// Who could not be reached, as sentences.
    pub unreachable: Vec<String>,
    /// What could not be verified for another reason, as sentences.
    pub failed: Vec<String>,
}

impl Report {
    /// The exit code that says it. A difference that was found counts more than what could not be
    /// looked at.
    pub fn exit(&self) -> Exit {
        let sources = self.sources.iter().all(source::Report::agrees);
        let projections = self.projections.iter().all(projection::Report::agrees);
        if !(sources && projections) {
            Exit::Different
        } else if !self.unreachable.is_empty() {
            Exit::Unreachable
        } else if !self.failed.is_empty() {
            Exit::Failed
        } else {
            Exit::Done
        }
    }
}

impl Report {
    /// Whether all that was looked at up to now agrees, projections aside.
    pub(super) fn is_well(&self) -> bool {
        let agree = self.sources.iter().all(source::Report::agrees);
        agree && self.unreachable.is_empty() && self.failed.is_empty()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        for source in &self.sources {
            writeln!(f, "{source}")?;
        }
        for projection in &self.projections {
            writeln!(f, "{projection}")?;
        }
        for away in &self.unreachable {
            writeln!(f, "NOT VERIFIED: {}", printable(away))?;
        }
        for failure in &self.failed {
            writeln!(f, "NOT VERIFIED: {}", printable(failure))?;
        }
        f.write_str(match self.exit() {
            Exit::Done => "all agree",
            Exit::Different => "there are differences",
            _ => "what was verified agrees, but not everything was",
        })
    }
}

impl Display for source::Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let Self { source, head, .. } = self;
        let verdict = if self.agrees() {
            "agrees with"
        } else {
            "DIFFERS from"
        };
        write!(
            f,
            "{source}: the stream {verdict} the outbox at {head}, {} events",
            self.events
        )?;
        self.information(f)?;
        let places = &self.places;
        let (missing, ranges) = (places.missing.iter(), places.missing.ranges());
        let missing = missing.map(|(from, to)| Range(from, to));
        list(f, "missing", places.missing.count(), ranges, missing)?;
        each(f, "doubled", &places.doubled)?;
        each(f, "out of order", &places.out_of_order)?;
        each(f, "altered", &self.altered)?;
        each(f, "ahead", &self.ahead)?;
        if !self.agrees() {
            write!(
                f,
                "\n  to make the stream again from the outbox: `headwater stream restore {source}`; \
                 if instead {source} runs on an old copy of its database, put back the newest"
            )?;
        }
        Ok(())
    }
}

impl source::Report {
    /// What is no difference, but good to know.
    fn information(&self, f: &mut Formatter) -> fmt::Result {
        let former: u64 = self.former.values().sum();
        let counts = [
            (self.by_hand, "published by hand"),
            (former, "of former lives"),
            (self.holes, "sequences without an event"),
        ];
        for (count, what) in counts {
            if count > 0 {
                write!(f, "; {count} {what}")?;
            }
        }
        Ok(())
    }
}

impl Display for projection::Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{}", self.projection)?;
        if self.projection != self.service {
            write!(f, " of {}", self.service)?;
        }
        match &self.fold {
            None => write!(f, ": applied up to {}", self.positions)?,
            Some(fold) => {
                let count = fold.differences.count;
                let verdict = if count == 0 {
                    "agree with"
                } else {
                    "DIFFER from"
                };
                let positions = &fold.positions;
                write!(
                    f,
                    ": the rows {verdict} a fold of the outboxes at {positions}"
                )?;
                let rows = fold.differences.rows.iter().map(Row);
                list(f, "rows", count, count, rows)?;
            }
        }
        for note in self.notes() {
            write!(f, "\n  {note}")?;
        }
        Ok(())
    }
}

impl projection::Report {
    /// What is to be said besides the rows, as sentences.
    fn notes(&self) -> Vec<String> {
        let service = &self.service;
        let waits = self.waits.iter();
        let waits = waits.map(|(source, why)| format!("WAITS in {source}: {}", printable(why)));
        let place = |word, heads: &BTreeMap<String, u64>| -> Vec<String> {
            let places = heads.iter().map(|(source, head)| {
                let position = self.positions.get(source);
                format!("{word}: {source} is at {head}, this at {position}")
            });
            places.collect()
        };
        let faults = self.faults.iter();
        let faults = faults.map(|fault| format!("FAULT: {}", printable(fault)));
        let others = self.other_epochs.iter().map(|(source, epoch)| {
            let epoch = printable(epoch);
            format!(
                "OTHER EPOCH: what it applied last of {source} is of {epoch}, which is not the one of {source}"
            )
        });
        let letters = Some(self.dead_letters).filter(|letters| *letters > 0);
        let letters = letters.map(|letters| {
            format!(
                "{letters} DEAD LETTERS WAIT, and are not in the rows: `headwater dead-letter list --service {service}`"
            )
        });
        waits
            .chain(place("BEHIND", &self.behind))
            .chain(place("AHEAD", &self.ahead))
            .chain(faults)
            .chain(others)
            .chain(letters)
            .collect()
    }
}

/// Writes how many there are, the first of them a line each, and how many more; nothing for none.
/// A line may stand for several: `lines` is how many there would be in all.
fn list(
    f: &mut Formatter,
    what: &str,
    count: u64,
    lines: u64,
    items: impl Iterator<Item = impl Display>,
) -> fmt::Result {
    if count == 0 {
        return Ok(());
    }
    write!(f, "\n  {what}: {count}")?;
    let mut left = lines;
    for item in items.take(SHOWN) {
        write!(f, "\n    {item}")?;
        left -= 1;
    }
    if left > 0 {
        write!(f, "\n    and {left} more")?;
    }
    Ok(())
}

fn each(f: &mut Formatter, what: &str, items: &[impl Display]) -> fmt::Result {
    let count = u64::try_from(items.len()).expect("a length is small");
    list(f, what, count, count, items.iter())
}

struct Range(u64, u64);

impl Display for Range {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let Self(from, to) = self;
        if from == to {
            write!(f, "position {from}")
        } else {
            write!(f, "positions {from} to {to}")
        }
    }
}

impl Display for Doubled {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (position, sequence) = (self.position, self.sequence);
        let again = self.again;
        write!(
            f,
            "position {position} at sequence {sequence}, and again at {again}"
        )
    }
}

impl Display for Late {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (position, sequence) = (self.position, self.sequence);
        let after = self.after;
        write!(
            f,
            "position {position} at sequence {sequence}, after position {after}"
        )
    }
}

impl Display for source::Altered {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (position, sequence) = (self.position, self.sequence);
        write!(f, "position {position} at sequence {sequence}: ")?;
        f.write_str(match self.what {
            source::What::Subject => "another subject than in the outbox",
            source::What::Payload => "another payload than in the outbox",
            source::What::Row => "not in the outbox, which goes further",
        })?;
        shown(f, "the stream", self.stream.as_ref())?;
        shown(f, "the outbox", self.outbox.as_ref())
    }
}

/// Writes what an event is, in a line of its own.
fn shown(f: &mut Formatter, who: &str, event: Option<&source::Shown>) -> fmt::Result {
    let Some(source::Shown {
        subject,
        event,
        payload,
    }) = event
    else {
        return Ok(());
    };
    write!(f, "\n      {who} has {}  ", printable(subject))?;
    match (event, payload) {
        (Some(event), _) => f.write_str(&printable(&event.to_string())),
        (None, payload) => write!(
            f,
            "in base64: {}",
            printable(payload.as_deref().unwrap_or_default())
        ),
    }
}

impl Display for source::Ahead {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (position, sequence) = (self.position, self.sequence);
        write!(f, "position {position} at sequence {sequence}")?;
        shown(f, "the stream", self.stream.as_ref())
    }
}

struct Row<'a>(&'a Difference);

impl Display for Row<'_> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let Difference {
            table,
            only_in,
            row,
        } = self.0;
        let side = match only_in {
            Side::Live => "only in the live store",
            Side::Fold => "only in the fold",
        };
        write!(f, "{table}, {side}:")?;
        for (column, value) in row {
            write!(f, " {column}={}", printable(value))?;
        }
        Ok(())
    }
}
