//! Where a webhook leads, and with what it is signed.

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use headwater_telemetry::Clock;

use crate::webhook::connect::{Networks, Receiver};
use crate::webhook::post::Webhook;
use crate::webhook::secret::Secrets;
use crate::webhook::unusable::Unusable;

/// The settings of a webhook, to be flattened into those of a service.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Webhook")]
pub struct Config {
    /// Address that events are sent to, with https; without it, none are sent
    #[arg(
        id = "webhook-url",
        long = "webhook-url",
        env = "HEADWATER_WEBHOOK_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub url: Option<String>,
    /// File with the secrets that sign, one per line (`whsec_…`), read at each delivery; default:
    /// systemd's credential `webhook.secret`, if any, which is as it was at the start
    #[arg(
        id = "webhook-secret-file",
        long = "webhook-secret-file",
        env = "HEADWATER_WEBHOOK_SECRET_FILE",
        value_name = "FILE"
    )]
    pub secret_file: Option<PathBuf>,
    /// Allow addresses in private networks, and http
    #[arg(
        id = "webhook-private-networks",
        long = "webhook-private-networks",
        env = "HEADWATER_WEBHOOK_PRIVATE_NETWORKS",
        value_parser = FalseyValueParser::new()
    )]
    pub private_networks: bool,
}

impl Config {
    /// The webhook, if there is an address.
    ///
    /// # Errors
    /// The address or the file with the secrets cannot be used.
    pub fn open(&self, clock: Clock) -> Result<Option<Webhook>, Unusable> {
        let Some(url) = &self.url else {
            return Ok(None);
        };
        let networks = if self.private_networks {
            Networks::Any
        } else {
            Networks::Public
        };
        let receiver = Receiver::parse(url, networks)?;
        let folder = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let credential = folder.map(|folder| folder.join("webhook.secret"));
        let credential = credential.filter(|file| file.exists());
        let file = self.secret_file.clone().or(credential);
        let secrets = Secrets(file.ok_or(Unusable::NoSecret)?);
        secrets.read()?;
        Ok(Some(Webhook {
            receiver,
            secrets,
            clock,
        }))
    }
}
