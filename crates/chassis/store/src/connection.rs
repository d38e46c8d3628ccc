//! One SQLite connection, in the form that sea-orm takes.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use sea_orm::{DatabaseConnection, DatabaseConnectionType, DbErr, RuntimeErr};
use tokio::sync::watch;

/// Number of statements that a connection keeps prepared; a service has a few dozen.
const PREPARED_MAX: usize = 128;

/// Held while a connection is opened or closed. In SQLite 3.51.1, the bundled version, opening
/// one connection to a file and closing another can deadlock.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Waits until no other connection of this process is being opened or closed.
pub(super) fn one_at_a_time() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The mode of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Read and write; the file is created if missing.
    Write,
    /// Read only.
    Read,
}

/// Opens `path`, and runs `prepare` on the connection before passing it to sea-orm.
pub(super) fn connect(
    path: &Path,
    mode: Mode,
    prepare: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<DatabaseConnection, DbErr> {
    let connection = connect_raw(path, mode, prepare)?;
    Ok(DatabaseConnectionType::RusqliteSharedConnection(connection.into()).into())
}

/// [`connect`] without sea-orm.
pub(super) fn connect_raw(
    path: &Path,
    mode: Mode,
    prepare: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<Connection, DbErr> {
    let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX
        | match mode {
            Mode::Write => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
            Mode::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
        };
    Connection::open_with_flags(path, flags)
        .and_then(|connection| {
            connection.set_prepared_statement_cache_capacity(PREPARED_MAX);
            // Without it, SQLite plans by the values of parameters, such as that of `LIMIT ?`, and
            // parses even a prepared statement again on each run.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
            prepare(&connection)?;
            Ok(connection)
        })
        .map_err(|error| DbErr::Conn(RuntimeErr::Rusqlite(error.into())))
}

/// SQLite's error code, if `error` came from SQLite.
pub fn code(error: &DbErr) -> Option<ErrorCode> {
    match error {
        DbErr::Conn(RuntimeErr::Rusqlite(error))
        | DbErr::Exec(RuntimeErr::Rusqlite(error))
        | DbErr::Query(RuntimeErr::Rusqlite(error)) => error.sqlite_error_code(),
        _ => None,
    }
}

/// Whether the file itself is damaged, which no statement can repair.
pub fn is_damage(error: &DbErr) -> bool {
    matches!(
        code(error),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// The first damage that was found in a file, if any. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Damage(std::sync::Arc<watch::Sender<Option<String>>>);

impl Damage {
    /// Records the damage that `result` reports, if any.
    pub(super) fn note<T>(&self, result: &Result<T, DbErr>) {
        if let Err(error) = result
            && is_damage(error)
        {
            self.found(&error.to_string());
        }
    }

    /// Records damage; the first finding stays.
    pub(super) fn found(&self, what: &str) {
        self.0.send_if_modified(|found| {
            let is_first = found.is_none();
            found.get_or_insert_with(|| what.to_owned());
            is_first
        });
    }

    /// Whether damage was found.
    pub(super) fn is_found(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Resolves with the damage once some is found.
    pub(super) async fn wait(&self) -> String {
        let mut findings = self.0.subscribe();
        let found = findings.wait_for(Option::is_some).await;
        // `self` holds the sender, so the channel is open.
        found
            .ok()
            .and_then(|found| found.clone())
            .unwrap_or_default()
    }
}

/// A connection for inspecting a whole file row by row, without a read limit. It is one snapshot
/// until it is dropped, and keeps the WAL from being emptied meanwhile.
#[derive(Debug)]
pub struct Inspection(Option<Connection>);

impl Inspection {
    /// Opens `path` and begins the snapshot.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        let _alone = one_at_a_time();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection
            .execute_batch("PRAGMA busy_timeout = 5000; BEGIN; SELECT 1 FROM sqlite_schema")?;
        Ok(Self(Some(connection)))
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        self.0.as_ref().expect("present until drop")
    }

    /// The damage in the structure of the file, if any. An altered cell value is not detected.
    pub fn damage(&self) -> Option<String> {
        let check = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
        match self
            .connection()
            .query_row("PRAGMA quick_check(1)", [], check)
        {
            Ok(found) if found == "ok" => None,
            Ok(found) => Some(found),
            Err(error) => Some(error.to_string()),
        }
    }
}

impl Drop for Inspection {
    fn drop(&mut self) {
        let _alone = one_at_a_time();
        drop(self.0.take());
    }
}

/// Runs `sql` on the file `path`, with the file `other` attached as `other`.
pub fn with_attached(path: &Path, other: &Path, sql: &str) -> rusqlite::Result<()> {
    let _alone = one_at_a_time();
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.execute_batch("PRAGMA busy_timeout = 5000; PRAGMA synchronous = FULL")?;
    connection.execute("ATTACH ? AS other", [other.to_string_lossy()])?;
    connection.execute_batch(sql)
}
