//! The result of a verification, as text and JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use client::schemas::MASK;
use headwater::operator::{Difference, Side};
use serde::Serialize;
use terminal::Exit;
use terminal::output::printable;

use super::source::SHOWN;
use super::{projection, source};

/// The result of a verification.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub sources: Vec<source::Report>,
    pub projections: Vec<projection::Report>,
    /// Services that could not be reached, one sentence each.
    pub unreachable: Vec<String>,
    /// What could not be verified for another reason, one sentence each.
    pub failed: Vec<String>,
}

impl Report {
    /// The exit code. A difference counts more than something that could not be verified.
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
    /// The same without the content of events and rows, which may be personal.
    #[must_use]
    pub fn without_content(mut self) -> Self {
        for source in &mut self.sources {
            for it in &mut source.altered {
                (it.stream, it.outbox) = (None, None);
            }
            for it in &mut source.ahead {
                it.stream = None;
            }
        }
        let compared = self.projections.iter_mut();
        for compared in compared.filter_map(|it| it.comparison.as_mut()) {
            let rows = compared.differences.rows.iter_mut();
            for (_, value) in rows.flat_map(|it| it.row.iter_mut()) {
                MASK.clone_into(value);
            }
        }
        self
    }

    /// Whether everything verified so far agrees, projections aside.
    pub(crate) fn is_well(&self) -> bool {
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
            _ => "what was verified agrees, but not everything could be verified",
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
        let missing = missing.map(range);
        list(f, "missing", places.missing.count(), ranges, missing)?;
        each(f, "doubled", &places.doubled, |it| {
            let (position, sequence, again) = (it.position, it.sequence, it.again);
            format!("position {position} at sequence {sequence}, and again at {again}")
        })?;
        each(f, "out of order", &places.out_of_order, |it| {
            let (position, sequence, after) = (it.position, it.sequence, it.after);
            format!("position {position} at sequence {sequence}, after position {after}")
        })?;
        each(f, "altered", &self.altered, altered)?;
        each(f, "ahead", &self.ahead, |it| {
            let (position, sequence) = (it.position, it.sequence);
            let stream = shown("the stream", it.stream.as_ref());
            format!("position {position} at sequence {sequence}{stream}")
        })?;
        if !self.agrees() {
            write!(
                f,
                "\n  to create the stream again from the outbox: `headwater stream restore {source}`; \
                 if {source} runs on an old copy of its database, restore the newest copy instead"
            )?;
        }
        Ok(())
    }
}

impl source::Report {
    /// Information that is not a difference.
    fn information(&self, f: &mut Formatter) -> fmt::Result {
        let former: u64 = self.former.values().sum();
        let counts = [
            (self.by_hand, "published by hand"),
            (former, "of former epochs"),
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
        match &self.comparison {
            None => write!(f, ": applied up to {}", self.positions)?,
            Some(compared) => {
                let count = compared.differences.count;
                let verdict = if count == 0 {
                    "agree with"
                } else {
                    "DIFFER from"
                };
                let positions = &compared.positions;
                write!(
                    f,
                    ": the rows {verdict} a rebuild from the outboxes at {positions}"
                )?;
                let rows = compared.differences.rows.iter().map(row);
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
    /// Everything but the rows, one sentence each.
    fn notes(&self) -> Vec<String> {
        let service = &self.service;
        let waits = self.waits.iter();
        let waits = waits.map(|(source, why)| format!("WAITS for {source}: {}", printable(why)));
        let place = |word, heads: &BTreeMap<String, u64>| -> Vec<String> {
            let places = heads.iter().map(|(source, head)| {
                let position = self.positions.get(source);
                format!("{word}: {source} is at {head}, the projection at {position}")
            });
            places.collect()
        };
        let faults = self.faults.iter();
        let faults = faults.map(|fault| format!("FAULT: {}", printable(fault)));
        let others = self.other_epochs.iter().map(|(source, epoch)| {
            let epoch = printable(epoch);
            format!(
                "OTHER EPOCH: the last applied epoch of {source} is {epoch}, which is not its current one"
            )
        });
        let letters = Some(self.dead_letters).filter(|letters| *letters > 0);
        let letters = letters.map(|letters| {
            format!(
                "{letters} DEAD LETTERS are missing from the rows: `headwater dead-letter list --service {service}`"
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

/// Writes the count, the first items on one line each, and how many more there are; nothing for
/// zero. An item may stand for several: `lines` is the total number of lines.
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

fn each<T>(f: &mut Formatter, what: &str, items: &[T], text: fn(&T) -> String) -> fmt::Result {
    let count = u64::try_from(items.len()).expect("a length is small");
    list(f, what, count, count, items.iter().map(text))
}

fn range((from, to): (u64, u64)) -> String {
    if from == to {
        format!("position {from}")
    } else {
        format!("positions {from} to {to}")
    }
}

fn altered(event: &source::Altered) -> String {
    let (position, sequence) = (event.position, event.sequence);
    let what = match event.what {
        source::What::Subject => "another subject than in the outbox",
        source::What::Payload => "another payload than in the outbox",
        source::What::Row => "not in the outbox, which has later positions",
    };
    let stream = shown("the stream", event.stream.as_ref());
    let outbox = shown("the outbox", event.outbox.as_ref());
    format!("position {position} at sequence {sequence}: {what}{stream}{outbox}")
}

/// An event's content, on its own line.
fn shown(who: &str, event: Option<&source::Shown>) -> String {
    let Some(shown) = event else {
        return String::new();
    };
    let payload = shown.payload.as_deref().unwrap_or_default();
    let event = match &shown.event {
        Some(event) => event.to_string(),
        None => format!("in base64: {payload}"),
    };
    let (subject, event) = (printable(&shown.subject), printable(&event));
    format!("\n      {who} has {subject}  {event}")
}

fn row(difference: &Difference) -> String {
    let side = match difference.only_in {
        Side::Live => "only in the live store",
        Side::Fold => "only in the rebuild",
    };
    let columns = difference.row.iter();
    let columns = columns.map(|(column, value)| format!(" {column}={}", printable(value)));
    format!(
        "{}, {side}:{}",
        difference.table,
        columns.collect::<String>()
    )
}
