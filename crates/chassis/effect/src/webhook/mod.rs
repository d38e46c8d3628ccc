//! A ready effect: webhooks, after the [Standard Webhooks] specification.
//!
//! Each delivery is a POST of JSON with the headers `webhook-id` (the key of the intent, the same
//! at each attempt), `webhook-timestamp` (seconds since 1970, of the attempt) and
//! `webhook-signature` (`v1,` and base64 of HMAC-SHA-256 of `id.timestamp.body`; one for each
//! secret, separated by spaces, while a secret is replaced).
//!
//! | the receiver answers | the result |
//! | --- | --- |
//! | 2xx | done |
//! | 410 | given up, and the effect is switched off |
//! | anything else, or nothing | tried again; not before its `Retry-After`, if it sends one |
//!
//! Redirects are not followed, proxies are not used, and the body of an answer is not read.
//!
//! The address decides where this process sends requests. So it must be https on a public host, and
//! at each attempt, the addresses that the name has then are checked and connected to: a name that
//! leads into a private network is refused, whenever it begins to. `--webhook-private-networks`
//! allows everything.
//!
//! [Standard Webhooks]: https://www.standardwebhooks.com

mod config;
mod connect;
mod post;
mod secret;
mod unusable;

pub use config::Config;
pub use post::Webhook;
pub use unusable::Unusable;

#[cfg(test)]
mod tests;
