//! Commands against a real read store of the source's events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use headwater::database::{Migration, Snapshot, Tx};
use headwater::http::About;
use headwater::prelude::{OpenApiRouter, Process};
use headwater::{ApplyError, Database, Envelope, Event as _, Projection, Service};
use sea_orm::{ConnectionTrait as _, DbErr, Statement};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::source::{SensorRead, Source, eventually};

const MIGRATIONS: &[Migration] = &[Migration::sql(
    "0001_readings",
    "CREATE TABLE reading (value INTEGER PRIMARY KEY, sensor TEXT NOT NULL)",
)];

/// The reason of a reading that has this value quotes the sensor.
pub(crate) const QUOTED: u64 = 222;

/// Stores every reading except value 2 and [`QUOTED`], which it cannot apply until it is fixed.
#[derive(Debug)]
struct Readings {
    is_fixed: Arc<AtomicBool>,
}

impl Projection for Readings {
    const NAME: &'static str = "readings";
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["sensors"];
    const EVENTS: &'static [&'static [&'static str]] = &[&[SensorRead::SUBJECT]];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            let SensorRead { sensor, value } = event.decode()?;
            if value == 2 && !self.is_fixed.load(Ordering::SeqCst) {
                return Err(ApplyError::Poison("two is too many".to_owned()));
            }
            if value == QUOTED && !self.is_fixed.load(Ordering::SeqCst) {
                let reason = format!("the name {sensor:?} is longer than a word");
                return Err(ApplyError::Poison(reason));
            }
            run(
                tx,
                &format!("INSERT INTO reading VALUES ({value}, '{sensor}')"),
            )?;
        }
        Ok(())
    }

    fn key(&self, event: &Envelope) -> Option<String> {
        Some(event.decode::<SensorRead>().ok()?.sensor)
    }
}

fn run(tx: &Tx, sql: &str) -> Result<(), DbErr> {
    let statement = Statement::from_string(tx.get_database_backend(), sql);
    tx.execute_raw(statement).map(drop)
}

/// A service with a read store.
pub(crate) struct House {
    db: Database,
    is_fixed: Arc<AtomicBool>,
    stop: CancellationToken,
    running: JoinSet<headwater::Result>,
    folder: TempDir,
}

impl House {
    /// `is_fixed`: whether it can apply everything from the start.
    pub(crate) async fn open(source: &Source, is_fixed: bool) -> Self {
        let folder = tempfile::tempdir().expect("make a folder");
        Self::open_in(folder, source, is_fixed).await
    }

    async fn open_in(folder: TempDir, source: &Source, is_fixed: bool) -> Self {
        let file = folder.path().join("house.db");
        let file = file.to_str().expect("UTF-8");
        let url = source.broker.url();
        let flags = ["--database", file, "--nats-url", &url];
        let stop = CancellationToken::new();
        let about = About {
            name: "house",
            description: "Keeps the readings of sensors.",
            version: "1.0.0",
            port: 0,
        };
        let config = headwater::settings(&about, &flags);
        let process = Process::on_free_ports(stop.clone()).await.expect("bind");
        let mut service = Service::start_read_store(about, MIGRATIONS, config, process)
            .await
            .expect("open");
        let is_fixed = Arc::new(AtomicBool::new(is_fixed));
        let readings = Readings {
            is_fixed: Arc::clone(&is_fixed),
        };
        service.project(readings).await.expect("project");
        let db = service.db.clone();
        let mut running = JoinSet::new();
        running.spawn(service.serve(OpenApiRouter::new()));
        Self {
            db,
            is_fixed,
            stop,
            running,
            folder,
        }
    }

    /// Lets it apply everything.
    pub(crate) fn fix(&self) {
        self.is_fixed.store(true, Ordering::SeqCst);
    }

