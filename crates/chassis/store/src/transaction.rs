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

/// A transaction on the writer thread. Exists only inside
/// [`Database::write`](crate::database::Database::write).
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
    /// W3C trace context of the running closure, if it is traced.
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

    /// Whether SQLite has rolled back the whole transaction without being asked.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.get()
    }

    /// Whether the disk was found to be full.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.get()
    }

    /// [`is_full`](Self::is_full); also clears it, together with the loss that it caused.
    pub(super) fn take_full(&self) -> bool {
        let is_full = self.is_full.take();
        if is_full {
            self.is_lost.set(false);
        }
        is_full
    }

    /// Records that the disk is full: the whole transaction will be rolled back.
    pub(crate) fn note_full(&self) {
        self.is_full.set(true);
    }

    /// The service whose database this is.
    pub fn owner(&self) -> &'static str {
        self.owner
    }

    /// The keys of personal data and of hashes.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The current time.
    pub fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// The current time, in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// A time in milliseconds for measuring the age of stored rows. It starts at `newest`, the
    /// newest stored time, and advances while this process runs. It neither jumps with the
    /// machine's clock nor counts downtime.
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

    /// Records the position of an appended event.
    pub(crate) fn note_appended(&self, position: u64) {
        self.appended.set(Some(position));
    }

    /// Sets the trace context of the closure that runs next.
    pub(super) fn set_traceparent(&self, traceparent: Option<String>) {
        self.traceparent.replace(traceparent);
    }

    /// The trace context of the running closure, if it is traced.
    pub(crate) fn traceparent(&self) -> Option<String> {
        self.traceparent.borrow().clone()
    }

    pub(super) fn appended(&self) -> Option<u64> {
        self.appended.get()
    }

    pub(super) fn take_appended(&self) -> Option<u64> {
        self.appended.take()
    }

    /// Runs `work` in a savepoint: if it returns an error, its changes are rolled back.
    ///
    /// # Errors
    /// The error of `work`; or the transaction is gone.
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

    /// Runs a statement that changes data. It is prepared once and kept: parsing it each time, as
    /// `execute` does, costs more than running it.
    pub fn run(&self, query: &impl QueryTrait) -> Result<(), DbErr> {
        self.run_raw(query.build(DbBackend::Sqlite))
    }

    /// [`run`](Self::run) for SQL as text.
    pub fn run_raw(&self, statement: Statement) -> Result<(), DbErr> {
        self.query_one_raw(statement).map(drop)
    }

    /// Begins or ends the transaction or a savepoint.
    pub(super) fn control(&self, sql: &str) -> Result<(), DbErr> {
        let statement = Statement::from_string(DbBackend::Sqlite, sql);
        let result = self.connection.query_one_raw(statement).map(drop);
        self.note(&result);
        result
    }

    /// Records what `result` reports about the file and its disk.
    fn note<T>(&self, result: &Result<T, DbErr>) {
        self.damage.note(result);
        if result.as_ref().is_err_and(room::is_full) {
            self.note_full();
        }
    }

    /// Ensures that no statement runs outside of a transaction.
    ///
    /// After some errors (disk full, out of memory, a statement with `ON CONFLICT ROLLBACK`),
    /// SQLite rolls back the whole transaction. If the closure continued, each of its statements
    /// would commit separately. So after an error this issues `BEGIN`. If the transaction survived,
    /// `BEGIN` fails harmlessly. If SQLite rolled it back, `BEGIN` opens one that is never
    /// committed: the writer notes the loss, or does not find its savepoint and stops.
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

/// One unchanging view of the database. Exists only inside
/// [`Database::read`](crate::database::Database::read).
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

    /// The keys of personal data and of hashes.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Records damage of the file. A failed read leaves no partial changes.
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
