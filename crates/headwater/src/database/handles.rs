//! The two handles of a database: [`Tx`] writes, [`Snapshot`] reads.

use std::cell::Cell;
use std::time::SystemTime;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult, Statement,
};

use crate::Clock;

/// A transaction on the writer thread. Exists only inside [`Database::write`](super::Database::write).
#[derive(Debug)]
pub struct Tx {
    connection: DatabaseConnection,
    owner: &'static str,
    clock: Clock,
    appended: Cell<Option<u64>>,
}

impl Tx {
    pub(super) fn new(connection: DatabaseConnection, owner: &'static str, clock: Clock) -> Self {
        Self {
            connection,
            owner,
            clock,
            appended: Cell::new(None),
        }
    }

    /// The service whose database this is.
    pub fn owner(&self) -> &'static str {
        self.owner
    }

    /// The time now.
    pub fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// The time now, in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Notes the position of an event that was appended.
    pub(crate) fn note_appended(&self, position: u64) {
        self.appended.set(Some(position));
    }

    pub(super) fn appended(&self) -> Option<u64> {
        self.appended.get()
    }

    pub(super) fn take_appended(&self) -> Option<u64> {
        self.appended.take()
    }

    /// Runs `work` in a savepoint of its own: what it changed is gone when it returns an error.
    ///
    /// # Errors
    /// What `work` returns, or that the transaction is gone.
    pub(crate) fn savepoint<T, E: From<DbErr>>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.execute_unprepared("SAVEPOINT part")?;
        let result = work(self);
        if result.is_err() {
            self.execute_unprepared("ROLLBACK TO part")?;
        }
        self.execute_unprepared("RELEASE part")?;
        result
    }
}

/// One unmoving view of the database. Exists only inside [`Database::read`](super::Database::read).
#[derive(Debug)]
pub struct Snapshot {
    connection: DatabaseConnection,
}

impl Snapshot {
    pub(super) fn new(connection: DatabaseConnection) -> Self {
        Self { connection }
    }
}

macro_rules! delegate_connection {
    ($handle:ty) => {
        impl ConnectionTrait for $handle {
            fn get_database_backend(&self) -> DbBackend {
                self.connection.get_database_backend()
            }
            fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
                self.connection.execute_raw(statement)
            }
            fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
                self.connection.execute_unprepared(sql)
            }
            fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
                self.connection.query_one_raw(statement)
            }
            fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
                self.connection.query_all_raw(statement)
            }
        }
    };
}
delegate_connection!(Tx);
delegate_connection!(Snapshot);
