//! One statement for many rows.

use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement, Value};

/// How many rows one run takes: as many as fit of the largest, then of the next. Few lengths, so
/// that each is parsed once and stays prepared.
const LENGTHS: [usize; 5] = [500, 50, 10, 3, 1];

/// A statement with a list of rows in it, for any number of them.
///
/// A row costs a fraction of a statement of its own. A projection that is far behind gets tens of
/// thousands of events at once: gather what they come to, and save it with a few of these.
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
/// Give the rows in the order of the table's key: those that lie beside one another are then
/// found beside one another. One row must not come twice.
#[derive(Debug, Clone, Copy)]
pub struct Bulk {
    /// What comes before the list.
    pub before: &'static str,
    /// One row of it.
    pub row: &'static str,
    /// What comes after the list.
    pub after: &'static str,
}

impl Bulk {
    /// Runs it for all of `rows`.
    ///
    /// # Errors
    /// The database's.
    pub fn run<const N: usize>(
        &self,
        db: &impl ConnectionTrait,
        rows: impl IntoIterator<Item = [Value; N], IntoIter: ExactSizeIterator>,
    ) -> Result<(), DbErr> {
        self.query(db, rows, |_| Ok(()))
    }

    /// Runs it for all of `rows`, and hands what it returns to `each`: not all of it at once, which
    /// for a large batch would be most of the memory.
    ///
    /// # Errors
    /// The database's, or what `each` returns.
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
