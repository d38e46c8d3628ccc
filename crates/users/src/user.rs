//! Users: what one is, and when a registration is right.

use events::{UserErased, UserRegistered};
use headwater::http::{Invalid, Problem};
use headwater::idempotency::Fingerprint;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The longest name, in characters.
const NAME_MAX: usize = 200;

/// The longest e-mail address, in characters (RFC 5321, 4.5.3.1.3, less the angle brackets).
const EMAIL_MAX: usize = 254;

/// The shortest and longest password, in characters (NIST SP 800-63B, 3.1.1.2, asks for room
/// for at least 64).
const PASSWORD_MIN: usize = 8;
const PASSWORD_MAX: usize = 128;

/// A user, as the service shows one: without the password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct User {
    pub(crate) id: Uuid,
    #[schema(example = "Ada Byron")]
    pub(crate) name: String,
    #[schema(example = "ada@example.com")]
    pub(crate) email: String,
    /// RFC 3339.
    #[schema(example = "2026-11-22T10:30:00Z")]
    pub(crate) registered_at: String,
}

/// A request to register.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Register {
    /// The user's id, if the client wants to choose it.
    pub(crate) id: Option<Uuid>,
    /// Not only white space.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"\S",
        example = "Ada Byron"
    )]
    pub(crate) name: String,
    /// With a password: one that nobody logs in with yet; case does not count.
    #[schema(
        max_length = 254,
        pattern = r"^[^\s\u0000-\u001f\u007f-\u009f]+@[^\s@\u0000-\u001f\u007f-\u009f]+$",
        example = "ada@example.com"
    )]
    pub(crate) email: String,
    /// 8 to 128 characters. Without one the user cannot log in.
    #[schema(min_length = 8, max_length = 128)]
    pub(crate) password: Option<String>,
}

/// What is fingerprinted of a registration: whether it has a password, but not which.
#[derive(Debug, Serialize)]
struct Identity<'a> {
    id: Option<Uuid>,
    name: &'a str,
    email: &'a str,
    /// Never rename: the fingerprints of registrations without a password have it as `null`.
    password_hash: Option<&'static str>,
}

/// What is stored of a registration.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) password_hash: Option<String>,
}

impl Register {
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&Identity {
            id: self.id,
            name: &self.name,
            email: &self.email,
            password_hash: self.password.as_ref().map(|_| "some"),
        })
    }

    pub(crate) fn check(&self) -> Result<(), Problem> {
        let mut invalid = Invalid::none();
        let named = !self.name.trim().is_empty() && self.name.chars().count() <= NAME_MAX;
        invalid.require(
            named,
            "/name",
            format!("must have 1 to {NAME_MAX} characters"),
        );
        invalid.require(
            is_email(&self.email),
            "/email",
            format!(
                "must be an address such as ada@example.com, of at most {EMAIL_MAX} characters"
            ),
        );
        if let Some(password) = &self.password {
            let fits = (PASSWORD_MIN..=PASSWORD_MAX).contains(&password.chars().count());
            invalid.require(
                fits,
                "/password",
                format!("must have {PASSWORD_MIN} to {PASSWORD_MAX} characters"),
            );
        }
        invalid.check()
    }
}

/// Whether it can be an address. That it is one shows only when a mail arrives there.
fn is_email(text: &str) -> bool {
    text.chars().count() <= EMAIL_MAX
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
        && text
            .rsplit_once('@')
            .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
}

/// What an e-mail address is looked up by.
pub(crate) fn email_key(email: &str) -> String {
    email.to_lowercase()
}

pub(crate) fn registered_event(id: Uuid, registered_at_ms: i64) -> UserRegistered {
    UserRegistered {
        user_id: id.to_string(),
        registered_at: Some(events::timestamp(registered_at_ms)),
    }
}

pub(crate) fn erased_event(id: Uuid) -> UserErased {
    UserErased {
        user_id: id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(name: &str, email: &str, password: Option<&str>) -> Result<(), Problem> {
        Register {
            id: None,
            name: name.to_owned(),
            email: email.to_owned(),
            password: password.map(str::to_owned),
        }
        .check()
    }

    #[test]
    fn a_registration_needs_a_name_and_an_address() {
        assert!(register("Ada", "ada@example.com", None).is_ok());
        assert!(register("Ada", "a@b", Some("12345678")).is_ok());
        for (name, email, password) in [
            ("", "ada@example.com", None),
            (" ", "ada@example.com", None),
            ("Ada", "", None),
            ("Ada", "ada", None),
            ("Ada", "@example.com", None),
            ("Ada", "ada@", None),
            ("Ada", "ada lovelace@example.com", None),
            ("Ada", "ada@example.com", Some("1234567")),
        ] {
            assert!(
                register(name, email, password).is_err(),
                "{name:?} {email:?} {password:?}"
            );
        }
        assert!(register(&"x".repeat(201), "ada@example.com", None).is_err());
        assert!(register("Ada", "ada@example.com", Some(&"x".repeat(129))).is_err());
    }
}
