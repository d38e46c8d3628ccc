//! Changes a projection's tables in a service's own database to equal those of a new store.

use std::cmp::Ordering;
use std::sync::Arc;

use headwater_store::Tx;
use rusqlite::types::Value;
use rusqlite::{Connection, Statement};
use sea_orm::{ConnectionTrait as _, DbErr};

use crate::compare::{Stores, compare_rows, next};

/// The most rows changed in one transaction: the service's own writes wait for it.
pub(super) const CHANGES_MAX: usize = 1_000;

/// The tables of the chassis that belong to a projection, except its dead letters.
const PROGRESS: [&str; 4] = [
    "headwater_checkpoint",
    "headwater_position",
    "headwater_epoch",
    "headwater_anomaly",
];

/// One row to change: statements to run in order, with their values.
#[derive(Debug)]
pub(super) struct Change {
    statements: Arc<[String]>,
    values: Vec<Value>,
}

impl Change {
    pub(super) fn apply(&self, tx: &Tx) -> Result<(), DbErr> {
        let values: Vec<sea_orm::Value> = self.values.iter().map(bound).collect();
        let backend = tx.get_database_backend();
        self.statements.iter().try_for_each(|sql| {
            let values = values.clone();
            tx.run_raw(sea_orm::Statement::from_sql_and_values(
                backend, sql, values,
            ))
        })
    }
}

fn bound(value: &Value) -> sea_orm::Value {
    match value {
        Value::Null => Option::<i64>::None.into(),
        Value::Integer(number) => (*number).into(),
        Value::Real(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
        Value::Blob(bytes) => bytes.clone().into(),
    }
}

/// Passes to `each` the changes that make the live store's state of `projection` equal to the new
/// store's: its `tables`, its progress, its dead letters. Stops when `each` returns false.
pub(super) fn between(
    stores: &Stores,
    projection: &str,
    tables: &[&str],
    each: &mut dyn FnMut(Change) -> bool,
) -> rusqlite::Result<()> {
    let own = format!("projection = {}", quoted(projection, '\''));
    let all = tables.iter().map(|table| (*table, "TRUE"));
    for (name, only) in all.chain(PROGRESS.map(|table| (table, own.as_str()))) {
        let table = Table::look(stores.live(), name, only)?;
        if !table.changes(stores, each)? {
            return Ok(());
        }
    }
    letters(stores, &own, each)
}

/// Why one of `tables` cannot be rebuilt, in words.
pub(super) fn check(live: &Connection, tables: &[&str]) -> rusqlite::Result<Option<String>> {
    for name in tables {
        let table = Table::look(live, name, "TRUE")?;
        if table.columns.is_empty() {
            return Ok(Some(format!("there is no table {name}")));
        }
        if table.key == 0 {
            return Ok(Some(format!("the table {name} has no primary key")));
        }
    }
    Ok(None)
}

/// A table with a primary key.
struct Table {
    name: String,
    /// The condition for its rows.
    only: String,
    /// The columns of the primary key come first.
    columns: Vec<String>,
    /// How many columns are the primary key.
    key: usize,
}

impl Table {
    fn look(live: &Connection, name: &str, only: &str) -> rusqlite::Result<Self> {
        let mut columns =
            live.prepare("SELECT name, pk FROM pragma_table_info(?) ORDER BY pk = 0, pk, cid")?;
        let columns = columns.query_map([name], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let columns: Vec<(String, u32)> = columns.collect::<rusqlite::Result<_>>()?;
        Ok(Self {
            name: quoted(name, '"'),
            only: only.to_owned(),
            key: columns.iter().filter(|(_, key)| *key > 0).count(),
            columns: columns
                .into_iter()
                .map(|(column, _)| quoted(&column, '"'))
                .collect(),
        })
    }

    /// Walks through both in the order of the primary key. Returns false if `each` did.
    fn changes(
        &self,
        stores: &Stores,
        each: &mut dyn FnMut(Change) -> bool,
    ) -> rusqlite::Result<bool> {
        let [delete, insert, update] = self.statements();
        let (mut live, mut rebuilt) = (self.rows(stores.live())?, self.rows(stores.rebuilt())?);
        let (mut live, mut rebuilt) = (live.query([])?, rebuilt.query([])?);
        let (mut ours, mut theirs) = (next(&mut live)?, next(&mut rebuilt)?);
        loop {
            let order = match (&ours, &theirs) {
                (None, None) => return Ok(true),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(ours), Some(theirs)) => compare_rows(&ours[..self.key], &theirs[..self.key]),
            };
            let change = match order {
                Ordering::Less => ours.take().map(|mut row| {
                    row.truncate(self.key);
                    (&delete, row)
                }),
                Ordering::Greater => theirs.take().map(|row| (&insert, row)),
                Ordering::Equal => {
                    let (before, after) = (ours.take(), theirs.take());
                    after
                        .filter(|after| {
                            before.is_none_or(|before| compare_rows(&before, after).is_ne())
                        })
                        .map(|row| (&update, row))
                }
            };
            if let Some((statements, values)) = change {
                let statements = Arc::clone(statements);
                if !each(Change { statements, values }) {
                    return Ok(false);
                }
            }
            if order.is_le() {
                ours = next(&mut live)?;
            }
            if order.is_ge() {
                theirs = next(&mut rebuilt)?;
            }
        }
    }

    fn rows<'a>(&self, store: &'a Connection) -> rusqlite::Result<Statement<'a>> {
        let key = self.columns[..self.key].join(" COLLATE BINARY, ");
        store.prepare(&format!(
            "SELECT {} FROM {} WHERE {} ORDER BY {key} COLLATE BINARY",
            self.columns.join(", "),
            self.name,
            self.only,
        ))
    }

    /// Statements that delete a row by its key, insert one, and update one with all its columns. If
    /// a row also has another unique column, it may replace a row that is about to change; that row
    /// is inserted again in its turn.
    fn statements(&self) -> [Arc<[String]>; 3] {
        let name = &self.name;
        let numbered = |columns: &[String], from: usize, is: &str, between: &str| {
            let columns = columns.iter().enumerate();
            let each = columns.map(|(index, column)| format!("{column} {is} ?{}", index + from));
            each.collect::<Vec<_>>().join(between)
        };
        let (key, rest) = self.columns.split_at(self.key);
        let key = numbered(key, 1, "IS", " AND ");
        let rest = numbered(rest, self.key + 1, "=", ", ");
        let columns = self.columns.join(", ");
        let values = (1..=self.columns.len()).map(|number| format!("?{number}"));
        let values = values.collect::<Vec<_>>().join(", ");
        let insert = format!("INSERT OR REPLACE INTO {name} ({columns}) SELECT {values}");
        let is_gone = format!("NOT EXISTS (SELECT 1 FROM {name} WHERE {key})");
        [
            [format!("DELETE FROM {name} WHERE {key}")].into(),
            [insert.clone()].into(),
            [
                format!("UPDATE OR REPLACE {name} SET {rest} WHERE {key}"),
                format!("{insert} WHERE {is_gone}"),
            ]
            .into(),
        ]
    }
}

