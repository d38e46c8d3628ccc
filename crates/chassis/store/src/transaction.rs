//! The two handles of a database: [`Tx`] writes, [`Snapshot`] reads.

use std::cell::{Cell, RefCell};
use std::time::SystemTime;

use headwater_telemetry::clock::Clock;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult, QueryTrait,
    Statement,
};

use crate::connection::Damage;
use crate::keys::Keys;
use crate::room;

/// A transaction on the writer thread. Exists only inside [`Database::write`](crate::database::Database::write).
#[derive(Debug)]
pub struct Tx {
    connection: DatabaseConnection,
    owner: &'static str,
    clock: Clock,
    damage: Damage,
    keys: Keys,
    appended: Cell<Option<u64>>,
    is_lost: Cell<bool>,
    is_full: Cell<bool>,
    /// See [`age_ms`](Self::age_ms).
    age_began: Cell<Option<i64>>,
    /// W3C trace context of the closure that runs, where it is traced.
    traceparent: RefCell<Option<String>>,
}

impl Tx {
    pub(super) fn new(
        connection: DatabaseConnection,
        owner: &'static str,
        clock: Clock,
        damage: Damage,
        keys: Keys,
    ) -> Self {
        Self {
            connection,
            owner,
            clock,
            damage,
            keys,
            appended: Cell::new(None),
            is_lost: Cell::new(false),
            is_full: Cell::new(false),
            age_began: Cell::new(None),
            traceparent: RefCell::default(),
        }
    }

    /// Whether SQLite has rolled back the whole transaction by itself.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.get()
    }

    /// Whether the disk was found to be full.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.get()
    }

    /// The same, and forgets it together with the transaction that was lost for it.
    pub(super) fn take_full(&self) -> bool {
        let is_full = self.is_full.take();
        if is_full {
            self.is_lost.set(false);
        }
        is_full
    }

    /// Notes that the disk is full: all of the transaction will be rolled back.
    pub(crate) fn note_full(&self) {
        self.is_full.set(true);
    }

    /// The service whose database this is.
    pub fn owner(&self) -> &'static str {
        self.owner
    }

    /// The keys of personal data, and of hashes.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The time now.
    pub fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// The time now, in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// A time in milliseconds by which the age of what is stored is told: it goes on from `newest`,
    /// the newest that is stored, as long as this process runs. It neither jumps with the machine's
    /// clock nor counts the time in which the service was down.
    pub(crate) fn age_ms(
        &self,
        newest: impl FnOnce(&Self) -> Result<Option<i64>, DbErr>,
    ) -> Result<i64, DbErr> {
        let running = self.clock.running_ms();
        let began = match self.age_began.get() {
            Some(began) => began,
            None => newest(self)?.unwrap_or_else(|| self.now_ms()) - running,
        };
        self.age_began.set(Some(began));
        Ok(began + running)
    }

    /// Notes the position of an event that was appended.
    pub(crate) fn note_appended(&self, position: u64) {
        self.appended.set(Some(position));
    }

    /// Notes of which trace the closure is that runs next.
    pub(super) fn set_traceparent(&self, traceparent: Option<String>) {
        self.traceparent.replace(traceparent);
    }

    /// The trace of the closure that runs, where it is traced.
    pub(crate) fn traceparent(&self) -> Option<String> {
        self.traceparent.borrow().clone()
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
    pub fn savepoint<T, E: From<DbErr>>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let appended = self.appended.get();
        self.control("SAVEPOINT part")?;
        let result = work(self);
        if result.is_err() {
            self.control("ROLLBACK TO part")?;
            self.appended.set(appended);
        }
        self.control("RELEASE part")?;
        result
    }

    /// Runs a statement that changes something, prepared once and kept: parsing it anew, as
    /// `execute` does each time, costs more than running it.
    ///
    /// # Errors
    /// The database's.
    pub fn run(&self, query: &impl QueryTrait) -> Result<(), DbErr> {
        self.run_raw(query.build(DbBackend::Sqlite))
    }

    /// [`run`](Self::run) for SQL as text.
    ///
    /// # Errors
    /// The database's.
    pub fn run_raw(&self, statement: Statement) -> Result<(), DbErr> {
        self.query_one_raw(statement).map(drop)
    }

    /// Begins or ends the transaction or a savepoint of it.
    pub(super) fn control(&self, sql: &str) -> Result<(), DbErr> {
        let statement = Statement::from_string(DbBackend::Sqlite, sql);
        let result = self.connection.query_one_raw(statement).map(drop);
        self.note(&result);
        result
    }

    /// Notes what `result` says of the file and its disk.
    fn note<T>(&self, result: &Result<T, DbErr>) {
        self.damage.note(result);
        if result.as_ref().is_err_and(room::is_full) {
            self.note_full();
        }
    }

    /// Sees to it that nothing is written outside of a transaction.
    ///
    /// At some errors (disk full, out of memory, a statement that says so) SQLite rolls the whole
    /// transaction back by itself. A closure that goes on all the same would then commit each of
    /// its statements on its own. So a failed statement tries to begin a transaction: where there
    /// still is one, that is refused; where there is none, what follows lands in one that is never
    /// committed, because the writer does not find its savepoint in it and stops, or is told.
    fn contain<T>(&self, result: Result<T, DbErr>) -> Result<T, DbErr> {
        if result.is_err() {
            self.note(&result);
            if self.connection.execute_unprepared("BEGIN").is_ok() {
                self.is_lost.set(true);
            }
        }
        result
    }
}

/// One unmoving view of the database. Exists only inside [`Database::read`](crate::database::Database::read).
#[derive(Debug)]
pub struct Snapshot {
    connection: DatabaseConnection,
    damage: Damage,
    keys: Keys,
}

impl Snapshot {
    pub(super) fn new(connection: DatabaseConnection, damage: Damage, keys: Keys) -> Self {
        Self {
            connection,
            damage,
            keys,
        }
    }

    /// The keys of personal data, and of hashes.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Reads cannot leave anything half done; a file that is damaged is noted.
    fn contain<T>(&self, result: Result<T, DbErr>) -> Result<T, DbErr> {
        self.damage.note(&result);
        result
    }
}

macro_rules! delegate_connection {
    ($handle:ty) => {
        impl ConnectionTrait for $handle {
            fn get_database_backend(&self) -> DbBackend {
                self.connection.get_database_backend()
            }
            fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
                self.contain(self.connection.execute_raw(statement))
            }
            fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
                self.contain(self.connection.execute_unprepared(sql))
            }
            fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
                self.contain(self.connection.query_one_raw(statement))
            }
            fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
                self.contain(self.connection.query_all_raw(statement))
            }
        }
    };
}
delegate_connection!(Tx);
delegate_connection!(Snapshot);
