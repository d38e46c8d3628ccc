//! `headwater projection replay`: shows which rows of a projection one event changes.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use anyhow::{Context as _, bail, ensure};
use client::{Common, Nats, feed};
use headwater::operator::{Difference, Endpoint, RebuildState, RebuildStatus, ReplayRequest, Side};
use serde::Serialize;
use survey::event::{Place, before, id};
use terminal::output::printable;
use terminal::{Exit, Screen};

use crate::target::{Target, Which};
use crate::watch;

/// `replay`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The projection.
    #[command(flatten)]
    which: Which,

    /// The event: `orders:17` at that position in the outbox, `orders@23` at that sequence in the
    /// stream
    #[arg(value_name = "EVENT")]
    event: Place,
}

/// What an event did to the rows of a projection.
#[derive(Debug, Serialize)]
pub struct Report {
    service: String,
    projection: String,
    event: String,
    /// The sources of the projection.
    pub sources: Vec<String>,
    /// How many rows were changed: one that was altered counts once for each side.
    differences: u64,
    /// The rows, or the first of them.
    pub changes: Vec<Change>,
    /// What may make them differ from those of the live projection.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A row before and after the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The table.
    pub table: String,
    /// The columns in the table's order.
    pub columns: Vec<Column>,
}

/// A value before and after the event; `None` if the row does not exist then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Before.
    pub before: Option<String>,
    /// After.
    pub after: Option<String>,
}

/// Replays the event and prints the rows.
pub(crate) async fn command(common: &Common, nats: &Nats, args: Args) -> anyhow::Result<Exit> {
    let target = Target {
        service: args.which.service(nats).await?,
        projection: Some(args.which.projection),
    };
    common.print(&on(nats, &target, &args.event, &Screen::new()).await?)?;
    Ok(Exit::Done)
}

/// Has a copy of the projection read what was in the streams before the event, and then the event.
pub async fn on(
    nats: &Nats,
    target: &Target,
    event: &Place,
    screen: &Screen,
) -> anyhow::Result<Report> {
    let source = event.source();
    let status = nats.status(&target.service).await?;
    let projection = target.projection.clone().unwrap_or_default();
    let found = status.projections.iter().find(|it| it.name == projection);
    let found = found.with_context(|| format!("{} has no {projection}", target.service))?;
    // A source that is away cannot say which epoch is its present one.
    let epoch = nats.status(source).await.ok().map(|source| source.epoch);
    let message = event.message(nats, epoch.as_deref()).await?;
    let message = message.with_context(|| format!("{event} is not in the stream of {source}"))?;
    let (mut read_before, mut notes) = (BTreeMap::new(), Vec::new());
    if epoch.is_none() {
        notes.push(format!(
            "{source} does not answer: the event may be of a former epoch"
        ));
    }
    for source in found.positions.0.keys() {
        let name = headwater::stream::name(source);
        let Some(stream) = nats.stream(&name).await? else {
            continue;
        };
        let next = if source == event.source() {
            message.sequence
        } else {
            let since = feed::since(nats, &stream, message.time).await?;
            since.unwrap_or(stream.cached_info().state.last_sequence + 1)
        };
        let first = stream.cached_info().state.first_sequence;
        if first > 1 && source != event.source() {
            notes.push(format!(
                "the stream of {source} begins at sequence {first}: the copy lacks what was before"
            ));
        }
        read_before.insert(source.clone(), before(&stream, next).await?);
    }
    let request = ReplayRequest {
        projection: target.projection.clone(),
        source: source.to_owned(),
        sequence: message.sequence,
        id: id(&message).map(|id| id.to_string()),
        before: read_before,
    };
    let ask = async || -> anyhow::Result<RebuildStatus> {
        Ok(nats
            .ask(&target.service, Endpoint::Replay, &request)
            .await?)
    };
    let mut begun = ask().await?;
    if !begun.state.is_running() {
        // It is of an earlier call, which did not wait for it.
        begun = ask().await?;
    }
    watch::follow(nats, target, begun, screen).await?;
    // Only this answer has the rows, and only of this event: another operator may have begun
    // something else meanwhile.
    let ended = ask().await?;
    if ended.state == RebuildState::Failed {
        bail!("{}", ended.message.unwrap_or_default());
    }
    ensure!(
        ended.state == RebuildState::Done,
        "another rebuild of {target} came between; try again"
    );
    let changed = ended.differences.unwrap_or_default();
    Ok(Report {
        service: target.service.clone(),
        projection,
        event: event.to_string(),
        sources: found.positions.0.keys().cloned().collect(),
        differences: changed.count,
        changes: paired(changed.rows),
        notes,
    })
}