/// The columns that identify a letter: all but its number and its time.
const LETTER: &str = "projection, source, lane, epoch, position, sequence, subject, payload, \
                      reason, waiting";

/// Replaces all letters from the first that differs: their order decides which waits behind which.
fn letters(
    stores: &Stores,
    own: &str,
    each: &mut dyn FnMut(Change) -> bool,
) -> rusqlite::Result<()> {
    let sql = format!(
        "SELECT {LETTER}, recorded_at, id FROM headwater_dead_letter WHERE {own} ORDER BY id"
    );
    let (mut live, mut rebuilt) = (
        stores.live().prepare(&sql)?,
        stores.rebuilt().prepare(&sql)?,
    );
    let (mut live, mut rebuilt) = (live.query([])?, rebuilt.query([])?);
    let delete: Arc<[String]> =
        ["DELETE FROM headwater_dead_letter WHERE id = ?".to_owned()].into();
    let columns = format!("{LETTER}, recorded_at");
    let values = vec!["?"; columns.split(',').count()].join(", ");
    let insert: Arc<[String]> = [format!(
        "INSERT INTO headwater_dead_letter ({columns}) VALUES ({values})"
    )]
    .into();
    let is_same = |one: &[Value], other: &[Value]| {
        let end = LETTER.split(',').count();
        compare_rows(&one[..end], &other[..end]).is_eq()
    };
    let (mut ours, mut theirs) = (next(&mut live)?, next(&mut rebuilt)?);
    while let (Some(one), Some(other)) = (&ours, &theirs)
        && is_same(one, other)
    {
        (ours, theirs) = (next(&mut live)?, next(&mut rebuilt)?);
    }
    while let Some(mut row) = ours {
        let values = row.split_off(row.len() - 1);
        let statements = Arc::clone(&delete);
        if !each(Change { statements, values }) {
            return Ok(());
        }
        ours = next(&mut live)?;
    }
    while let Some(mut values) = theirs {
        values.pop();
        let statements = Arc::clone(&insert);
        if !each(Change { statements, values }) {
            return Ok(());
        }
        theirs = next(&mut rebuilt)?;
    }
    Ok(())
}

