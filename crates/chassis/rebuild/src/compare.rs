//! Compares two stores of the same projection row by row.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;

use headwater_nats::control::{Difference, Differences, Side};
use headwater_projection::projection::compared;
use headwater_store::connection::Inspection;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, Rows, Statement};

/// The most differing rows in a report.
const MAX_REPORTED_ROWS: usize = 100;

/// The last position of each epoch of a source in two stores.
pub(super) type Passed = [BTreeMap<String, u64>; 2];

/// Snapshots of two stores.
#[derive(Debug)]
pub(super) struct Stores {
    live: Inspection,
    rebuilt: Inspection,
}

impl Stores {
    /// Takes a snapshot of both.
    pub(super) fn open(live: &Path, rebuilt: &Path) -> rusqlite::Result<Self> {
        Ok(Self {
            live: Inspection::open(live)?,
            rebuilt: Inspection::open(rebuilt)?,
        })
    }

    /// The file at `path` at an earlier moment, `before`, and now.
    pub(super) fn since(before: Inspection, path: &Path) -> rusqlite::Result<Self> {
        Ok(Self {
            live: before,
            rebuilt: Inspection::open(path)?,
        })
    }

    /// The live store.
    pub(super) fn live(&self) -> &Connection {
        self.live.connection()
    }

    /// The new store.
    pub(super) fn rebuilt(&self) -> &Connection {
        self.rebuilt.connection()
    }

    /// The positions of both, in the present epochs of all sources.
    pub(super) fn positions(&self, projection: &str) -> rusqlite::Result<[Vec<At>; 2]> {
        let positions = |store: &Connection| {
            let mut statement = store.prepare(&positions(projection))?;
            let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            let rows = statement.query_map([], row)?;
            rows.collect::<rusqlite::Result<Vec<At>>>()
        };
        Ok([positions(self.live())?, positions(self.rebuilt())?])
    }

    /// The last position of each epoch of `source` in both.
    pub(super) fn passed(&self, projection: &str, source: &str) -> rusqlite::Result<Passed> {
        let sql =
            "SELECT epoch, position FROM headwater_position WHERE projection = ? AND source = ?";
        let positions = |store: &Connection| {
            let mut statement = store.prepare(sql)?;
            let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let rows = statement.query_map([projection, source], row)?;
            rows.collect::<rusqlite::Result<_>>()
        };
        Ok([positions(self.live())?, positions(self.rebuilt())?])
    }

    /// The rows of `content` that differ; without `content`, of `tables`; without both, of all
    /// tables. Also differing positions and dead letters.
    pub(super) fn differences(
        &self,
        projection: &str,
        content: &[(&str, &str)],
        tables: &[&str],
    ) -> rusqlite::Result<Differences> {
        let mut found = self.rows(content, tables)?;
        self.compare("dead letters", &letters(projection, ""), &mut found)?;
        self.compare("positions", &positions(projection), &mut found)?;
        Ok(found)
    }

    /// The rows of `tables`, without them of all tables, and the dead letters that differ.
    pub(super) fn changes(
        &self,
        projection: &str,
        tables: &[&str],
    ) -> rusqlite::Result<Differences> {
        let mut found = self.rows(&[], tables)?;
        self.compare("dead letters", &letters(projection, ", reason"), &mut found)?;
        Ok(found)
    }

    fn rows(&self, content: &[(&str, &str)], tables: &[&str]) -> rusqlite::Result<Differences> {
        let mut found = Differences::default();
        for (name, sql) in compared(content, tables, |sql| self.names(sql))? {
            self.compare(&name, &sql, &mut found)?;
        }
        Ok(found)
    }

    /// The first column of a query on the live store.
    fn names(&self, sql: &str) -> rusqlite::Result<Vec<String>> {
        let mut statement = self.live.connection().prepare(sql)?;
        let names = statement.query_map([], |row| row.get(0))?;
        names.collect()
    }

    /// Walks through both in the same order.
    fn compare(&self, name: &str, sql: &str, found: &mut Differences) -> rusqlite::Result<()> {
        let (mut live, mut rebuilt) = (ordered(&self.live, sql)?, ordered(&self.rebuilt, sql)?);
        let columns: Vec<String> = live
            .column_names()
            .iter()
            .map(ToString::to_string)
            .collect();
        let (mut live, mut rebuilt) = (live.query([])?, rebuilt.query([])?);
        let (mut ours, mut theirs) = (next(&mut live)?, next(&mut rebuilt)?);
        loop {
            let order = match (&ours, &theirs) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(ours), Some(theirs)) => compare_rows(ours, theirs),
            };
            match order {
                Ordering::Equal => {
                    (ours, theirs) = (next(&mut live)?, next(&mut rebuilt)?);
                }
                Ordering::Less => {
                    note(found, name, &columns, Side::Live, ours.as_deref());
                    ours = next(&mut live)?;
                }
                Ordering::Greater => {
                    note(found, name, &columns, Side::Fold, theirs.as_deref());
                    theirs = next(&mut rebuilt)?;
                }
            }
        }
    }
}

/// A source, its epoch, and a position in it.
pub(super) type At = (String, String, u64);

fn letters(projection: &str, more: &str) -> String {
    format!(
        "SELECT source, subject, epoch, coalesce(position, sequence) AS place{more}
         FROM headwater_dead_letter WHERE projection = '{projection}'"
    )
}

