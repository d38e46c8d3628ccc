//! Backups of services' own databases, from their confirmation to their end.

use std::fs::{self, File};
use std::path::PathBuf;

use headwater::Clock;
use headwater::backup::{self, Facts, RestoreTarget};
use reqwest::{StatusCode, header};

use super::{Console, status};
use crate::house::House;
use crate::source::{Source, VIEWER};

const BACKUP: &str = "verb=backup&service=sensors";

/// The button, which is there once the source answers.
const LINK: &str = "/confirm?verb=backup&amp;service=sensors";

/// The folder of the source's copies.
fn copies(source: &Source) -> PathBuf {
    source.db.path().with_file_name("backups")
}

fn files(source: &Source) -> Vec<PathBuf> {
    let entries = fs::read_dir(copies(source)).into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.expect("read").path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_database_is_backed_up_with_what_that_means_said_before() {
    let source = Source::start().await;
    let house = House::open(&source, true).await;
    source.append(1..=17).await;
    let console = Console::as_operator(&source).await;
    let overview = console.shows("/", &[LINK, "readings"]).await;
    assert!(
        !overview.contains("Back up the database of house"),
        "a read store has no button"
    );
    let (confirm, ended) = console.does(BACKUP, "").await;
    let folder = copies(&source).display().to_string();
    for said in [
        &*folder,
        "machine of sensors",
        "newest 7 copies",
        "cancel it",
    ] {
        assert!(confirm.contains(said), "{said} is not in {confirm}");
    }
    assert!(!confirm.contains("cannot be undone"), "{confirm}");
    let [file, digest] = &files(&source)[..] else {
        panic!("not a copy and a digest: {:?}", files(&source));
    };
    let name = file.display().to_string();
    for said in [&*name, "up to 17", "sha256: ", "done"] {
        assert!(ended.contains(said), "{said} is not in {ended}");
    }
    assert!(digest.display().to_string().ends_with(".sha256"));
    assert!(backup::check_digest(file).expect("they can be read"));

    let restored = tempfile::tempdir().expect("a folder");
    let path = restored.path().join("sensors.db");
    let target = RestoreTarget::take(&path).expect("nobody has it open");
    target.put(file, false, &Clock::system()).expect("restored");
    let facts = |path| Facts::of(path).expect("a database");
    assert_eq!(facts(&path), facts(&source.db.path()));
    assert_eq!(backup::common(file, &path).expect("read"), 17);

    let log = console.log();
    let what = "back up the database of sensors";
    assert!(log.iter().all(|(logged, _)| logged == what), "{log:?}");
    let outcomes: Vec<&str> = log.iter().map(|(_, outcome)| &**outcome).collect();
    assert!(
        matches!(outcomes[..], ["begun", done] if done.starts_with("done: sensors: ")),
        "{outcomes:?}"
    );
    let (status, refused) = console.page("/confirm?verb=backup&service=house").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(refused.contains("headwater rebuild house"), "{refused}");
    house.close().await;
    console.close().await;
    source.stop().await;
}

/// Another backup to the same folder never ends.
#[tokio::test]
async fn a_backup_shows_its_progress_can_be_cancelled_and_leaves_nothing() {
    let source = Source::start().await;
    source.append(1..=5).await;
    fs::create_dir_all(copies(&source)).expect("a folder");
    let another = File::create(copies(&source).join(".sensors.part")).expect("create");
    another.lock().expect("lock");
    let console = Console::as_operator(&source).await;
    console.shows("/", &[LINK]).await;
    let begin = async || {
        let begun = console.post("/actions", BACKUP.to_owned()).send().await;
        let begun = begun.expect("an answer");
        let path = begun.headers()[header::LOCATION].to_str().expect("text");
        path.to_owned()
    };
    let first = begin().await;
    let waits = ["0 B of 0 B waits for another backup", "Cancel it"];
    console.shows(&first, &waits).await;
    let listed = ["backup of sensors", "waits for another backup"];
    console.shows("/", &listed).await;
    let second = begin().await;
    let refused = ["failed", "a backup is running"];
    console.shows(&second, &refused).await;
    let cancelled = console.post(&format!("{first}/cancel"), String::new());
    assert_eq!(status(cancelled).await, StatusCode::SEE_OTHER);
    let said = "NOT COPIED: sensors: an operator stopped it";
    console.shows(&first, &["cancelled", said]).await;
    assert_eq!(files(&source).len(), 1, "that of the other backup");
    drop(another);
    let (_, ended) = console.does(BACKUP, "").await;
    assert!(ended.contains("up to 5"), "{ended}");
    assert_eq!(files(&source).len(), 2, "a copy and its digest");
    console.close().await;
    source.stop().await;
}

#[tokio::test]
async fn a_viewer_sees_a_backup_and_starts_none() {
    let source = Source::start().await;
    fs::write(copies(&source), "no folder").expect("write");
    let console = Console::as_operator(&source).await;
    console.shows("/", &[LINK]).await;
    let (_, ended) = console.does(BACKUP, "").await;
    assert!(ended.contains("NOT COPIED: sensors: make "), "{ended}");
    console.close().await;
    let console = Console::start(&source, &[], &VIEWER).await;
    let failed = "failed; there is no copy; make ";
    let text = console.shows("/", &["backup of sensors", failed]).await;
    assert!(!text.contains("Back up"), "{text}");
    let (refused, _) = console.page(&format!("/confirm?{BACKUP}")).await;
    assert_eq!(refused, StatusCode::FORBIDDEN);
    console.close().await;

    fs::remove_file(copies(&source)).expect("remove");
    // As an operator with the login of a viewer: the bus refuses all but the status.
    let flags = ["--as-operator", "--timeout=2s"];
    let console = Console::start(&source, &flags, &VIEWER).await;
    let (confirm, ended) = console.does(BACKUP, "").await;
    assert!(confirm.contains("newest 7 copies"), "{confirm}");
    let said = "log in as a user with permission";
    assert!(ended.contains(said), "{ended}");
    assert!(files(&source).is_empty(), "nothing was copied");
    console.close().await;
    source.stop().await;
}