fn quoted(name: &str, quote: char) -> String {
    let doubled = name.replace(quote, &format!("{quote}{quote}"));
    format!("{quote}{doubled}{quote}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = "CREATE TABLE item (a TEXT, id BLOB, n INTEGER UNIQUE, PRIMARY KEY (id, a)) WITHOUT ROWID;
         CREATE TABLE headwater_checkpoint (projection, source, sequence, PRIMARY KEY (projection, source));
         CREATE TABLE headwater_position (projection, source, epoch, position, PRIMARY KEY (projection, source, epoch));
         CREATE TABLE headwater_epoch (projection, source, epoch, last, PRIMARY KEY (projection, source, epoch));
         CREATE TABLE headwater_anomaly (projection, source, kind, events, PRIMARY KEY (projection, source, kind));
         CREATE TABLE headwater_dead_letter (id INTEGER PRIMARY KEY, projection, source, lane, epoch, position, sequence, subject, payload, reason, waiting, recorded_at);";

    fn rows(store: &Connection, sql: &str) -> Vec<Vec<Value>> {
        let mut statement = store.prepare(sql).unwrap();
        let mut rows = statement.query([]).unwrap();
        std::iter::from_fn(|| next(&mut rows).unwrap()).collect()
    }

    /// Makes a live store with `live` equal to a new store with `rebuilt`; returns the number of
    /// changes.
    fn made_equal(live: &str, rebuilt: &str) -> usize {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, sql: &str| {
            let path = folder.path().join(name);
            let store = Connection::open(&path).unwrap();
            store
                .execute_batch(&format!("PRAGMA journal_mode = WAL; {SCHEMA} {sql}"))
                .unwrap();
            (path, store)
        };
        let ((live_path, live), (rebuilt_path, rebuilt)) =
            (make("live", live), make("rebuilt", rebuilt));
        let stores = Stores::open(&live_path, &rebuilt_path).unwrap();
        let mut changes = Vec::new();
        let each = &mut |change| {
            changes.push(change);
            true
        };
        between(&stores, "p", &["item"], each).unwrap();
        let count = changes.len();
        for Change { statements, values } in changes {
            for sql in &*statements {
                live.execute(sql, rusqlite::params_from_iter(&values))
                    .unwrap();
            }
        }
        let letters = format!(
            "SELECT {LETTER} FROM headwater_dead_letter WHERE projection = 'p' ORDER BY id"
        );
        for sql in [
            "SELECT * FROM item ORDER BY id, a",
            "SELECT * FROM headwater_checkpoint WHERE projection = 'p'",
            "SELECT * FROM headwater_position WHERE projection = 'p'",
            &letters,
        ] {
            assert_eq!(rows(&live, sql), rows(&rebuilt, sql), "{sql}");
        }
        let others = "SELECT count(*) FROM headwater_position WHERE projection <> 'p'";
        assert_eq!(rows(&live, others), [[Value::Integer(1)]], "not its own");
        count
    }

    const OTHER: &str = "INSERT INTO headwater_position VALUES ('q', 's', 'e', 7);";

    #[test]
    fn only_rows_that_differ_are_changed() {
        let item = "INSERT INTO item VALUES ('a', x'01', 1), ('b', x'02', 2), ('c', x'03', 3);";
        assert_eq!(made_equal(&format!("{item}{OTHER}"), item), 0);
        let lost = "DELETE FROM item WHERE a = 'b';";
        assert_eq!(made_equal(&format!("{item}{lost}{OTHER}"), item), 1);
        let altered = "UPDATE item SET n = 9 WHERE a = 'b'; DELETE FROM item WHERE a = 'c';
             INSERT INTO item VALUES ('c', x'00', NULL);";
        assert_eq!(made_equal(&format!("{item}{altered}{OTHER}"), item), 3);
        assert_eq!(made_equal(&format!("{item}{OTHER}"), ""), 3);
    }

    #[test]
    fn unique_values_that_changed_places_are_no_conflict() {
        let live = "INSERT INTO item VALUES ('a', x'01', 1), ('b', x'02', 2);";
        let rebuilt = "INSERT INTO item VALUES ('a', x'01', 2), ('b', x'02', 1);";
        made_equal(&format!("{live}{OTHER}"), rebuilt);
    }

    #[test]
    fn progress_and_letters_of_the_projection_alone_follow() {
        let letter = |id: u64, position: u64, waiting: u64| {
            format!(
                "INSERT INTO headwater_dead_letter VALUES ({id}, 'p', 's', 'key a', 'e', {position}, 1, 't', x'01', 'r', {waiting}, 5);"
            )
        };
        let at = |position: u64| {
            format!("INSERT INTO headwater_position VALUES ('p', 's', 'e', {position});")
        };
        let live = [at(3), letter(1, 1, 0), letter(4, 2, 1), letter(5, 3, 1)].concat();
        let rebuilt = [at(2), letter(1, 1, 0), letter(2, 3, 1)].concat();
        assert_eq!(made_equal(&format!("{live}{OTHER}"), &rebuilt), 4);
    }
}
