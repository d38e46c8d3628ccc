//! The query service in all its styles; the other two start on request only.

use crate::client::Reply;
use crate::{Service, World, eventually};

impl World {
    /// All services on a running broker, including the query service in all styles.
    pub async fn start_styles() -> Self {
        Self::start().await.with_styles().await
    }

    /// Starts the query service in its two other styles.
    #[must_use]
    pub async fn with_styles(mut self) -> Self {
        self.run(Service::Composition).await;
        self.run(Service::RequestReply).await;
        for style in Service::STYLES {
            self.answering(style).await;
        }
        self
    }

    /// All purchases of a user, as of at least `after`, from the query service in the style
    /// `style`.
    pub async fn purchases_by(&self, style: Service, user: &str, after: &str) -> Reply {
        let after = if after.is_empty() {
            String::new()
        } else {
            format!("?after={after}")
        };
        let path = format!("/users/{user}/purchases{after}");
        self.client(style).get_all(&path, "purchases").await
    }

    /// Waits until the query service in the style `style` can answer.
    pub async fn answering(&self, style: Service) {
        let nobody = uuid::Uuid::nil().to_string();
        let what = format!("{} to answer", style.name());
        eventually(&what, || async {
            let reply = self.purchases_by(style, &nobody, "").await;
            if reply.status == 404 {
                Ok(())
            } else {
                Err(reply.text)
            }
        })
        .await;
    }
}
