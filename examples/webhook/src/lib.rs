//! Service `announcements`: the worked example of `docs/adding-an-effect.md`.

use headwater::effect::webhook::{self, Webhook};
use headwater::effect::{self, Effect, Outcome};
use headwater::prelude::*;
use serde_json::json;
use shop_events::ProductCreated;

/// What it is.
pub const ABOUT: About = About {
    name: "announcements",
    description: "Sends each new product to an address.",
    version: env!("CARGO_PKG_VERSION"),
    port: 8091,
};

/// Sends each new product to an address.
#[derive(Debug)]
struct Announcement(Webhook);

impl Effect for Announcement {
    const NAME: &'static str = "announcements-webhook"; // never rename
    const SOURCES: &'static [&'static str] = &["products"];
    const EVENTS: &'static [&'static str] = &[ProductCreated::SUBJECT];

    async fn perform(&self, event: &Envelope, key: &str) -> Outcome {
        let product: ProductCreated = match event.decode() {
            Ok(product) => product,
            Err(error) => return Outcome::GiveUp(error.to_string()),
        };
        let data = json!({ "product_id": product.product_id, "title": product.title });
        let body = json!({ "type": "product.created", "data": data });
        self.0.post(key, body.to_string()).await
    }
}

/// Its settings.
#[derive(Debug, clap::Args)]
pub struct Settings {
    /// The settings of every service.
    #[command(flatten)]
    pub service: Config,
    /// Where products are sent.
    #[command(flatten)]
    pub webhook: webhook::Config,
}

/// Runs the service until it is stopped.
pub async fn run(settings: Settings, process: Process) -> headwater::Result {
    let mut service = Service::start(ABOUT, &[], settings.service, process).await?;
    let webhook = settings.webhook.open(service.db.clock().clone())?;
    let announcement = Announcement(webhook.ok_or("--webhook-url is missing")?);
    let config = effect::Config::default();
    service.effect(announcement, config).await?;
    service.serve(OpenApiRouter::new()).await
}

#[cfg(test)]
mod tests {
    use headwater::Clock;
    use headwater_testkit::envelope;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_new_product_is_sent_under_its_key() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let config = webhook::Config {
            url: Some(format!("http://{}", listener.local_addr().unwrap())),
            secret_file: Some(secret.path().to_owned()),
            private_networks: true,
        };
        let announcement = Announcement(config.open(Clock::system()).unwrap().unwrap());
        let event = envelope(&ProductCreated::default());
        let receiving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = String::new();
            while !request.contains("webhook-id: products:e:7:us\r\n") {
                request.push(char::from(stream.read_u8().await.unwrap()));
            }
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        };
        let performing = announcement.perform(&event, "products:e:7:us");
        let (outcome, ()) = tokio::join!(performing, receiving);
        assert_eq!(outcome, Outcome::Done);
    }
}
