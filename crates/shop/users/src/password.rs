//! Password hashes: argon2id, on separate threads behind a bounded and fair queue.
//!
//! A hash takes 19 MiB and tens of milliseconds of a core. That is its purpose, but must not take
//! the service down. So half of the cores compute hashes, at most [`THREADS_MAX`], each in memory
//! that its thread keeps. At most [`WAITING_MAX`] requests wait, and client addresses take turns.
//! If the queue is full, a request is answered with 429 and `Retry-After`.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use headwater::fair::Queue;
use headwater::idempotency::{Fingerprint, Key};
use rustix::process::setpriority_process;
use tokio::sync::oneshot;

/// The most hashing threads, each with 19 MiB from its first hash on.
const THREADS_MAX: usize = 2;

/// The threads' niceness, as in `nice`: they get about a tenth of a core that other threads want.
const NICENESS: i32 = 10;

/// The most requests that wait for a hashing thread.
const WAITING_MAX: usize = 64;

/// `Retry-After` of a refusal: by then a full queue is empty again.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The longest pause before a refusal, and at least half of it passes: clients that repeat their
/// requests at once cost little, and do not all come again at the same moment.
const REFUSAL_PAUSE: Duration = Duration::from_secs(3);

/// The most hashes kept for retries of registrations that were answered with 503.
const KEPT_MAX: usize = 1_000;

const HASHES: &str = "users_password_hashes_total";
const REFUSED: &str = "users_password_hashes_refused_total";
const WAITING: &str = "users_password_hashes_waiting";

/// Why a password was not hashed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoHash {
    #[error("too many passwords wait to be hashed; nothing was registered; try again")]
    QueueFull,
    /// The cause is in the log.
    #[error("the password could not be hashed")]
    Failed,
}

/// Hashes passwords. Cheap to clone; the threads end with the last clone.
///
/// Nothing here compares a password with a stored hash: registration must not reveal whether a
/// guess is right, neither by its answer nor by its duration.
#[derive(Debug, Clone)]
pub(crate) struct Passwords(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    jobs: Arc<Jobs>,
    kept: Mutex<VecDeque<KeptHash>>,
}

/// A command, and the hash that it could not store.
type KeptHash = ((Key, Fingerprint), String);

impl Passwords {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(crate) fn start() -> anyhow::Result<Self> {
        describe();
        let jobs = Arc::new(Jobs {
            waiting: Mutex::new(Some(Queue::new(WAITING_MAX))),
            changed: Condvar::new(),
        });
        let passwords = Self(Arc::new(Inner {
            jobs: Arc::clone(&jobs),
            kept: Mutex::default(),
        }));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        for number in 0..(cores / 2).clamp(1, THREADS_MAX) {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new()
                .name(format!("password-{number}"))
                .spawn(move || jobs.work())
                .context("start a thread for passwords")?;
        }
        Ok(passwords)
    }

    /// The hash of `password`, computed when it is the turn of the client at `from`.
    ///
    /// # Errors
    /// The queue is full and no client has more requests in it than this one, or hashing failed.
    pub(crate) async fn hash(&self, from: IpAddr, password: String) -> Result<String, NoHash> {
        let (sender, answer) = oneshot::channel();
        self.0.jobs.push(from, Job { password, sender });
        // A job gets no answer if hashing panicked.
        let hash = answer.await.unwrap_or(Err(NoHash::Failed));
        if hash == Err(NoHash::QueueFull) {
            let sooner = RandomState::new().hash_one(()) % (REFUSAL_PAUSE.as_secs() * 500);
            tokio::time::sleep(REFUSAL_PAUSE.saturating_sub(Duration::from_millis(sooner))).await;
        }
        hash
    }

    /// Keeps a hash that could not be stored, so that a retry with the same key need not compute
    /// it again. The newest [`KEPT_MAX`] are kept, in memory only.
    pub(crate) fn keep(&self, key: &Key, fingerprint: &Fingerprint, hash: String) {
        if key.text.is_none() {
            return;
        }
        let mut kept = self.0.kept();
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(((key.clone(), fingerprint.clone()), hash));
    }

    /// The [kept](Self::keep) hash of the command, which is identified by its key: the password is
    /// not compared.
    pub(crate) fn take_kept(&self, key: &Key, fingerprint: &Fingerprint) -> Option<String> {
        let mut kept = self.0.kept();
        let is_same = |((of, with), _): &KeptHash| of == key && with == fingerprint;
        let index = kept.iter().position(is_same)?;
        Some(kept.remove(index)?.1)
    }
}

impl Inner {
    fn kept(&self) -> MutexGuard<'_, VecDeque<KeptHash>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        *self.jobs.lock() = None;
        self.jobs.changed.notify_all();
    }
}

/// A password to hash, and where the hash goes.
#[derive(Debug)]
struct Job {
    password: String,
    sender: oneshot::Sender<Result<String, NoHash>>,
}