fn positions(projection: &str) -> String {
    format!(
        "SELECT source, epoch, position FROM headwater_checkpoint
         JOIN headwater_position USING (projection, source, epoch)
         WHERE projection = '{projection}' ORDER BY source"
    )
}

/// `sql`, ordered by all its columns.
fn ordered<'a>(store: &'a Inspection, sql: &str) -> rusqlite::Result<Statement<'a>> {
    let columns = store.connection().prepare(sql)?.column_count();
    let by: Vec<String> = (1..=columns).map(|column| column.to_string()).collect();
    store
        .connection()
        .prepare(&format!("SELECT * FROM ({sql}) ORDER BY {}", by.join(", ")))
}

pub(super) fn next(rows: &mut Rows<'_>) -> rusqlite::Result<Option<Vec<Value>>> {
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let columns = row.as_ref().column_count();
    (0..columns)
        .map(|column| row.get(column))
        .collect::<rusqlite::Result<_>>()
        .map(Some)
}

fn note(
    found: &mut Differences,
    table: &str,
    columns: &[String],
    only_in: Side,
    row: Option<&[Value]>,
) {
    found.count += 1;
    if found.rows.len() < MAX_REPORTED_ROWS {
        let values = row.unwrap_or_default().iter().map(text);
        found.rows.push(Difference {
            table: table.to_owned(),
            only_in,
            row: columns.iter().cloned().zip(values).collect(),
        });
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Blob(bytes) => format!("{:x}", bytes::Bytes::copy_from_slice(bytes)),
    }
}

/// SQLite's order of values.
pub(super) fn compare_rows(a: &[Value], b: &[Value]) -> Ordering {
    a.iter()
        .zip(b)
        .map(|(a, b)| compare_values(a, b))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

fn compare_values(a: &Value, b: &Value) -> Ordering {
    fn class(value: &Value) -> u8 {
        match value {
            Value::Null => 0,
            Value::Integer(_) | Value::Real(_) => 1,
            Value::Text(_) => 2,
            Value::Blob(_) => 3,
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "compared with a float")]
    match (a, b) {
        (Value::Integer(a), Value::Integer(b)) => a.cmp(b),
        (Value::Real(a), Value::Real(b)) => a.total_cmp(b),
        (Value::Integer(a), Value::Real(b)) => (*a as f64).total_cmp(b),
        (Value::Real(a), Value::Integer(b)) => a.total_cmp(&(*b as f64)),
        (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Blob(a), Value::Blob(b)) => a.cmp(b),
        _ => class(a).cmp(&class(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The differences of two stores with these rows in `item`.
    fn differences(live: &str, rebuilt: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, rows: &str| {
            let path = folder.path().join(name);
            let store = Connection::open(&path).unwrap();
            store
                .execute_batch(
                    "CREATE TABLE item (id BLOB, title TEXT, n);
                     CREATE TABLE headwater_dead_letter (projection, source, subject, epoch, position, sequence);
                     CREATE TABLE headwater_checkpoint (projection, source, epoch);
                     CREATE TABLE headwater_position (projection, source, epoch, position);",
                )
                .unwrap();
            if !rows.is_empty() {
                store
                    .execute_batch(&format!("INSERT INTO item VALUES {rows}"))
                    .unwrap();
            }
            path
        };
        let stores = Stores::open(&make("live", live), &make("rebuilt", rebuilt)).unwrap();
        let found = stores.differences("p", &[], &[]).unwrap();
        assert_eq!(found.count, found.rows.len() as u64);
        found
            .rows
            .iter()
            .map(|difference| format!("{:?} {}", difference.only_in, difference.row[1].1))
            .collect()
    }

    #[test]
    fn the_same_rows_in_another_order_do_not_differ() {
        let (a, b) = (
            "(x'01', 'a', 1), (x'02', 'b', NULL)",
            "(x'02', 'b', NULL), (x'01', 'a', 1)",
        );
        assert_eq!(differences(a, b), [] as [String; 0]);
    }

    #[test]
    fn a_lost_a_doubled_and_an_altered_row_are_found() {
        let whole = "(x'01', 'a', 1), (x'02', 'b', 2)";
        assert_eq!(differences("(x'01', 'a', 1)", whole), ["Fold b"], "lost");
        let doubled = "(x'01', 'a', 1), (x'01', 'a', 1), (x'02', 'b', 2)";
        assert_eq!(differences(doubled, whole), ["Live a"], "doubled");
        let altered = "(x'01', 'a', 1), (x'02', 'B', 2)";
        assert_eq!(differences(altered, whole), ["Live B", "Fold b"], "altered");
        assert_eq!(differences("", whole), ["Fold a", "Fold b"], "all lost");
    }

    #[test]
    fn values_of_other_kinds_differ_also_where_they_look_alike() {
        assert_eq!(differences("(x'01', 'a', 1)", "(x'01', 'a', '1')").len(), 2);
        assert_eq!(
            differences("(x'01', 'a', NULL)", "(x'01', 'a', 0)").len(),
            2
        );
        assert_eq!(
            differences("(x'31', 'a', 1.5)", "(x'31', 'a', 1.5)").len(),
            0
        );
    }
}
