//! Backups that a service makes of its own database, on an operator's request.

use std::fs::{self, File};
use std::path::PathBuf;

use broker::Broker;
use headwater::backup::{self, Facts, RestoreTarget};
use headwater::database;
use headwater::{Bus, Clock, Database};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{MIGRATIONS, Tasks, append, broker, bus, eventually, folder, open, reads};

/// A service that answers operators.
struct Service {
    tasks: Tasks,
    db: Database,
    bus: Bus,
    _broker: Broker,
    folder: TempDir,
}

impl Service {
    async fn start() -> Self {
        Self::of("sensors").await
    }

    async fn of(owner: &'static str) -> Self {
        let folder = folder();
        let db = open(&folder, owner).await;
        Self::over(folder, db).await
    }

    async fn over(folder: TempDir, db: Database) -> Self {
        let broker = broker();
        let bus = bus(&broker, db.owner()).await;
        let mut tasks = Tasks::none();
        tasks.operator(&db, &bus);
        let service = Self {
            tasks,
            db,
            bus,
            _broker: broker,
            folder,
        };
        eventually("the admin endpoints answer", async || {
            service.ask("status").await
        })
        .await;
        service
    }

    /// The answer of an endpoint, or its refusal with the code before it.
    async fn ask(&self, endpoint: &str) -> Result<Value, String> {
        let subject = format!("headwater.{}.{endpoint}", self.db.owner());
        let answer = self.bus.client().request(subject, "{}".into()).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let header = |name| answer.headers.as_ref()?.get(name).map(ToString::to_string);
        match header("Nats-Service-Error") {
            Some(why) => {
                let code = header("Nats-Service-Error-Code").unwrap();
                Err(format!("{code} {why}"))
            }
            None => Ok(serde_json::from_slice(&answer.payload).unwrap()),
        }
    }

    /// The status, once it has this state.
    async fn eventually(&self, state: &str) -> Value {
        eventually(&format!("a backup that is {state}"), async || {
            let status = self.ask("backup.status").await?;
            if status["state"] == state {
                Ok(status)
            } else {
                Err(status.to_string())
            }
        })
        .await
    }

    fn copies(&self) -> PathBuf {
        self.folder.path().join("backups")
    }

    /// The copies and their digests.
    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.copies()).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// Locks what another backup to the same folder would lock.
    fn another_backup(&self) -> File {
        fs::create_dir_all(self.copies()).unwrap();
        let part = File::create(self.copies().join(format!(".{}.part", self.db.owner()))).unwrap();
        part.lock().unwrap();
        part
    }
}

#[tokio::test]
async fn a_service_copies_its_database_on_request_and_the_copy_can_be_restored() {
    let service = Service::start().await;
    append(&service.db, reads(1..=5)).await;
    let idle = service.ask("backup.status").await.unwrap();
    let copies = service.copies().display().to_string();
    let expected = json!({"state": "idle", "since": null, "copied": 0, "total": 0, "folder": copies, "keep": 7});
    assert_eq!(idle, expected);
    assert!(!service.copies().exists(), "nothing was done");

    let begun = service.ask("backup").await.unwrap();
    assert!(begun["since"].is_i64(), "{begun}");
    let status = service.eventually("done").await;
    append(&service.db, reads(6..=9)).await;
    let copy = &status["copy"];
    assert_eq!(status["copied"], status["total"]);
    assert_eq!(copy["bytes"], status["total"], "{status}");
    assert_eq!(
        (&copy["position"], &copy["removed"]),
        (&json!(5), &json!([]))
    );
    assert_eq!(copy["epoch"], *service.db.epoch());
    let file = PathBuf::from(copy["file"].as_str().unwrap());
    assert_eq!(service.files()[0], file);
    let digest = fs::read_to_string(&service.files()[1]).unwrap();
    assert!(digest.starts_with(copy["sha256"].as_str().unwrap()));
    assert!(backup::check_digest(&file).unwrap());
    assert!(backup::newest(&service.db.path()).is_some());

    let restored = folder();
    let path = restored.path().join("sensors.db");
    let target = RestoreTarget::take(&path).unwrap();
    target.put(&file, false, &Clock::system()).unwrap();
    let (now, then) = (
        Facts::of(&service.db.path()).unwrap(),
        Facts::of(&path).unwrap(),
    );
    assert_eq!((now.head, then.head), (9, 5));
    assert_eq!((now.epoch, now.owner), (then.epoch, then.owner));
    assert_eq!(backup::common(&file, &service.db.path()).unwrap(), 5);
    service.tasks.stop().await;
}

