//! Password hashes: argon2id, on blocking threads, a few at a time.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use headwater::http::Problem;
use tokio::sync::Semaphore;

/// Hashes computed at the same time: each takes 19 MiB and tens of milliseconds of a core, which
/// is its purpose, and must not be a way to take the service down.
const AT_ONCE: usize = 2;

/// Hashes and verifies passwords. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Passwords(Arc<Semaphore>);

impl Passwords {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// The hash of `password` to be stored: `earlier` if that is one of it, otherwise a new one.
    ///
    /// A hash has a random salt, so the same request sent twice would seem to be two; with the
    /// earlier hash it is known again.
    pub(crate) async fn hash(
        &self,
        password: String,
        earlier: Option<String>,
    ) -> Result<String, Problem> {
        let permit = Arc::clone(&self.0)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let hashing = tokio::task::spawn_blocking(move || {
            let hashed = hash(&password, earlier);
            drop(permit);
            hashed
        });
        let hashed = hashing.await.context("hash a password").flatten();
        hashed.map_err(|error| {
            tracing::error!(error = format!("{error:#}"), "password");
            Problem::internal()
        })
    }
}

fn hash(password: &str, earlier: Option<String>) -> anyhow::Result<String> {
    if let Some(earlier) = earlier {
        let parsed = PasswordHash::new(&earlier)
            .map_err(|error| anyhow!("{error}"))
            .context("read a stored hash")?;
        if Argon2::default()
            .verify_password(password.as_bytes(), &parsed)
            .is_ok()
        {
            return Ok(earlier);
        }
    }
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
    fn a_hash_is_argon2id_and_known_again() {
        let first = hash("correct horse", None).unwrap();
        assert!(
            first.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{first}"
        );
        assert_eq!(hash("correct horse", Some(first.clone())).unwrap(), first);
        assert_ne!(hash("wrong horse", Some(first.clone())).unwrap(), first);
        assert_ne!(
            hash("correct horse", None).unwrap(),
            first,
            "the salt is random"
        );
    }
}
