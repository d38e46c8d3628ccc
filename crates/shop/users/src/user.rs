//! Users, and the validation of registrations.

use headwater::idempotency::Fingerprint;
use headwater::text::{self, Unfit};
use precis_core::profile::Profile as _;
use precis_profiles::UsernameCaseMapped;
use serde::{Deserialize, Serialize};
use shop_events::{UserErased, UserRegistered};
use utoipa::ToSchema;
use uuid::Uuid;

/// The longest name, in characters.
const NAME_MAX: usize = 200;

/// The longest e-mail address, in characters (RFC 5321, 4.5.3.1.3, without the angle brackets).
const EMAIL_MAX: usize = 254;

/// The shortest and longest password, in characters (NIST SP 800-63B, 3.1.1.2, asks for at least
/// 64 for the longest).
const PASSWORD_MIN: usize = 8;
const PASSWORD_MAX: usize = 128;

/// A user as the API shows it: without the password.
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
    /// The user's id, if the client chooses it.
    pub(crate) id: Option<Uuid>,
    /// One line with at least one visible character, and none that overrides the text direction.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]*[^\s\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069][^\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]*$",
        example = "Ada Byron"
    )]
    pub(crate) name: String,
    /// Letters, digits and ASCII signs before the last @, a domain name after it. Unique among
    /// users with a password, ignoring the case and width of letters.
    #[schema(
        max_length = 254,
        pattern = r"^[^\s\u0000-\u001f\u007f-\u009f]+@[^\s@\u0000-\u001f\u007f-\u009f]+$",
        example = "ada@example.com"
    )]
    pub(crate) email: String,
    /// 8 to 128 characters. Without a password, the user cannot log in.
    #[schema(min_length = 8, max_length = 128)]
    pub(crate) password: Option<String>,
}

/// The fingerprinted fields of a registration: whether it has a password, but not the password.
#[derive(Debug, Serialize)]
struct Identity<'a> {
    id: Option<Uuid>,
    name: &'a str,
    email: &'a str,
    /// Never rename: the fingerprint of a registration without a password includes it as `null`.
    password_hash: Option<&'static str>,
}

/// The stored personal data of a user, encrypted. Never rename a field.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Person {
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

    pub(crate) fn check(&self) -> Result<(), Rejection> {
        let mut wrong = Vec::new();
        if !(1..=NAME_MAX).contains(&self.name.chars().count()) {
            wrong.push(Invalid::NameLength);
        } else if let Err(unfit) = text::check_line(&self.name) {
            wrong.push(Invalid::Name(unfit));
        }
        if self.email.chars().count() > EMAIL_MAX || normal_form(&self.email).is_none() {
            wrong.push(Invalid::Email);
        }
        let length = self.password.as_ref().map(|it| it.chars().count());
        if length.is_some_and(|length| !(PASSWORD_MIN..=PASSWORD_MAX).contains(&length)) {
            wrong.push(Invalid::Password);
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Rejection::Invalid(wrong))
        }
    }
}

/// Why a registration is rejected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejection {
    #[error(
        "the user {0} exists already; leave the id out for a new user, or repeat a registration \
         with its Idempotency-Key"
    )]
    IdTaken(Uuid),
    #[error("the user {0} was erased; leave the id out for a new user")]
    Erased(Uuid),
    #[error("another user logs in with this e-mail address; use a different address")]
    EmailTaken,
    #[error("{} of the registration's fields are invalid", .0.len())]
    Invalid(Vec<Invalid>),
}

/// Why a field of a registration is invalid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("must have 1 to {NAME_MAX} characters")]
    NameLength,
    #[error("{0}")]
    Name(Unfit),
    #[error(
        "must be an address such as ada@example.com, of at most {EMAIL_MAX} characters: letters, \
         digits and ASCII signs before the @, a domain name after it"
    )]
    Email,
    #[error("must have {PASSWORD_MIN} to {PASSWORD_MAX} characters")]
    Password,
}

/// The lookup key of an e-mail address: equal for two spellings of one address.
pub(crate) fn email_key(email: &str) -> String {
    // An address that an older version stored may have no normal form.
    normal_form(email).unwrap_or_else(|| email.to_lowercase())
}

/// The normal form of an e-mail address, for comparison: the local part as a user name of RFC 8265
/// (width, case, Unicode normalisation), the domain in ASCII. `None` if the text cannot be an
/// address. Only a delivered mail proves that it is one.
fn normal_form(email: &str) -> Option<String> {
    let (local, domain) = email.rsplit_once('@')?;
    let local = UsernameCaseMapped::new().enforce(local).ok()?;
    let domain = idna::domain_to_ascii_strict(domain).ok()?;
    Some(format!("{local}@{domain}"))
}

pub(crate) fn registered_event(id: Uuid, registered_at_ms: i64) -> UserRegistered {
    UserRegistered {
        user_id: id.to_string(),
        registered_at: Some(shop_events::timestamp(registered_at_ms)),
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

    fn register(name: &str, email: &str, password: Option<&str>) -> Result<(), Rejection> {
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
            ("Ada", "ada\u{202e}@example.com", None),
            ("Ada", "ada\u{200b}@example.com", None),
            ("Ada", "ada\n@example.com", None),
            ("Ada", "ada@exam\u{202e}ple.com", None),
            ("Ada", "ada@example..com", None),
            ("Ada", "ada@exa_mple.com", None),
            ("A\nda", "ada@example.com", None),
            ("A\u{202e}da", "ada@example.com", None),
            ("\u{200b}", "ada@example.com", None),
            ("\u{3164}", "ada@example.com", None),
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
    #[test]
    fn two_ways_to_write_an_address_have_one_key() {
        for (one, other) in [
            ("ada@example.com", "ADA@Example.COM"),
            ("ada@example.com", "ａｄａ@example.com"),
            ("ada@example.com", "ada@ｅxample．com"),
            ("zoë@example.com", "ZOE\u{308}@example.com"),
            ("ada@bücher.example", "ada@BU\u{308}CHER.example"),
            ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ] {
            assert_eq!(email_key(one), email_key(other), "{one} {other}");
        }
        assert_ne!(email_key("ada@example.com"), email_key("a.da@example.com"));
        assert_ne!(email_key("zoe@example.com"), email_key("zoë@example.com"));
        let old = "Ada Byron@example.com";
        assert_eq!(
            email_key(old),
            "ada byron@example.com",
            "the key of older versions"
        );
    }
}
