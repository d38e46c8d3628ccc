//! One statement for many rows.

use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement, Value};

/// How many rows one statement takes: the largest length as often as it fits, then the next.
/// There are few lengths, so each statement is parsed once and stays prepared.
const LENGTHS: [usize; 5] = [500, 50, 10, 3, 1];

/// A statement with a list of rows in it, for any number of them.
///
/// A row costs a fraction of a separate statement. A projection that is far behind gets tens of
/// thousands of events at once: gather their net result, and save it with a few bulk statements.
///
/// ```ignore
/// const SAVE: Bulk = Bulk {
///     before: "INSERT INTO product (id, title) VALUES ",
///     row: "(?, ?)",
///     after: " ON CONFLICT (id) DO UPDATE SET title = excluded.title",
/// };
/// SAVE.run(tx, products.map(|product| [product.id.into(), product.title.into()]))?;
/// ```
///
/// Pass the rows in the order of the table's key, so that SQLite visits neighbouring rows one
/// after another. No row may occur twice.
#[derive(Debug, Clone, Copy)]
pub struct Bulk {
    /// The SQL before the list.
    pub before: &'static str,
    /// One row of the list.
    pub row: &'static str,
    /// The SQL after the list.
    pub after: &'static str,
}

impl Bulk {
    /// Runs the statement for all `rows`.
    pub fn run<const N: usize>(
        &self,
        db: &impl ConnectionTrait,
        rows: impl IntoIterator<Item = [Value; N], IntoIter: ExactSizeIterator>,
    ) -> Result<(), DbErr> {
        self.query(db, rows, |_| Ok(()))
    }

    /// Runs the statement for all `rows`, and passes the rows it returns to `each`. Results are
    /// not collected first: for a large batch they would take most of the memory.
    pub fn query<const N: usize>(
        &self,
        db: &impl ConnectionTrait,
        rows: impl IntoIterator<Item = [Value; N], IntoIter: ExactSizeIterator>,
        mut each: impl FnMut(&QueryResult) -> Result<(), DbErr>,
    ) -> Result<(), DbErr> {
        let mut rows = rows.into_iter();
        for length in LENGTHS {
            if rows.len() < length {
                continue;
            }
            let sql = self.sql(length);
            while rows.len() >= length {
                let values: Vec<Value> = rows.by_ref().take(length).flatten().collect();
                let statement =
                    Statement::from_sql_and_values(db.get_database_backend(), &sql, values);
                db.query_all_raw(statement)?
                    .iter()
                    .try_for_each(&mut each)?;
            }
        }
        Ok(())
    }

    fn sql(&self, rows: usize) -> String {
        let list = vec![self.row; rows].join(",");
        format!("{}{list}{}", self.before, self.after)
    }
}
