//! Erasure reaches every byte. No name, e-mail address, password hash or idempotency key of any
//! user is readable in any file, log or stream, and the keys of erased users are destroyed.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::client::{send, try_send};
use e2e::data::Random;
use e2e::faults::dose;
use e2e::load::{Customers, Mix};
use e2e::{Client, Reply, Service, World, eventually};
use futures_util::{StreamExt as _, stream};
use reqwest::Method;
use rusqlite::{Connection, params};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use Service::{Orders, Purchases, Users};

/// How many people register, times the dose; every fourth is erased.
const PEOPLE: usize = 1_000;

/// One of this many people has a password, because hashing is slow.
const WITH_PASSWORD: usize = 30;

/// Concurrent requests.
const AT_ONCE: usize = 16;

/// Letters of a random text, and of the parts of it that are searched for.
const LETTERS: usize = 20;
const PART: usize = 8;

/// Where the slots of the key file begin, and the length of each.
const HEADER: usize = 4096;
const KEY: usize = 32;

#[derive(Debug, Clone)]
struct Person {
    id: Uuid,
    name: String,
    email: String,
    key: String,
    password: Option<String>,
    is_erased: bool,
}

impl Person {
    fn random(number: usize, random: &mut Random) -> Self {
        let mut text = || -> String {
            let letter = |_| char::from(b'a' + u8::try_from(random.below(26)).unwrap());
            (0..LETTERS).map(letter).collect()
        };
        Self {
            id: Uuid::now_v7(),
            name: text(),
            email: format!("{}@example.com", text()),
            key: text(),
            password: number.is_multiple_of(WITH_PASSWORD).then(text),
            is_erased: number % 4 == 1,
        }
    }

