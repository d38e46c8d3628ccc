//! Which [`Error`] an error with its causes is: the one place that decides it.

use std::error::Error as StdError;
use std::path::Path;

use headwater_telemetry::BoxError;

use crate::connection::is_damage;
use crate::error::Error;
use crate::room::failed_on_full_disk;

/// `error` of the database at `path`, with all its causes.
pub(crate) fn of(error: anyhow::Error, path: &Path) -> Error {
    let known = error.chain().find_map(variant);
    let variant = match known {
        Some(variant) => variant,
        None if failed_on_full_disk(&error, path) => Error::Full,
        None => Error::Other,
    };
    variant(error.into())
}

/// The variant of an error with this cause.
fn variant(cause: &(dyn StdError + 'static)) -> Option<fn(BoxError) -> Error> {
    if cause.downcast_ref().is_some_and(is_damage) {
        return Some(Error::Damaged);
    }
    Some(match cause.downcast_ref()? {
        Error::Locked(_) => Error::Locked,
        Error::Newer(_) => Error::Newer,
        Error::ChangedMigration(_) => Error::ChangedMigration,
        Error::OtherOwner(_) => Error::OtherOwner,
        Error::Missing(_) => Error::Missing,
        Error::KeyFile(_) => Error::KeyFile,
        Error::Full(_) => Error::Full,
        Error::Damaged(_) => Error::Damaged,
        Error::WriterStopped(_) => Error::WriterStopped,
        Error::Stopped(_) | Error::Other(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::{Context as _, anyhow};
    use headwater_telemetry::causes;
    use rusqlite::ffi;
    use sea_orm::{DbErr, RuntimeErr};

    use super::*;

    fn sqlite(code: i32) -> anyhow::Error {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        DbErr::Exec(RuntimeErr::Rusqlite(error.into())).into()
    }

    #[test]
    fn a_reason_decides_below_any_context_and_the_text_keeps_all_causes() {
        let path = Path::new("/no/such/folder/a.db");
        let locked = anyhow!(Error::Locked("pid 7 has it".into()));
        let error = of(locked.context("lock a.db").context("open it"), path);
        assert!(matches!(error, Error::Locked(_)), "{error:?}");
        assert_eq!(causes(&error), "open it: lock a.db: pid 7 has it");

        let full = [
            sqlite(ffi::SQLITE_FULL),
            io::Error::from(io::ErrorKind::StorageFull).into(),
            io::Error::from(io::ErrorKind::QuotaExceeded).into(),
        ];
        for error in full {
            let error = of(error.context("open it"), path);
            assert!(matches!(error, Error::Full(_)), "{error:?}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB] {
            let error = of(sqlite(code).context("open it"), path);
            assert!(matches!(error, Error::Damaged(_)), "{error:?}");
        }
        let other = Err::<(), _>(io::Error::from(io::ErrorKind::PermissionDenied));
        let error = of(other.context("create a.db").unwrap_err(), path);
        assert!(matches!(error, Error::Other(_)), "{error:?}");
        assert_eq!(causes(&error), "create a.db: permission denied");
    }
}