/// Each row before the event with the one after it: of the same table, with the same first column,
/// which is the key or the beginning of it, and with the most, and at least half, in common.
fn paired(rows: Vec<Difference>) -> Vec<Change> {
    let (befores, mut afters): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| row.only_in == Side::Live);
    let mut changes = Vec::new();
    for before in befores {
        let alike = |after: &Difference| {
            let both = before.row.iter().zip(&after.row);
            both.filter(|(before, after)| before == after).count()
        };
        let same = afters.iter().enumerate();
        let same = same.filter(|(_, after)| {
            let is_same = after.table == before.table && after.row.first() == before.row.first();
            is_same && alike(after) * 2 >= after.row.len()
        });
        let likest = same.max_by_key(|(_, after)| alike(after));
        let likest = likest.map(|(index, _)| index);
        let after = likest.map(|index| afters.remove(index));
        changes.push(Change::of(Some(before), after));
    }
    changes.extend(
        afters
            .into_iter()
            .map(|after| Change::of(None, Some(after))),
    );
    changes
}

impl Change {
    fn of(before: Option<Difference>, after: Option<Difference>) -> Self {
        let table = before.as_ref().or(after.as_ref());
        let table = table.map(|row| row.table.clone()).unwrap_or_default();
        let columns = |row: Option<Difference>| row.map(|row| row.row).unwrap_or_default();
        let (before, after) = (columns(before), columns(after));
        let names = if before.is_empty() { &after } else { &before };
        let value =
            |row: &[(String, String)], place: usize| row.get(place).map(|(_, value)| value.clone());
        let columns = names.iter().enumerate().map(|(place, (name, _))| Column {
            name: name.clone(),
            before: value(&before, place),
            after: value(&after, place),
        });
        Self {
            table,
            columns: columns.collect(),
        }
    }

    /// What happened to the row.
    pub fn word(&self) -> &'static str {
        match self.columns.first() {
            Some(Column { before: None, .. }) => "added",
            Some(Column { after: None, .. }) => "removed",
            _ => "changed",
        }
    }
}

impl Report {
    /// How many rows were changed, without their values.
    pub fn summary(&self) -> String {
        let (event, projection) = (&self.event, &self.projection);
        let rows = match self.changes.len() {
            0 => "no row".to_owned(),
            1 => "one row".to_owned(),
            rows => format!("{rows} rows"),
        };
        let more = if self.more() > 0 { " and more" } else { "" };
        format!("{event} changes {rows}{more} of {projection}")
    }

    /// How many differences are not among the changes.
    fn more(&self) -> u64 {
        let shown: u64 = self.changes.iter().map(Change::sides).sum();
        self.differences.saturating_sub(shown)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&self.summary())?;
        for change in &self.changes {
            write!(f, "\n  {}, {}:", change.table, change.word())?;
            for column in &change.columns {
                let (before, after) = (column.before.as_deref(), column.after.as_deref());
                let value = match (before, after) {
                    (Some(before), Some(after)) if before != after => {
                        format!("{} → {}", printable(before), printable(after))
                    }
                    (before, after) => printable(after.or(before).unwrap_or_default()),
                };
                write!(f, " {}={value}", column.name)?;
            }
        }
        if self.more() > 0 {
            f.write_str("\n  and more")?;
        }
        self.notes
            .iter()
            .try_for_each(|note| write!(f, "\n  {note}"))
    }
}

impl Change {
    /// How many differences it stands for.
    fn sides(&self) -> u64 {
        if self.word() == "changed" { 2 } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(only_in: Side, table: &str, row: &[(&str, &str)]) -> Difference {
        let row = row.iter();
        Difference {
            table: table.to_owned(),
            only_in,
            row: row
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn a_row_is_shown_with_what_became_of_it() {
        let rows = vec![
            row(Side::Live, "item", &[("id", "1"), ("n", "1"), ("a", "x")]),
            row(Side::Live, "item", &[("id", "2"), ("n", "1"), ("a", "y")]),
            row(Side::Fold, "item", &[("id", "2"), ("n", "2"), ("a", "y")]),
            row(Side::Fold, "item", &[("id", "1"), ("n", "2"), ("a", "x")]),
            row(Side::Fold, "other", &[("id", "1"), ("n", "2"), ("a", "x")]),
        ];
        let report = Report {
            service: "house".to_owned(),
            projection: "readings".to_owned(),
            event: "sensors:7".to_owned(),
            sources: Vec::new(),
            differences: 6,
            changes: paired(rows),
            notes: vec!["a note".to_owned()],
        };
        let text = "sensors:7 changes 3 rows and more of readings\
                    \n  item, changed: id=1 n=1 → 2 a=x\
                    \n  item, changed: id=2 n=1 → 2 a=y\
                    \n  other, added: id=1 n=2 a=x\
                    \n  and more\
                    \n  a note";
        assert_eq!(report.to_string(), text);
    }

    #[test]
    fn a_row_that_has_nothing_in_common_is_another_row() {
        let rows = vec![
            row(Side::Live, "item", &[("id", "1"), ("n", "0")]),
            row(Side::Fold, "item", &[("id", "2"), ("n", "0")]),
        ];
        let words: Vec<_> = paired(rows).iter().map(Change::word).collect();
        assert_eq!(words, ["removed", "added"]);
    }
}