    /// Waits until it has stored these values, and no others.
    pub(crate) async fn stores(&self, wanted: &[u64]) {
        eventually("the readings", async || {
            let found = self.db.read(|snapshot: &Snapshot| {
                let sql = "SELECT value FROM reading ORDER BY value";
                let query = Statement::from_string(snapshot.get_database_backend(), sql);
                let rows = snapshot.query_all_raw(query)?.into_iter();
                let values = rows.map(|row| row.try_get_by::<i64, _>("value"));
                values.collect::<Result<Vec<i64>, DbErr>>()
            });
            let found = found.await.expect("read");
            let found: Vec<u64> = found.into_iter().map(i64::unsigned_abs).collect();
            if found == wanted { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Changes the tables without the projection.
    pub(crate) async fn spoil(&self, sql: &'static str) {
        let write = self.db.write(move |tx| run(tx, sql));
        write.await.expect("write");
    }

    /// Restarts it on the same store.
    pub(crate) async fn restart(self, source: &Source) -> Self {
        let is_fixed = self.is_fixed.load(Ordering::SeqCst);
        let folder = self.end().await;
        Self::open_in(folder, source, is_fixed).await
    }

    pub(crate) async fn close(self) {
        self.end().await;
    }

    async fn end(mut self) -> TempDir {
        self.stop.cancel();
        let ended = self.running.join_next().await.expect("it runs");
        ended.expect("no panic").expect("an orderly end");
        self.folder
    }
}

/// The dead letters of the house, once there are `count`.
async fn letters(source: &Source, count: u64) -> Value {
    eventually("dead letters", async || {
        let line = ["dead-letter", "list", "--service=house", "--output=json"];
        let ended = source.tool(&line).await;
        let listed: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
        if listed["house"]["total"] == count {
            Ok(listed["house"]["letters"].clone())
        } else {
            Err(ended)
        }
    })
    .await
}

/// Runs the tool on the house's dead letters; returns its output.
async fn dead_letter(source: &Source, args: &[&str], code: i32) -> String {
    let line = [&["dead-letter"], args, &["--service=house"]].concat();
    let ended = source.tool(&line).await;
    assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
    ended.stdout + &ended.stderr
}

#[tokio::test]
async fn dead_letters_are_shown_and_applied_once_the_program_is_mended() {
    let source = Source::start().await;
    let house = House::open(&source, false).await;
    source.append(1..=10).await;
    let letters = letters(&source, 2).await;
    assert_eq!(letters[0]["position"], 2);
    assert_eq!(
        (&letters[1]["position"], &letters[1]["waiting"]),
        (&json!(9), &json!(true))
    );

    let (exit, report) = source.verify().await;
    assert_eq!(exit, 0, "they are no difference: {report}");
    assert_eq!(report["projections"][0]["dead_letters"], 2);

    let said = dead_letter(&source, &["show", "1"], 0).await;
    assert!(
        said.contains("two is too many") && said.contains("sensor 2"),
        "{said}"
    );
    let said = dead_letter(&source, &["retry", "--all"], 3).await;
    assert!(
        said.starts_with("0 applied, 1 failed again, 2 left"),
        "{said}"
    );
    let said = dead_letter(&source, &["retry", "2"], 1).await;
    assert!(said.contains("waits behind"), "{said}");
    for args in [
        &["retry", "77"][..],
        &["show", "77"],
        &["retry", "--lane=none"],
    ] {
        let said = dead_letter(&source, args, 1).await;
        assert!(said.contains("there "), "{said}");
    }

    house.is_fixed.store(true, Ordering::SeqCst);
    let said = dead_letter(&source, &["retry", "1"], 0).await;
    assert_eq!(said, "2 applied, 0 failed again, 0 left\n");
    assert_eq!(dead_letter(&source, &["list"], 0).await, "there are none\n");
    let (exit, report) = source.verify().await;
    assert_eq!(exit, 0, "{report}");
    house.close().await;
    source.stop().await;
}

#[tokio::test]
async fn a_dead_letter_that_is_discarded_lets_go_what_waits_behind_it() {
    let source = Source::start().await;
    let house = House::open(&source, false).await;
    source.append(1..=10).await;
    letters(&source, 2).await;
    let said = dead_letter(&source, &["discard", "1", "--reason=a test", "--yes"], 0).await;
    assert_eq!(
        said,
        "discarded 1 (sensors:2); behind it: 1 applied, 0 failed again, 0 left\n"
    );
    let said = dead_letter(&source, &["discarded"], 0).await;
    assert!(
        said.contains("two is too many; discarded: a test"),
        "{said}"
    );
    let (exit, report) = source.verify().await;
    assert_eq!(exit, 0, "a rebuild skips discarded events: {report}");
    house.close().await;
    source.stop().await;
}

#[tokio::test]
async fn a_rebuild_finds_what_was_altered_and_mends_it() {
    let source = Source::start().await;
    let house = House::open(&source, true).await;
    source.append(1..=30).await;
    let (exit, report) = source.verify().await;
    assert_eq!(exit, 0, "{report}");
    let ended = source.tool(&["rebuild", "house"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = "house is rebuilt, at sensors:30";
    assert!(ended.stdout.starts_with(said), "{ended:?}");

    house
        .spoil("UPDATE reading SET sensor = 'none' WHERE value = 7")
        .await;
    let (exit, report) = source.verify().await;
    assert_eq!(exit, 3, "{report}");
    let row = |side: &str, sensor: &str| json!({"table": "reading", "only_in": side, "row": [["value", "7"], ["sensor", sensor]]});
    let rows = &report["projections"][0]["fold"]["differences"]["rows"];
    let mut rows = rows.as_array().expect("rows").clone();
    rows.sort_by_key(|row| row["only_in"].to_string());
    assert_eq!(rows, [row("fold", "sensor 0"), row("live", "none")]);

    let ended = source.tool(&["rebuild", "house"]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let (exit, report) = source.verify().await;
    assert_eq!(exit, 0, "{report}");
    house.close().await;
    source.stop().await;
}

#[tokio::test]
async fn a_source_has_nothing_to_rebuild() {
    let source = Source::start().await;
    assert_eq!(source.verify().await.0, 0, "it is there");
    let ended = source.tool(&["rebuild", "sensors"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("has no projections"), "{ended:?}");
    source.stop().await;
}

#[tokio::test]
async fn all_dead_letters_are_discarded_once_their_number_is_confirmed() {
    let source = Source::start().await;
    let house = House::open(&source, false).await;
    // More than one request can discard, each with a different key.
    for place in 1..=300 {
        let junk = SensorRead {
            sensor: format!("junk {place}"),
            value: 2,
        };
        let subject = headwater::subject_of(&junk);
        source.publish_raw(&subject, None, &junk).await;
    }
    letters(&source, 300).await;
    let line = |flags: &[&'static str]| [&["discard", "--all", "--reason=junk"], flags].concat();
    let said = dead_letter(&source, &line(&[]), 2).await;
    assert!(said.contains("300 dead letters to discard:\n"), "{said}");
    assert!(
        said.contains("  1 of house from sensors (key junk "),
        "{said}"
    );
    assert!(said.contains("--yes or --confirm 300"), "{said}");
    let said = dead_letter(&source, &line(&["--confirm=299"]), 2).await;
    assert!(
        said.contains("there are 300 dead letters to discard, not 299"),
        "{said}"
    );
    for none in ["--error=three", "--lane=key attic", "--source=none"] {
        let said = dead_letter(&source, &line(&[none, "--confirm=0"]), 0).await;
        assert_eq!(said, "there are none\n", "{none}");
    }
    assert_eq!(letters(&source, 300).await[0]["id"], 1, "nothing was done");

    let ended = source
        .tool(&["dead-letter", "list", "--lane=key junk 7"])
        .await;
    assert!(
        ended.stdout.starts_with("house: 1\n  7 sensors (by hand"),
        "{ended:?}"
    );
    let said = dead_letter(&source, &line(&["--lane=key junk 7", "--confirm=1"]), 0).await;
    let expected = "house: 1 discarded; behind them: 0 applied, 0 failed; 299 left\n";
    assert_eq!(said, expected);
    // The dead letters of all services.
    let ended = source
        .tool(&[
            "dead-letter",
            "discard",
            "--all",
            "--reason=junk",
            "--error=two is",
            "--confirm=299",
        ])
        .await;
    let expected = "house: 299 discarded; behind them: 0 applied, 0 failed; 0 left\n";
    assert_eq!(
        (ended.code, &*ended.stdout),
        (Some(0), expected),
        "{ended:?}"
    );
    house.close().await;
    source.stop().await;
}
