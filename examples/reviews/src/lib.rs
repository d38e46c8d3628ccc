//! Source service `reviews`: the worked example of `docs/adding-a-service.md`.

mod events;
mod http;
mod review;
mod store;

use headwater::Service;
use headwater::database::Migration;
use headwater::http::{About, Listeners};
use tokio_util::sync::CancellationToken;

/// The service's name, and the source of its events. Never rename.
pub const NAME: &str = "reviews";

const MIGRATIONS: &[Migration] = &[Migration::sql(
    "0001_reviews",
    include_str!("../migrations/0001_reviews.sql"),
)];

const ABOUT: About = About {
    name: NAME,
    description: "Reviews of products.",
};

/// Headwater service `reviews`: reviews of products
#[derive(Debug, clap::Parser)]
#[command(name = "headwater-reviews", version)]
#[command(mut_arg("listen", |listen| listen.default_value("127.0.0.1:8086")))]
#[command(mut_arg("path", |path| path.required(false).default_value("reviews.db")))]
pub struct Config {
    /// The settings of every service.
    #[command(flatten)]
    pub service: headwater::Config,
}

/// Runs the service until `stop` is cancelled or one of its tasks ends.
///
/// # Errors
/// The service cannot start, or a task ended unexpectedly.
pub async fn run(
    config: headwater::Config,
    listeners: Listeners,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut service = Service::start(NAME, MIGRATIONS, config, stop).await?;
    service.relay();
    service.describe(&events::SCHEMA)?;
    let (health, config) = (service.health.clone(), &service.config.http);
    let app = headwater::http::app(ABOUT, http::routes(&service), health, config);
    service.serve(listeners, app).await
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use headwater_testkit::{broker, eventually};
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test]
    async fn a_review_that_is_sent_again_is_one_event() {
        let (broker, folder) = (broker(), tempfile::tempdir().unwrap());
        let database = folder.path().join("reviews.db");
        let url = broker.url();
        let database = database.to_str().unwrap();
        let config = Config::parse_from(["reviews", "--nats-url", &url, "--database", database]);
        let listeners = Listeners::on_free_ports().await.unwrap();
        let address = listeners.public.local_addr().unwrap();
        let stop = CancellationToken::new();
        let is_one_event = async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let review = json!({ "id": uuid::Uuid::from_u128(1), "product_id": uuid::Uuid::nil(), "stars": 5 });
            for _ in 0..2 {
                let request = client
                    .post(format!("http://{address}/reviews"))
                    .json(&review);
                let answer = request.send().await.unwrap();
                assert_eq!(answer.status(), 201);
                assert_eq!(answer.headers()["headwater-position"], "reviews:1");
                let answer: Value = answer.json().await.unwrap();
                assert_eq!(answer, review);
            }
            let nats = async_nats::connect(broker.url()).await.unwrap();
            let jetstream = async_nats::jetstream::new(nats);
            eventually("the event in the stream", async || {
                let stream = jetstream.get_stream("REVIEWS").await;
                let info = stream.map_err(|error| error.to_string())?;
                match info.cached_info().state.messages {
                    1 => Ok(()),
                    other => Err(other.to_string()),
                }
            })
            .await;
            stop.cancel();
        };
        let (served, ()) = tokio::join!(run(config.service, listeners, stop.clone()), is_one_event);
        served.unwrap();
    }
}