#[tokio::test]
async fn a_second_backup_is_refused_and_the_first_can_be_stopped() {
    let service = Service::start().await;
    append(&service.db, reads(1..=5)).await;
    let another = service.another_backup();
    service.ask("backup").await.unwrap();
    assert_eq!(service.eventually("waiting").await["copied"], 0);
    let refused = service.ask("backup").await.unwrap_err();
    assert!(
        refused.starts_with("409 ") && refused.contains("`backup.stop` ends it"),
        "{refused}"
    );
    service.ask("backup.stop").await.unwrap();
    let status = service.eventually("failed").await;
    assert_eq!(status["message"], "an operator stopped it", "{status}");
    assert_eq!(service.files().len(), 1, "that of the other backup");

    drop(another);
    service.ask("backup").await.unwrap();
    service.eventually("done").await;
    let files = service.files();
    assert_eq!(files.len(), 2, "a copy and its digest: {files:?}");
    let after = service.ask("backup.stop").await.unwrap();
    assert_eq!(after["state"], "done", "there is nothing to stop");
    service.tasks.stop().await;
}

#[tokio::test]
async fn a_service_keeps_its_newest_copies_only() {
    let folder = folder();
    let config = database::Config {
        backups: Some(folder.path().join("elsewhere")),
        backups_keep: 1,
        ..database::Config::at(folder.path().join("sensors.db"))
    };
    let db = Database::open("sensors", &config, MIGRATIONS, Clock::system());
    let db = db.await.unwrap();
    let service = Service::over(folder, db).await;
    let mut copies = Vec::new();
    for _ in 0..2 {
        service.ask("backup").await.unwrap();
        copies.push(service.eventually("done").await["copy"].clone());
    }
    assert_eq!(copies[1]["removed"], json!([copies[0]["file"]]));
    let folder = config.backups();
    let there = fs::read_dir(folder).unwrap().count();
    assert_eq!(there, 2, "one copy with its digest");
    service.tasks.stop().await;
}

#[tokio::test]
async fn a_backup_that_fails_says_why_and_another_can_be_started() {
    let service = Service::start().await;
    fs::write(service.copies(), "no folder").unwrap();
    service.ask("backup").await.unwrap();
    let status = service.eventually("failed").await;
    let why = status["message"].as_str().unwrap();
    assert!(
        why.contains(&service.copies().display().to_string()),
        "{status}"
    );
    fs::remove_file(service.copies()).unwrap();
    service.ask("backup").await.unwrap();
    let status = service.eventually("done").await;
    assert!(status.get("message").is_none(), "{status}");
    service.tasks.stop().await;
}

#[tokio::test]
async fn a_read_store_is_rebuilt_instead() {
    let folder = folder();
    let config = database::Config::at(folder.path().join("house.db"));
    let db = Database::open_copy("house", &config, MIGRATIONS, Clock::system());
    let service = Service::over(folder, db.await.unwrap()).await;
    for endpoint in ["backup", "backup.status", "backup.stop"] {
        let refused = service.ask(endpoint).await.unwrap_err();
        let is_said = refused.contains("`headwater rebuild house`");
        assert!(refused.starts_with("400 ") && is_said, "{refused}");
    }
    let status = service.ask("status").await.unwrap();
    assert!(status.get("can_back_up").is_none(), "{status}");
    assert!(!service.copies().exists());
    service.tasks.stop().await;
}

/// While the copy waits for another backup, which never ends.
#[tokio::test]
async fn the_end_of_a_service_ends_its_backup() {
    let is_running = || {
        let threads = fs::read_dir("/proc/self/task").unwrap();
        let mut names = threads.map(|thread| {
            let name = thread.unwrap().path().join("comm");
            fs::read_to_string(name).unwrap_or_default()
        });
        names.any(|name| name == "backup-attic\n")
    };
    let service = Service::of("attic").await;
    let _another = service.another_backup();
    service.ask("backup").await.unwrap();
    service.eventually("waiting").await;
    assert!(is_running());
    service.tasks.stop().await;
    assert!(!is_running());
}
