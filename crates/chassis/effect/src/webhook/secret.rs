//! The secrets that sign deliveries, and the signature.

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;

use crate::webhook::unusable::Unusable;

/// How a secret begins.
const PREFIX: &str = "whsec_";

/// The bytes of a secret.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The file with the secrets. It is read at each delivery, so that a secret can be replaced without
/// a restart.
#[derive(Debug, Clone)]
pub(super) struct Secrets(pub(super) PathBuf);

/// A secret. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secrets {
    pub(super) fn read(&self) -> Result<Vec<Secret>, Unusable> {
        let path = &self.0;
        let unusable = |why: String| Unusable::Secret {
            path: path.clone(),
            why,
        };
        let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let secrets: Option<Vec<_>> = lines.map(Secret::parse).collect();
        match secrets {
            Some(secrets) if !secrets.is_empty() => Ok(secrets),
            _ => Err(unusable(format!(
                "each line must be `{PREFIX}` and base64 of {} to {} bytes: \
                 `echo {PREFIX}$(openssl rand -base64 32)` makes one",
                BYTES.start(),
                BYTES.end()
            ))),
        }
    }
}

impl Secret {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
        BYTES.contains(&bytes.len()).then_some(Self(bytes))
    }
}

/// The value of `webhook-signature`: one signature for each of `secrets`.
pub(super) fn sign(secrets: &[Secret], id: &str, timestamp: &str, body: &str) -> String {
    let signed = format!("{id}.{timestamp}.{body}");
    let sign = |Secret(bytes): &Secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let tag = hmac::sign(&key, signed.as_bytes());
        format!("v1,{}", BASE64_STANDARD.encode(tag))
    };
    secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
}
