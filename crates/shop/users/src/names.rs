//! The index of names, for searches: in memory, and nowhere else.
//!
//! Names are encrypted in `users.db`, so SQL cannot search them (ADR 14). At the start, the index
//! is built from all of them, a page at a time. After that it follows each registration and erasure:
//! the writes only say whose name to look at, and this task looks once they are committed, so the
//! index never has what was rolled back.
//!
//! The index has words and ids, and not the names themselves. An answer takes the names from its
//! snapshot of the database: a user who is erased there is not found, whatever the index has.

use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater::Database;
use headwater::database::{Snapshot, Tx};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _};
use sea_orm::DbErr;
use shop_events::search::STEPS_MAX;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::store;

/// The most names that are read in one snapshot, and indexed in one step, during which a search
/// waits: some milliseconds.
const AT_ONCE: usize = 1_000;

/// A search is checked each time after that many steps of SQLite's virtual machine.
const CHECKED_EVERY: u32 = 500;

/// The pause before the database is asked again after a failure.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

const SCHEMA: &str = "
    -- Users in the order in which the index met them. The row of an erased user stays.
    CREATE TABLE person (number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE);
    CREATE VIRTUAL TABLE names USING fts5 (
        name, content = '', contentless_delete = 1, prefix = '1 2 3',
        tokenize = \"unicode61 remove_diacritics 2\"
    );
    PRAGMA temp_store = MEMORY;";

/// Searches names. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Names(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    index: Mutex<Connection>,
    is_complete: AtomicBool,
    changed: UnboundedSender<Uuid>,
}

/// Users who registered or were erased.
pub(crate) type Changes = UnboundedReceiver<Uuid>;

/// A user, and the name if there is one.
type Named = (Uuid, Option<String>);

impl Names {
    /// An empty index, and the changes for [`follow`](Self::follow).
    ///
    /// # Errors
    /// SQLite cannot be opened.
    pub(crate) fn open() -> rusqlite::Result<(Self, Changes)> {
        let index = Connection::open_in_memory()?;
        index.execute_batch(SCHEMA)?;
        let (sender, changes) = unbounded_channel();
        let names = Self(Arc::new(Inner {
            index: Mutex::new(index),
            is_complete: AtomicBool::new(false),
            changed: sender,
        }));
        Ok((names, changes))
    }

    /// Has the user's name looked at after the transaction that changes it.
    pub(crate) fn note(&self, _in: &Tx, user: Uuid) {
        // Nobody receives it while the service stops.
        let _ = self.0.changed.send(user);
    }

    /// Whether all names are in the index.
    pub(crate) fn is_complete(&self) -> bool {
        self.0.is_complete.load(Ordering::Acquire)
    }

