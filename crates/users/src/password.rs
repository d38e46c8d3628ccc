//! Password hashes: argon2id, on blocking threads, a few at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, anyhow};
use argon2::Argon2;
use argon2::password_hash::PasswordHasher as _;
use headwater::http::Problem;
use headwater::idempotency::{Fingerprint, Key};
use tokio::sync::Semaphore;

/// Hashes computed at the same time: each takes 19 MiB and tens of milliseconds of a core, which
/// is its purpose, and must not be a way to take the service down.
const AT_ONCE: usize = 2;

/// Hashes kept for the retries of registrations that the database answered with 503.
const KEPT_MAX: usize = 1_000;

/// Hashes passwords. Cheap to clone.
///
/// Nothing here compares a password with a stored hash: registration must not tell whether
/// somebody guessed right, neither by its answer nor by how long it takes.
#[derive(Debug, Clone)]
pub(crate) struct Passwords {
    places: Arc<Semaphore>,
    kept: Arc<Mutex<VecDeque<Kept>>>,
}

/// A command, and the hash that it could not store.
type Kept = ((Key, Fingerprint), String);

impl Passwords {
    pub(crate) fn new() -> Self {
        metrics::describe_counter!(
            "users_password_hashes_total",
            metrics::Unit::Count,
            "Passwords hashed"
        );
        metrics::counter!("users_password_hashes_total").increment(0);
        Self {
            places: Arc::new(Semaphore::new(AT_ONCE)),
            kept: Arc::default(),
        }
    }

    /// The hash of `password` to be stored.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Problem> {
        let permit = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let hashing = tokio::task::spawn_blocking(move || {
            let hashed = hash(&password);
            drop(permit);
            hashed
        });
        metrics::counter!("users_password_hashes_total").increment(1);
        let hashed = hashing.await.context("hash a password").flatten();
        hashed.map_err(|error| {
            tracing::error!(error = format!("{error:#}"), "password");
            Problem::internal()
        })
    }

    /// Keeps a hash that could not be stored, so that the retry under the same key costs none.
    /// The newest [`KEPT_MAX`] are kept, in memory only.
    pub(crate) fn keep(&self, key: &Key, fingerprint: &Fingerprint, hash: String) {
        if key.text.is_none() {
            return;
        }
        let mut kept = self.kept.lock().expect("nothing panics under it");
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(((key.clone(), fingerprint.clone()), hash));
    }

    /// The hash that was [kept](Self::keep) for the command, which is known by its key: whether
    /// the password is still the same is not looked at.
    pub(crate) fn take_kept(&self, key: &Key, fingerprint: &Fingerprint) -> Option<String> {
        let mut kept = self.kept.lock().expect("nothing panics under it");
        let is_it = |((of, with), _): &Kept| of == key && with == fingerprint;
        let index = kept.iter().position(is_it)?;
        Some(kept.remove(index)?.1)
    }
}

fn hash(password: &str) -> anyhow::Result<String> {
    // The crate's default is argon2id with OWASP's parameters (m = 19 MiB, t = 2, p = 1).
    let hashed = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|error| anyhow!("{error}"))
        .context("compute a hash")?;
    Ok(hashed.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_argon2id_with_a_random_salt() {
        let first = hash("correct horse").unwrap();
        let parameters = "$argon2id$v=19$m=19456,t=2,p=1$";
        assert!(first.starts_with(parameters), "{first}");
        assert_ne!(hash("correct horse").unwrap(), first);
    }

    #[test]
    fn a_hash_is_kept_for_one_retry_of_the_same_command_and_not_for_ever() {
        let passwords = Passwords::new();
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
        assert_eq!(taken("0"), None, "the oldest had to go");
        let other = passwords.take_kept(&key(Some("1")), &Fingerprint::of(&2));
        assert_eq!(other, None);
        assert_eq!(taken("1").as_deref(), Some("1"));
        assert_eq!(taken("1"), None);
    }
}
