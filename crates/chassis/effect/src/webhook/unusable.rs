//! Why a webhook cannot be used as it is configured.

use std::path::PathBuf;

/// Why a webhook cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// The address.
    #[error("the address in --webhook-url {0}")]
    Url(String),
    /// There is no file with secrets.
    #[error(
        "--webhook-url needs --webhook-secret-file, or systemd's credential `webhook.secret`: the \
         receiver must be able to tell our requests from others"
    )]
    NoSecret,
    /// The file with the secrets.
    #[error("the webhook's secrets in {}: {why}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The root certificates of the system.
    #[error("the root certificates of this system cannot be used: {0}")]
    Roots(String),
}
