//! Copies of databases: making and restoring them.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use headwater::backup::{self, Facts, Progress, RestoreTarget, Watch, unwatched};
use headwater::database::{Database, outbox};
use headwater::{Clock, MAX_PAYLOAD, causes};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::support::{self, append, folder, large, open, open_restored, reads};

/// The files in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn backups_at_the_same_time_wait_for_each_other_and_leave_whole_copies() {
    const AT_ONCE: usize = 3;
    let (data, copies) = (folder(), folder());
    let db = open(&data, "sensors").await;
    append(&db, reads(1..100)).await;
    let path = data.path().join("sensors.db");
    let together = Barrier::new(AT_ONCE);
    let made: Vec<_> = thread::scope(|scope| {
        let make = || {
            together.wait();
            backup::make(&path, copies.path(), &Clock::system(), &unwatched()).unwrap()
        };
        let makers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(make)).collect();
        makers.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for copy in &made {
        assert!(backup::check_digest(&copy.file).unwrap(), "its digest");
        assert_eq!(backup::check(&copy.file).unwrap().head, 99);
    }
    let names = names(copies.path());
    assert_eq!(names.len(), AT_ONCE * 2, "each has another name: {names:?}");
}

/// Cancels at the first progress that `is_it`; collects the files that there were at that moment.
fn cancelling(folder: &Path, is_it: fn(Progress) -> bool) -> (Watch, Arc<Mutex<Vec<String>>>) {
    let (folder, seen) = (folder.to_owned(), Arc::new(Mutex::default()));
    let shown = Arc::clone(&seen);
    let watch = move |progress| {
        if is_it(progress) {
            *shown.lock().unwrap() = names(&folder);
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    (Arc::new(watch), seen)
}

#[tokio::test]
async fn a_copy_that_is_cancelled_at_any_moment_leaves_nothing() {
    let (data, copies) = (folder(), folder());
    let db = open(&data, "sensors").await;
    let events = (0..20).map(|value| large(value, MAX_PAYLOAD - 20));
    append(&db, events.collect()).await;
    let path = data.path().join("sensors.db");
    let moments: [fn(Progress) -> bool; 3] = [
        |progress| matches!(progress, Progress::Copying { copied: 0, .. }),
        // In the middle of the file.
        |progress| matches!(progress, Progress::Copying { copied: 1.., total } if total > 10 << 20),
        |progress| matches!(progress, Progress::Checking),
    ];
    for is_it in moments {
        let (watch, seen) = cancelling(copies.path(), is_it);
        let cancelled = backup::make(&path, copies.path(), &Clock::system(), &watch).unwrap_err();
        assert!(
            matches!(cancelled, backup::Error::Cancelled(_)),
            "{cancelled:?}"
        );
        assert_eq!(*seen.lock().unwrap(), [".sensors.part"]);
        assert_eq!(names(copies.path()), [""; 0]);
    }
    assert_eq!(backup::newest(&path), None, "it does not count as a backup");
}

#[tokio::test]
async fn what_a_killed_backup_left_is_no_copy_and_is_gone_after_the_next() {
    let (data, copies) = (folder(), folder());
    let db = open(&data, "sensors").await;
    append(&db, reads(1..5)).await;
    let left = vec![b'x'; 1 << 20];
    fs::write(copies.path().join(".sensors.part"), left).unwrap();
    let path = data.path().join("sensors.db");
    let copy = backup::make(&path, copies.path(), &Clock::system(), &unwatched()).unwrap();
    assert_eq!(backup::check(&copy.file).unwrap().head, 4);
    let file = copy.file.file_name().unwrap().to_str().unwrap();
    assert_eq!(names(copies.path()), [file, &format!("{file}.sha256")]);
}

#[tokio::test]
async fn what_is_moved_aside_has_what_was_in_its_log() {
    let (data, copies) = (folder(), folder());
    let db = open(&data, "sensors").await;
    append(&db, reads(1..3)).await;
    let path = data.path().join("sensors.db");
    let copy = backup::make(&path, copies.path(), &Clock::system(), &unwatched()).unwrap();
    append(&db, reads(3..6)).await;
    // The leftovers of a killed process.
    let killed = folder();
    let killed_at = killed.path().join("sensors.db");
    for behind in ["", "-wal"] {
        let (from, to) = (
            format!("{}{behind}", path.display()),
            format!("{}{behind}", killed_at.display()),
        );
        fs::copy(from, to).unwrap();
    }
    let place = RestoreTarget::take(&killed_at).unwrap();
    let placed = place.put(&copy.file, false, &Clock::system()).unwrap();
    assert_eq!(Facts::of(&killed_at).unwrap().head, 2);
    let aside = placed.aside.unwrap();
    let names = names(killed.path());
    assert!(
        !names.iter().any(|name| name.ends_with("-wal")),
        "{names:?}"
    );
    assert_eq!(backup::check(&aside).unwrap().head, 5);
}

/// The copy may be of a program that had no table for it.
#[tokio::test]
async fn a_new_epoch_says_what_it_has_of_the_former_ones_also_in_an_older_copy() {
    let (data, places) = (folder(), [folder(), folder()]);
    let db = open(&data, "sensors").await;
    append(&db, reads(1..3)).await;
    let copy = data.path().join("copy.db");
    let restore = |from: &Path, place: &TempDir| {
        let path = place.path().join("sensors.db");
        let target = RestoreTarget::take(&path).unwrap();
        target.put(from, true, &Clock::system()).unwrap();
        path
    };
    let inherited = |db: Database| async move {
        let read = db.read_raw(outbox::inherited).await;
        read.unwrap()
    };
    support::backup(&db.path(), &copy);
    let older = "DROP TABLE headwater_inherited;
        DELETE FROM headwater_migration WHERE name = '0008_inherited'";
    Connection::open(&copy)
        .unwrap()
        .execute_batch(older)
        .unwrap();
    restore(&copy, &places[0]);
    let first = open_restored(&places[0], "sensors").await;
    let epochs = [db.epoch().to_string(), first.epoch().to_string()];
    append(&first, reads(3..4)).await;
    fs::remove_file(&copy).unwrap();
    support::backup(&first.path(), &copy);
    let of_first = inherited(first).await;
    assert_eq!(of_first, BTreeMap::from([(epochs[0].clone(), 2)]));
    restore(&copy, &places[1]);
    let second = inherited(open_restored(&places[1], "sensors").await).await;
    assert_eq!(second, epochs.into_iter().zip([2, 3]).collect());
    assert_eq!(inherited(db).await, BTreeMap::new());
}

#[tokio::test]
async fn two_lives_have_the_same_events_up_to_where_the_later_one_began() {
    let (data, copies) = (folder(), folder());
    let db = open(&data, "sensors").await;
    append(&db, reads(1..8)).await;
    let path = data.path().join("sensors.db");
    let copy = backup::make(&path, copies.path(), &Clock::system(), &unwatched()).unwrap();
    append(&db, reads(8..20)).await;
    let later = copies.path().join("later.db");
    fs::copy(&copy.file, &later).unwrap();
    let write = "INSERT INTO headwater_outbox (subject, key, payload, recorded_at)
                 VALUES ('sensors.v1.read', 'attic', x'00', 1)";
    let another = Connection::open(&later).unwrap();
    for _ in 0..5 {
        another.execute(write, []).unwrap();
    }
    assert_eq!(
        backup::common(&later, &data.path().join("sensors.db")).unwrap(),
        7
    );
    assert_eq!(backup::common(&copy.file, &later).unwrap(), 7);
}

#[tokio::test]
async fn what_is_no_copy_is_said_to_be_none() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("empty.db"), "").unwrap();
    Connection::open(at("foreign.db"))
        .unwrap()
        .execute_batch("CREATE TABLE t (n)")
        .unwrap();
    let made = Command::new("mkfifo").arg(at("pipe.db")).status().unwrap();
    assert!(made.success());
    for (name, why) in [
        ("empty.db", "not the database of a service"),
        ("foreign.db", "not the database of a service"),
        ("missing.db", "No such file"),
        ("pipe.db", "is not a file"),
        ("", "is not a file"),
    ] {
        let refused = backup::check(&at(name)).unwrap_err();
        let refused = causes(&refused);
        assert!(refused.contains(why), "{refused}");
    }
}

#[tokio::test]
async fn a_source_without_events_that_keeps_a_projection_is_no_copy() {
    let data = folder();
    let db = open(&data, "sensors").await;
    let path = data.path().join("sensors.db");
    let keeps = "INSERT INTO headwater_projection (name, version) VALUES (?, 1)";
    let keep = |name: &str| Connection::open(&path).unwrap().execute(keeps, [name]);
    keep("sensors-catalogue").unwrap();
    assert!(!Facts::of(&path).unwrap().is_copy());
    keep("sensors").unwrap();
    assert!(Facts::of(&path).unwrap().is_copy(), "a read store");
    append(&db, reads(1..2)).await;
    assert!(!Facts::of(&path).unwrap().is_copy(), "it has its own event");
}