    /// At most `limit` users whose names have the `words`, a query of FTS5; the newest first, after
    /// the user `start_after`. `None` if that takes more than [`STEPS_MAX`]: other searches wait
    /// meanwhile.
    pub(crate) fn find(
        &self,
        words: &str,
        start_after: Option<Uuid>,
        limit: usize,
    ) -> rusqlite::Result<Option<Vec<Uuid>>> {
        let index = self.index();
        let mut checks_left = STEPS_MAX / CHECKED_EVERY;
        let is_over = move || {
            let is_over = checks_left == 0;
            checks_left = checks_left.saturating_sub(1);
            is_over
        };
        let every = i32::try_from(CHECKED_EVERY).expect("a small constant");
        index.progress_handler(every, Some(is_over))?;
        let found = find(&index, words, start_after, limit);
        index.progress_handler(0, None::<fn() -> bool>)?;
        match found {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                Ok(None)
            }
            found => found.map(Some),
        }
    }

    /// Indexes all names, and then the changes, until `stop`: a task of the service.
    ///
    /// # Errors
    /// The index is out of memory or broken.
    pub(crate) async fn follow(
        self,
        db: Database,
        mut changes: Changes,
        stop: CancellationToken,
    ) -> rusqlite::Result<()> {
        let follow = async {
            let mut after = None;
            while let Some(last) = self.index_page(&db, after).await? {
                after = Some(last);
            }
            self.0.is_complete.store(true, Ordering::Release);
            let mut users = Vec::new();
            while changes.recv_many(&mut users, AT_ONCE).await > 0 {
                let some = users.drain(..).collect();
                self.index_changed(&db, some).await?;
            }
            Ok(())
        };
        stop.run_until_cancelled(follow).await.unwrap_or(Ok(()))
    }

    /// Indexes the names of the next users after `after`; returns the last of them.
    async fn index_page(
        &self,
        db: &Database,
        after: Option<Uuid>,
    ) -> rusqlite::Result<Option<Uuid>> {
        let page = read(db, move |snapshot| store::names(snapshot, after, AT_ONCE)).await;
        let last = page.last().map(|(user, _)| *user);
        self.index_all(page).await?;
        Ok(last)
    }

    /// Indexes what `users` are called, once the writes before this one are committed.
    async fn index_changed(&self, db: &Database, users: BTreeSet<Uuid>) -> rusqlite::Result<()> {
        // Writes are committed in their order.
        while db.write(|_| Ok::<_, DbErr>(())).await.is_err() {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        let users: Arc<[Uuid]> = users.into_iter().collect();
        let page = read(db, move |snapshot| {
            let name = |user: &Uuid| {
                let found = store::find(snapshot, snapshot.keys(), *user)?;
                Ok((*user, found.map(|found| found.person.name)))
            };
            users
                .iter()
                .map(name)
                .collect::<Result<Vec<Named>, DbErr>>()
        });
        self.index_all(page.await).await
    }

    /// Indexes names, on a thread that may wait for a search and compute.
    async fn index_all(&self, page: Vec<Named>) -> rusqlite::Result<()> {
        let names = self.clone();
        match spawn_blocking(move || names.index_now(&page)).await {
            Ok(indexed) => indexed,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // The runtime ends.
            Err(_) => Ok(()),
        }
    }

    fn index_now(&self, page: &[Named]) -> rusqlite::Result<()> {
        let mut index = self.index();
        let tx = index.transaction()?;
        for (user, name) in page {
            let known = number_of(&tx, *user)?;
            let number = match (known, name) {
                (Some(number), _) => number,
                (None, None) => continue,
                (None, Some(_)) => {
                    tx.prepare_cached("INSERT INTO person (id) VALUES (?)")?
                        .execute([user.as_bytes()])?;
                    tx.last_insert_rowid()
                }
            };
            if known.is_some() {
                tx.prepare_cached("DELETE FROM names WHERE rowid = ?")?
                    .execute([number])?;
            }
            if let Some(name) = name {
                tx.prepare_cached("INSERT INTO names (rowid, name) VALUES (?, ?)")?
                    .execute((number, name))?;
            }
        }
        tx.commit()
    }

    fn index(&self) -> MutexGuard<'_, Connection> {
        self.0.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(
    index: &Connection,
    words: &str,
    start_after: Option<Uuid>,
    limit: usize,
) -> rusqlite::Result<Vec<Uuid>> {
    let before = match start_after {
        Some(user) => number_of(index, user)?.unwrap_or(0),
        None => i64::MAX,
    };
    let mut find = index.prepare_cached(
        "SELECT id FROM names CROSS JOIN person ON number = names.rowid
         WHERE names MATCH ?1 AND names.rowid < ?2 ORDER BY names.rowid DESC LIMIT ?3",
    )?;
    let found = find.query_map((words, before, limit), |row| {
        row.get(0).map(Uuid::from_bytes)
    })?;
    found.collect()
}

fn number_of(index: &Connection, user: Uuid) -> rusqlite::Result<Option<i64>> {
    index
        .prepare_cached("SELECT number FROM person WHERE id = ?")?
        .query_row([user.as_bytes()], |row| row.get(0))
        .optional()
}

/// Reads names, again after a failure: until the database answers, or the service stops.
async fn read<F>(db: &Database, read: F) -> Vec<Named>
where
    F: Fn(&Snapshot) -> Result<Vec<Named>, DbErr> + Clone + Send + 'static,
{
    loop {
        let read = read.clone();
        match db.read(move |snapshot| read(snapshot)).await {
            Ok(page) => return page,
            Err(error) => tracing::warn!(%error, "cannot read names for the index; retrying"),
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

#[cfg(test)]
mod tests {
    use headwater::Clock;
    use headwater::database::Config;
    use headwater_testkit::eventually;
    use shop_events::{UserSearchAnswered, UserSearchAsked};
    use tempfile::TempDir;

    use super::*;
    use crate::user::Person;
    use crate::{MIGRATIONS, NAME, inquiry};

    /// A database, its index, and the task that keeps it.
    struct Users {
        db: Database,
        names: Names,
        stop: CancellationToken,
        following: tokio::task::JoinHandle<rusqlite::Result<()>>,
        _folder: TempDir,
    }

    async fn open() -> (Database, TempDir) {
        let folder = TempDir::new().unwrap();
        let config = Config::at(folder.path().join("users.db"));
        let db = Database::open_with_personal_data(NAME, &config, MIGRATIONS, Clock::system());
        (db.await.unwrap(), folder)
    }

    #[expect(clippy::disallowed_methods, reason = "a test has no supervisor")]
    fn follow((db, folder): (Database, TempDir)) -> Users {
        let (names, changes) = Names::open().unwrap();
        let stop = CancellationToken::new();
        let task = names.clone().follow(db.clone(), changes, stop.clone());
        Users {
            db,
            names,
            stop,
            following: tokio::spawn(task),
            _folder: folder,
        }
    }

    fn insert(tx: &Tx, id: Uuid, name: &str) -> Result<(), DbErr> {
        let person = Person {
            name: name.to_owned(),
            email: String::new(),
            password_hash: None,
        };
        store::insert(tx, id, person, 0, b"", 1).map(drop)
    }

    impl Users {
        async fn register(&self, id: u128, name: &'static str) {
            let (id, names) = (Uuid::from_u128(id), self.names.clone());
            let written = self.db.write(move |tx| {
                insert(tx, id, name)?;
                names.note(tx, id);
                Ok::<_, DbErr>(())
            });
            written.await.unwrap();
        }

        async fn erase(&self, id: u128) {
            let (id, names) = (Uuid::from_u128(id), self.names.clone());
            let written = self.db.write(move |tx| {
                let row = store::find_encrypted(tx, id)?.unwrap();
                store::erase(tx, &row, 2)?;
                names.note(tx, id);
                Ok::<_, DbErr>(())
            });
            written.await.unwrap();
        }

        async fn ask(&self, text: &str, start_after: &str) -> UserSearchAnswered {
            let asked = UserSearchAsked {
                text: text.to_owned(),
                start_after: start_after.to_owned(),
                limit: 2,
            };
            let names = self.names.clone();
            let answer = self
                .db
                .read(move |snapshot| inquiry::search(&names, snapshot, &asked));
            answer.await.unwrap()
        }

        /// The names of a page, the next page's beginning, and whether the index is complete.
        async fn page(&self, text: &str, start_after: &str) -> (Vec<String>, String, bool) {
            let answer = self.ask(text, start_after).await;
            let found = answer.users.into_iter().map(|user| user.name);
            (found.collect(), answer.next, answer.is_complete)
        }

        async fn found(&self, text: &str) -> Vec<String> {
            let (mut all, mut next) = (Vec::new(), String::new());
            loop {
                let (page, after, _) = self.page(text, &next).await;
                assert!(page.len() <= 2);
                all.extend(page);
                next = after;
                if next.is_empty() {
                    return all;
                }
            }
        }

        async fn wait_for(&self, text: &str, expected: &[&str]) {
            eventually("the names", || async {
                let found = self.found(text).await;
                if found == expected {
                    return Ok(());
                }
                Err(format!("{found:?}"))
            })
            .await;
        }

        async fn end(self) {
            self.stop.cancel();
            self.following.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_name_is_found_by_its_words_also_in_part_and_without_accents() {
        let users = follow(open().await);
        users.register(1, "Zoë Müller-Lüdenscheidt").await;
        users.register(2, "Ada Lovelace").await;
        users.register(3, "Adam Müller").await;
        users.register(4, "עדה לבלייס").await;
        users
            .wait_for("muller", &["Adam Müller", "Zoë Müller-Lüdenscheidt"])
            .await;
        users.wait_for("עדה", &["עדה לבלייס"]).await;
        assert_eq!(users.found("ADA").await, ["Adam Müller", "Ada Lovelace"]);
        assert_eq!(users.found("lud zoe").await, ["Zoë Müller-Lüdenscheidt"]);
        assert_eq!(users.found("müller-lüd").await, ["Zoë Müller-Lüdenscheidt"]);
        assert_eq!(users.found("ada OR zoe").await, [""; 0], "no syntax");
        users.end().await;
    }

    #[tokio::test]
    async fn an_erased_user_is_not_found_from_the_commit_on() {
        let users = follow(open().await);
        for id in 1..=9 {
            users.register(id, "Ada").await;
        }
        users.wait_for("ada", &["Ada"; 9]).await;
        for id in [9, 5, 4, 3, 1] {
            users.erase(id).await;
        }
        assert_eq!(users.found("ada").await, ["Ada"; 4], "without waiting");
        let left = || users.names.find("ada", None, 100).unwrap().unwrap().len();
        eventually("the index", || async {
            if left() == 4 {
                Ok(())
            } else {
                Err(left().to_string())
            }
        })
        .await;
        users.end().await;
    }

    #[tokio::test]
    async fn a_registration_that_is_rolled_back_is_not_indexed() {
        let users = follow(open().await);
        let names = users.names.clone();
        let refused = users.db.write(move |tx| {
            insert(tx, Uuid::from_u128(1), "Ada")?;
            names.note(tx, Uuid::from_u128(1));
            Err::<(), _>(DbErr::Custom("no".to_owned()))
        });
        assert!(refused.await.is_err());
        users.register(2, "Bob").await;
        users.wait_for("bob", &["Bob"]).await;
        assert_eq!(users.names.find("ada", None, 9).unwrap(), Some(vec![]));
        users.end().await;
    }

    #[tokio::test]
    async fn indexing_does_not_hold_up_the_runtime() {
        let (names, _changes) = Names::open().unwrap();
        let searching = names.index();
        let some = vec![(Uuid::from_u128(1), Some("Ada".to_owned()))];
        // One thread runs both: the second has its turn if the first does not wait on it.
        let (indexed, ()) = tokio::join!(names.index_all(some), async move { drop(searching) });
        indexed.unwrap();
        assert_eq!(names.find("ada", None, 9).unwrap().unwrap().len(), 1);
    }

    /// The memory of the index, in KiB.
    fn memory(names: &Names) -> u64 {
        let index = names.index();
        let pragma = |name| index.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
        pragma("page_count").unwrap() * pragma("page_size").unwrap() / 1024
    }

    /// Prints what the index costs: `cargo test -p users 100_000 -- --nocapture`.
    #[tokio::test]
    #[expect(clippy::print_stdout, reason = "the figure in ADR 14")]
    async fn the_names_of_100_000_users_are_indexed_at_the_start() {
        const USERS: u128 = 100_000;
        const FIRST: [&str; 8] = [
            "Ada", "Bo", "Chloé", "Dmitri", "Ève", "Faruk", "Grace", "Hui",
        ];
        let (db, folder) = open().await;
        for page in 0..20 {
            let written = db.write(move |tx| {
                (page * USERS / 20..(page + 1) * USERS / 20).try_for_each(|id| {
                    let (first, family) = (FIRST[(id % 8) as usize], id / 8);
                    let name = format!("{first} Family{family} of Town{}", id % 1_000);
                    insert(tx, Uuid::from_u128(id + 1), &name)
                })
            });
            written.await.unwrap();
        }
        let began = std::time::Instant::now();
        let users = follow((db, folder));
        eventually("the index", || async {
            if users.page("grace", "").await.2 {
                Ok(())
            } else {
                Err("not complete".to_owned())
            }
        })
        .await;
        let (took, memory) = (began.elapsed(), memory(&users.names));
        println!("{USERS} names: {took:?}, {memory} KiB");
        assert!(memory < 24 * 1024, "{memory} KiB");

        let exact = users.found("family4711 grace").await;
        assert_eq!(exact, ["Grace Family4711 of Town694"]);
        assert_eq!(users.found("family12499 town").await.len(), 8);
        assert_eq!(users.found("town694").await.len(), 100);
        assert_eq!(users.found("chloe family1249").await.len(), 11);
        let all = find(&users.names.index(), "\"e\"*", None, usize::MAX >> 1).unwrap();
        assert_eq!(all.len(), 12_500, "Ève");

        // Every name has the word, and no name has it twice: FTS5 looks through all of them 66 times.
        let hostile = users.ask(&"of-".repeat(66), "").await;
        assert!(hostile.is_too_broad && hostile.users.is_empty());
        let honest = users.ask("of town694", "").await;
        assert!(!honest.is_too_broad && honest.users.len() == 2);
        users.end().await;
    }
}