    async fn register(&self, users: &Client) -> Reply {
        let mut body = json!({ "id": self.id, "name": self.name, "email": self.email });
        if let Some(password) = &self.password {
            body["password"] = json!(password);
        }
        let request = || {
            let request = users.request(Method::POST, "/users");
            request.header("idempotency-key", &self.key).json(&body)
        };
        eventually("an answer to a registration", || async {
            match try_send(request()).await {
                Ok(reply) if [429, 503].contains(&reply.status.as_u16()) => Err(reply.text),
                Ok(reply) => Ok(reply),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    async fn erase(&self, users: &Client) {
        eventually("an answer to an erasure", || async {
            match try_send(users.request(Method::DELETE, &self.path())).await {
                Ok(reply) if reply.status == 204 => Ok(()),
                Ok(reply) => Err(format!("{} {}", reply.status, reply.text)),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// Asserts that the person is shown, or not found once erased.
    async fn is_shown_rightly(&self, users: &Client) {
        let reply = users.get(&self.path()).await;
        if self.is_erased {
            assert_eq!(reply.status, 404, "{self:?}: {}", reply.text);
        } else {
            assert_eq!(reply.json["name"], self.name, "{}", reply.text);
            assert_eq!(reply.json["email"], self.email, "{}", reply.text);
        }
    }

    fn path(&self) -> String {
        format!("/users/{}", self.id)
    }
}

/// Runs `each` for all people, some of them concurrently.
async fn for_all<F: Future<Output = ()>>(
    people: impl IntoIterator<Item = &Person>,
    each: impl Fn(Person) -> F,
) {
    stream::iter(people.into_iter().cloned())
        .for_each_concurrent(AT_ONCE, each)
        .await;
}

/// The texts to search for.
struct Needles {
    parts: HashSet<[u8; PART]>,
    /// Whether some part begins with these three bytes. Nearly nowhere does one, so this check must
    /// be fast.
    heads: Vec<bool>,
}

/// The last three bytes, as a number.
const HEAD: usize = 0xff_ffff;

impl Needles {
    /// Several parts of each text: a leftover may lack its beginning or its end.
    fn of(people: &[Person]) -> Self {
        let texts = people
            .iter()
            .flat_map(|person| [&person.name, &person.email, &person.key]);
        let parts = texts.flat_map(|text| {
            let text = text.as_bytes()[..LETTERS].to_vec();
            [0, 6, 12].map(|at| text[at..at + PART].try_into().unwrap())
        });
        let hash = b"$argon2i".to_owned();
        let parts: HashSet<_> = parts.chain([hash]).collect();
        let mut heads = vec![false; HEAD + 1];
        for part in &parts {
            let number = |head, byte: &u8| head << 8 | usize::from(*byte);
            heads[part[..3].iter().fold(0, number)] = true;
        }
        Self { parts, heads }
    }

    /// The parts that occur in files below `folder`.
    fn found_below(&self, folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            // A file may be removed during the search.
            if path.is_dir() {
                found.extend(self.found_below(&path));
            } else if let Ok(bytes) = fs::read(&path)
                && let Some(part) = self.find(&bytes)
            {
                let part = String::from_utf8_lossy(part);
                found.push(format!("{part} in {}", path.display()));
            }
        }
        found
    }

    fn find<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let mut head = 0;
        for (end, byte) in bytes.iter().enumerate() {
            head = (head << 8 | usize::from(*byte)) & HEAD;
            if self.heads[head]
                && let Some(from) = end.checked_sub(2)
                && let Some(part) = bytes.get(from..from + PART)
                && self.parts.contains(part)
            {
                return Some(part);
            }
        }
        None
    }

    #[track_caller]
    fn assert_nowhere(&self, folder: &Path, when: &str) {
        let found = self.found_below(folder);
        assert!(found.is_empty(), "{when}: {found:?}");
    }
}

/// Pages of `purchases` ask for names, and for people by name.
async fn look_at_pages(world: &World, people: &[Person]) {
    let pages = world.client(Purchases);
    let (shown, name) = (&people[0], &people[0].name);
    assert!(!shown.is_erased);
    for path in [shown.path(), format!("/?q={name}"), "/".to_owned()] {
        eventually("a page with names", || async {
            let page = pages.get(&path).await;
            let found = page.status == 200 && (path == "/" || page.text.contains(name));
            found.then_some(()).ok_or(page.text)
        })
        .await;
    }
}

fn key_file(world: &World) -> PathBuf {
    world.database(Users).with_extension("keys")
}

/// Copies a database that is not in use, with its WAL.
fn copy_database(from: &Path, to: &Path) {
    for part in ["db", "db-wal"] {
        if let Err(error) = fs::copy(from.with_extension(part), to.with_extension(part)) {
            assert!(part == "db-wal", "{error}");
        }
    }
}

/// The slots of all users in a database.
fn slots(database: &Path) -> BTreeMap<Uuid, usize> {
    let database = Connection::open(database).unwrap();
    let mut rows = database.prepare("SELECT id, key_slot FROM user").unwrap();
    let slot = |row: &rusqlite::Row<'_>| Ok((Uuid::from_bytes(row.get(0)?), row.get(1)?));
    rows.query_map([], slot)
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

/// The slots among `slots` whose keys are destroyed.
fn destroyed(world: &World, slots: impl IntoIterator<Item = usize>) -> usize {
    let bytes = fs::read(key_file(world)).unwrap();
    let key = |slot: usize| &bytes[HEADER + slot * KEY..][..KEY];
    let slots = slots.into_iter();
    slots.filter(|slot| *key(*slot) == [0; KEY]).count()
}

/// Waits until exactly the keys of the erased users are destroyed.
async fn keys_are_destroyed(world: &World, people: &[Person], slots: &BTreeMap<Uuid, usize>) {
    let of = |is_erased| {
        let people = people.iter().filter(move |it| it.is_erased == is_erased);
        people.map(|person| slots[&person.id])
    };
    let all = of(true).count();
    eventually("the keys of the erased to be destroyed", || async {
        let now = destroyed(world, of(true));
        (now == all).then_some(()).ok_or(format!("{now} of {all}"))
    })
    .await;
    assert_eq!(
        destroyed(world, of(false)),
        0,
        "a key of a user who was not erased"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_erased_people_no_byte_is_in_any_file_under_load_idle_killed_stopped_or_backed_up() {
    let mut world = World::start().await;
    let mut random = Random(14);
    let people: Vec<_> = (0..dose(PEOPLE))
        .map(|number| Person::random(number, &mut random))
        .collect();
    let needles = Needles::of(&people);
    let users = world.client(Users);
    for_all(&people, async |person| {
        let reply = person.register(&users).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
    })
    .await;
    look_at_pages(&world, &people).await;
    let copy = tempfile::tempdir().unwrap();
    let backup = copy.path().join("users.db");
    // With all leftovers, as SQLite's `.backup` copies them; there are no writes now.
    copy_database(&world.database(Users), &backup);
    let slots = slots(&backup);
    assert!(slots.len() >= people.len());
    needles.assert_nowhere(copy.path(), "in a copy made before");

    // A quarter of the people is erased while orders are placed; the service is killed half-way.
    let customers = Customers::of(&world).await;
    let load = customers.begin(Mix::on(&[Orders]));
    let erased: Vec<_> = people.iter().filter(|person| person.is_erased).collect();
    let done = AtomicUsize::new(0);
    let erasing = for_all(erased.iter().copied(), async |person| {
        person.erase(&users).await;
        done.fetch_add(1, Ordering::Relaxed);
    });
    let killing = async {
        eventually("half of them to be erased", || async {
            let now = done.load(Ordering::Relaxed);
            (now >= erased.len() / 2).then_some(()).ok_or(now)
        })
        .await;
        world.kill(Users).await;
        needles.assert_nowhere(world.folder(), "after kill -9");
        world.run(Users).await;
    };
    tokio::join!(erasing, killing);
    customers.more(Orders, 10).await;
    keys_are_destroyed(&world, &people, &slots).await;
    needles.assert_nowhere(world.folder(), "under load");
    load.end().await;
    look_at_pages(&world, &people).await;
    needles.assert_nowhere(world.folder(), "idle");

    for_all(&people, async |person| {
        person.is_shown_rightly(&users).await;
    })
    .await;
    for person in people.iter().take(8) {
        let again = person.register(&users).await;
        let expected = if person.is_erased { 410 } else { 201 };
        assert_eq!(again.status, expected, "{}", again.text);
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", world.process(Users).pid()));
    if let Ok(limits) = limits {
        let core = limits.lines().find(|line| line.contains("core file size"));
        let soft = core.unwrap().split_whitespace().nth(4).unwrap();
        assert!(["0", "1"].contains(&soft), "no core dump: {limits}");
    }
    let (folder, database, keys) = (
        world.folder().to_owned(),
        world.database(Users),
        key_file(&world),
    );
    assert!(keys.exists());
    world.stop(Users).await;
    needles.assert_nowhere(&folder, "after an orderly stop");

    // A restored old copy has the rows of all users, but only those who were not erased are
    // readable.
    copy_database(&backup, &database);
    world.run(Users).await;
    let users = world.client(Users);
    for_all(&people, async |person| {
        person.is_shown_rightly(&users).await;
    })
    .await;
    let erased = erased[0];
    let mut body = json!({ "id": erased.id, "name": "Ada", "email": "ada@example.com" });
    let again = users.post("/users", &body).await;
    assert_eq!(again.status, 409, "{}", again.text);
    let late = erased.register(&users).await;
    assert_eq!(late.status, 410, "{}", late.text);
    // An erased user's e-mail address is free again.
    let with_login = people
        .iter()
        .find(|person| person.is_erased && person.password.is_some());
    if let Some(with_login) = with_login {
        body = json!({ "name": "Ada", "email": with_login.email, "password": "correct horse" });
        users.create("/users", &body).await;
    }
    erased.erase(&users).await;
    needles.assert_nowhere(world.folder(), "in the copy that was put back");
    world.abandon();
}

/// The service dies at `point` during an erasure; the next start completes it.
async fn erasure_dies_at(point: &'static str) {
    let mut world = World::anywhere().of_services(&[Users]).start().await;
    let mut random = Random(15);
    let mut people: Vec<_> = (0..4)
        .map(|number| Person::random(number, &mut random))
        .collect();
    for (number, person) in people.iter_mut().enumerate() {
        person.is_erased = number == 2;
    }
    for person in &people {
        person.register(&world.client(Users)).await;
    }
    let slots = slots(&world.database(Users));
    world.kill(Users).await;
    let dies = move |command: &mut std::process::Command| {
        command.env("HEADWATER_CRASH", point);
    };
    world.run_with(Users, dies).await;
    let erased = send(
        world
            .client(Users)
            .request(Method::DELETE, &people[2].path()),
    );
    assert_eq!(erased.await.status, 204);
    let mut process = world.ended(Users).await;
    assert!(process.crashed(), "{}", process.log());
    Needles::of(&people).assert_nowhere(world.folder(), "after it died");
    world.run(Users).await;
    keys_are_destroyed(&world, &people, &slots).await;
    for person in &people {
        person.is_shown_rightly(&world.client(Users)).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_dies_after_its_commit_is_completed() {
    erasure_dies_at("erasure.committed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_dies_after_the_key_was_overwritten_is_completed() {
    erasure_dies_at("erasure.overwritten").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_of_every_level_have_nothing_of_a_person() {
    let mut world = World::start().await;
    world.kill(Users).await;
    let everything = |command: &mut std::process::Command| {
        command.env("RUST_LOG", "trace");
    };
    world.run_with(Users, everything).await;
    world.kill(Purchases).await;
    world.run_with(Purchases, everything).await;
    let users = world.client(Users);
    let mut random = Random(18);
    let mut people: Vec<_> = (0..4)
        .map(|number| Person::random(number, &mut random))
        .collect();
    let person = people[0].clone();
    for expected in [201, 201] {
        let reply = person.register(&users).await;
        assert_eq!(reply.status, expected, "{}", reply.text);
    }
    let Person { name, email, .. } = &people[1];
    let with_key = |body: String| {
        let request = users.request(Method::POST, "/users");
        let request = request.header("idempotency-key", &person.key);
        send(
            request
                .header("content-type", "application/json")
                .body(body),
        )
    };
    for body in [
        json!({ "name": name, "email": email }).to_string(),
        json!({ "name": name, "email": email, "password": name, "id": person.id }).to_string(),
        json!({ "name": name, "email": name }).to_string(),
        json!({ "name": [name], "email": email }).to_string(),
        json!({ "name": name, "email": email, "id": name }).to_string(),
        json!({ name: name, "email": email }).to_string(),
        format!(r#"{{"name": "{name}", "email": "{email}" {name}"#),
    ] {
        let refused = with_key(body).await;
        assert!(refused.status.is_client_error(), "{}", refused.text);
    }
    people[0].is_shown_rightly(&users).await;
    look_at_pages(&world, &people).await;
    people[0].is_erased = true;
    person.erase(&users).await;
    people[0].is_shown_rightly(&users).await;
    let late = person.register(&users).await;
    assert_eq!(late.status, 410, "{}", late.text);
    let log = world.log(Users);
    assert!(log.contains("INSERT INTO headwater_idempotency"));
    Needles::of(&people).assert_nowhere(world.folder(), "at level trace");
    world.finish().await;
}

/// The erasure is right before an orderly stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_destroyed_before_an_orderly_stop_ends() {
    let mut world = World::start().await;
    let person = Person::random(1, &mut Random(16));
    person.register(&world.client(Users)).await;
    let slots = slots(&world.database(Users));
    person.erase(&world.client(Users)).await;
    world.stop(Users).await;
    assert_eq!(destroyed(&world, slots.into_values()), 1);
    world.run(Users).await;
    world.finish().await;
}

/// A database of the version before encryption, with some users erased: names, addresses and keys
/// are in clear text, also in pages of trees that were split and merged.
fn old_database(path: &Path, people: &[Person]) {
    let file = Connection::open(path).unwrap();
    file.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA secure_delete = ON; BEGIN;
         CREATE TABLE headwater_migration (name TEXT PRIMARY KEY, checksum TEXT NOT NULL) WITHOUT ROWID",
    )
    .unwrap();
    for (name, sql) in [
        (
            "0001_chassis",
            include_str!("../../crates/chassis/store/migrations/0001_chassis.sql"),
        ),
        (
            "0002_operators",
            include_str!("../../crates/chassis/store/migrations/0002_operators.sql"),
        ),
        (
            "0003_pause",
            include_str!("../../crates/chassis/store/migrations/0003_pause.sql"),
        ),
        (
            "0004_epochs",
            include_str!("../../crates/chassis/store/migrations/0004_epochs.sql"),
        ),
        (
            "0005_relay",
            include_str!("../../crates/chassis/store/migrations/0005_relay.sql"),
        ),
        (
            "0001_users",
            include_str!("../../crates/shop/users/migrations/0001_users.sql"),
        ),
    ] {
        file.execute_batch(sql).unwrap();
        let digest = bytes::Bytes::copy_from_slice(&Sha256::digest(sql));
        let checksum = format!("{digest:x}");
        let applied = "INSERT INTO headwater_migration VALUES (?, ?)";
        file.execute(applied, [name, &checksum]).unwrap();
    }
    file.execute_batch("INSERT INTO headwater_database VALUES (1, 'users', 'old', 0)")
        .unwrap();
    for (person, position) in people.iter().zip(1..) {
        let id = person.id.to_string();
        let registered = shop_events::UserRegistered {
            user_id: id.clone(),
            registered_at: Some(shop_events::timestamp(0)),
        };
        file.execute(
            "INSERT INTO headwater_outbox VALUES (?, ?, ?, ?, NULL, 0)",
            params![
                position,
                headwater::subject_of(&registered),
                id,
                prost::Message::encode_to_vec(&registered)
            ],
        )
        .unwrap();
        let fingerprint = fingerprint(person);
        let hash = person.password.as_ref().map(|_| "$argon2id$of it");
        file.execute(
            "INSERT INTO user VALUES (?, ?, ?, ?, ?, 0, ?, ?)",
            params![
                person.id.as_bytes(),
                person.name,
                person.email,
                person.email,
                hash,
                fingerprint,
                position
            ],
        )
        .unwrap();
        let body = json!({ "id": id, "name": person.name, "email": person.email,
                           "registered_at": "1970-01-01T00:00:00Z" });
        let answer = json!({ "location": person.path(), "body": body.to_string(),
                             "position": { "source": "users", "position": position } });
        file.execute(
            "INSERT INTO headwater_idempotency VALUES ('POST /users', ?, ?, ?, ?, 0)",
            params![person.key, fingerprint, id, answer.to_string()],
        )
        .unwrap();
    }
    for (person, position) in people.iter().filter(|person| person.is_erased).zip(1..) {
        let id = person.id.as_bytes();
        file.execute("DELETE FROM user WHERE id = ?", [id]).unwrap();
        let erased = "INSERT INTO erased_user VALUES (?, ?)";
        file.execute(erased, params![id, position]).unwrap();
        file.execute(
            "UPDATE headwater_idempotency SET fingerprint = NULL, answer = NULL WHERE entity = ?",
            [person.id.to_string()],
        )
        .unwrap();
    }
    file.execute_batch("COMMIT").unwrap();
}

/// The fingerprint of a registration without a password.
fn fingerprint(person: &Person) -> Vec<u8> {
    let Person {
        id, name, email, ..
    } = person;
    let json = format!(r#"{{"id":"{id}","name":"{name}","email":"{email}","password_hash":null}}"#);
    Sha256::digest(json).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_clear_text_is_encrypted_at_the_start_that_may_die() {
    let mut world = World::anywhere().empty();
    let mut random = Random(17);
    let people: Vec<_> = (0..1_000)
        .map(|number| Person::random(number, &mut random))
        .collect();
    old_database(&world.database(Users), &people);
    let needles = Needles::of(&people);
    assert!(!needles.found_below(world.folder()).is_empty());
    let dies = |command: &mut std::process::Command| {
        command.env("HEADWATER_CRASH", "erasure.scrubbed");
    };
    let process = world.try_run_with(Users, dies).await;
    assert!(process.expect("it does not start").crashed());
    world.run(Users).await;
    world.in_touch().await;
    needles.assert_nowhere(world.folder(), "after the upgrade");
    let users = world.client(Users);
    for_all(&people, async |person| {
        person.is_shown_rightly(&users).await;
        let again = person.register(&users).await;
        match (person.is_erased, person.password.is_some()) {
            (true, _) => assert_eq!(again.status, 410, "{}", again.text),
            (false, false) => assert_eq!(again.status, 201, "{}", again.text),
            // The fingerprint in the old database is that of a registration without a password.
            (false, true) => assert_eq!(again.status, 422, "{}", again.text),
        }
    })
    .await;
    let taken = people
        .iter()
        .find(|person| person.password.is_some() && !person.is_erased)
        .unwrap();
    let body =
        json!({ "name": "Ada", "email": taken.email.to_uppercase(), "password": "correct horse" });
    let refused = users.post("/users", &body).await;
    assert_eq!(refused.status, 409, "{}", refused.text);
    needles.assert_nowhere(world.folder(), "after all of it");
    world.finish().await;
}