/// The queue before the threads; `None` once the last [`Passwords`] is dropped.
#[derive(Debug)]
struct Jobs {
    waiting: Mutex<Option<Queue<Job>>>,
    changed: Condvar,
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, Option<Queue<Job>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, from: IpAddr, job: Job) {
        let mut waiting = self.lock();
        let Some(queue) = waiting.as_mut() else {
            return;
        };
        queue.retain(|job| !job.sender.is_closed());
        let displaced = queue.push(from, job);
        count(queue);
        drop(waiting);
        self.changed.notify_one();
        if let Some(job) = displaced {
            metrics::counter!(REFUSED).increment(1);
            // The client may have disconnected.
            let _ = job.sender.send(Err(NoHash::QueueFull));
        }
    }

    /// Waits for a job; `None` once the last [`Passwords`] is dropped.
    fn next(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            let queue = waiting.as_mut()?;
            if let Some(job) = queue.pop() {
                count(queue);
                return Some(job);
            }
            let woken = self.changed.wait(waiting);
            waiting = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The loop of a thread: hashes one password after another, in the same memory.
    fn work(&self) {
        // On Linux, this is the priority of the thread. A refusal does no harm.
        let _ = setpriority_process(None, NICENESS);
        let mut memory = Vec::new();
        while let Some(Job { password, sender }) = self.next() {
            if sender.is_closed() {
                continue;
            }
            metrics::counter!(HASHES).increment(1);
            let hashed = catch_unwind(AssertUnwindSafe(|| hash(&password, &mut memory)));
            if let Ok(hashed) = hashed {
                let _ = sender.send(hashed.map_err(|error| {
                    tracing::error!(error = format!("{error:#}"), "cannot hash a password");
                    NoHash::Failed
                }));
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "at most a few dozen")]
fn count(queue: &Queue<Job>) {
    metrics::gauge!(WAITING).set(queue.waiting() as f64);
}

fn describe() {
    use metrics::Unit::Count;
    metrics::describe_counter!(HASHES, Count, "Passwords hashed");
    metrics::describe_counter!(
        REFUSED,
        Count,
        "Registrations answered with 429: too many passwords waited"
    );
    metrics::describe_gauge!(WAITING, Count, "Passwords that wait to be hashed");
    metrics::counter!(HASHES).increment(0);
    metrics::counter!(REFUSED).increment(0);
    metrics::gauge!(WAITING).set(0.0);
}

/// Hashes a password in `memory`, which the first call allocates.
fn hash(password: &str, memory: &mut Vec<Block>) -> anyhow::Result<String> {
    // The crate's default is argon2id with OWASP's parameters (m = 19 MiB, t = 2, p = 1).
    let params = Params::default();
    memory.resize(params.block_count(), Block::new());
    let salt = Salt::generate();
    let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
        .hash_password_into_with_memory(password.as_bytes(), &salt, &mut output, memory)
        .map_err(|error| anyhow!("{error}"))
        .context("compute a hash")?;
    let described = ParamsString::try_from(&params).map_err(|error| anyhow!("{error}"));
    let output = Output::new(&output).map_err(|error| anyhow!("{error}"));
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: described.context("describe the parameters")?,
        salt: Some(salt),
        hash: Some(output.context("take the hash")?),
    };
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordVerifier as _;

    use super::*;

    #[test]
    fn a_hash_is_argon2id_with_a_random_salt() {
        let mut memory = Vec::new();
        let first = hash("correct horse", &mut memory).unwrap();
        let parameters = "$argon2id$v=19$m=19456,t=2,p=1$";
        assert!(first.starts_with(parameters), "{first}");
        assert_ne!(hash("correct horse", &mut memory).unwrap(), first);
        let verified = |password: &str| {
            let parsed = PasswordHash::new(&first).unwrap();
            Argon2::default().verify_password(password.as_bytes(), &parsed)
        };
        assert_eq!(verified("correct horse"), Ok(()));
        assert!(verified("wrong horse").is_err());
    }

    #[test]
    fn hashes_share_memory_that_is_allocated_once() {
        let mut memory = Vec::new();
        hash("correct horse", &mut memory).unwrap();
        let (at, capacity) = (memory.as_ptr(), memory.capacity());
        assert_eq!(capacity * Block::SIZE, 19 * 1024 * 1024);
        hash("battery staple", &mut memory).unwrap();
        assert_eq!((memory.as_ptr(), memory.capacity()), (at, capacity));
    }

    #[tokio::test]
    async fn the_threads_end_with_the_last_clone() {
        let passwords = Passwords::start().unwrap();
        let jobs = Arc::downgrade(&passwords.0.jobs);
        let from = IpAddr::from([192, 0, 2, 1]);
        passwords
            .hash(from, "correct horse".to_owned())
            .await
            .unwrap();
        drop(passwords);
        let ended = async {
            while jobs.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        let patience = Duration::from_secs(30);
        tokio::time::timeout(patience, ended).await.unwrap();
    }

    #[test]
    fn a_hash_is_kept_for_one_retry_of_the_same_command_and_not_for_ever() {
        let passwords = Passwords::start().unwrap();
        let key = |text: Option<&str>| Key {
            scope: "POST /users",
            text: text.map(str::to_owned),
        };
        let fingerprint = Fingerprint::of(&1);
        passwords.keep(&key(None), &fingerprint, "hash".to_owned());
        assert_eq!(passwords.take_kept(&key(None), &fingerprint), None);
        for nth in 0..=KEPT_MAX {
            let key = key(Some(&nth.to_string()));
            passwords.keep(&key, &fingerprint, nth.to_string());
        }
        let taken = |text| passwords.take_kept(&key(Some(text)), &fingerprint);
        assert_eq!(taken("0"), None, "the oldest hash was dropped");
        let other = passwords.take_kept(&key(Some("1")), &Fingerprint::of(&2));
        assert_eq!(other, None);
        assert_eq!(taken("1").as_deref(), Some("1"));
        assert_eq!(taken("1"), None);
    }
}
