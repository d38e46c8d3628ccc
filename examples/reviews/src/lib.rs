//! Source service `reviews`: reviews of products.
//!
//! Owns `reviews.db`; publishes `reviews.v1.written`.

mod events;
mod http;
mod review;
mod store;

use headwater::prelude::*;

/// What it is.
pub const ABOUT: About = About {
    name: "reviews", // never rename
    description: "Reviews of products.",
    version: env!("CARGO_PKG_VERSION"),
    port: 8086,
};

const MIGRATIONS: &[Migration] = &[Migration::sql(
    "0001_reviews",
    include_str!("../migrations/0001_reviews.sql"),
)];

/// Runs the service until `stop` is cancelled or one of its tasks ends.
///
/// # Errors
/// The service cannot start, or a task ended unexpectedly.
pub async fn run(config: Config, process: Process) -> headwater::Result {
    let mut service = Service::start(ABOUT, MIGRATIONS, config, process).await?;
    service.publish(&events::SCHEMA)?;
    let routes = http::routes(&service);
    service.serve(routes).await
}

#[cfg(test)]
mod tests {
    use headwater_testkit::serving;
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test]
    async fn a_review_that_is_sent_again_is_one_event() {
        serving(ABOUT, run, async |service| {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let url = format!("{}/reviews", service.url);
            let review = json!({ "id": Uuid::from_u128(1), "product_id": Uuid::nil(), "stars": 5 });
            for _ in 0..2 {
                let answer = client.post(&url).json(&review).send().await.unwrap();
                assert_eq!(answer.status(), 201);
                assert_eq!(answer.headers()["headwater-position"], "reviews:1");
                assert_eq!(answer.json::<Value>().await.unwrap(), review);
            }
            service.eventually_published(1).await;
        })
        .await;
    }
}
