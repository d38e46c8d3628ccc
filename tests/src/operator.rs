//! Requests to the admin endpoints over NATS, as an operator sends them.

use clap::Parser as _;
use cli::verify::Report;
use cli::{Cli, Command};
use headwater::operator::{RebuildState, RebuildStatus};
use serde_json::Value;

use crate::{Service, World, eventually};

impl World {
    /// Sends `request` to an admin endpoint of a service; the error is its code and text.
    pub async fn ask(
        &self,
        service: Service,
        endpoint: &str,
        request: &Value,
    ) -> Result<Value, String> {
        let subject = format!("headwater.{}.{endpoint}", service.name());
        let client = self.nats().await;
        let answer = client
            .request(subject, request.to_string().into())
            .await
            .map_err(|error| error.to_string())?;
        let header = |name: &str| {
            let value = answer.headers.as_ref()?.get(name)?;
            Some(value.as_str().to_owned())
        };
        match (
            header("Nats-Service-Error-Code"),
            header("Nats-Service-Error"),
        ) {
            (Some(code), Some(text)) => Err(format!("{code}: {text}")),
            _ => serde_json::from_slice(&answer.payload).map_err(|error| error.to_string()),
        }
    }

    /// The status of the rebuild of the read store.
    pub async fn rebuild_status(&self) -> Result<RebuildStatus, String> {
        self.rebuild_status_of(Service::Purchases).await
    }

    /// The status of the rebuild of a service's projection.
    pub async fn rebuild_status_of(&self, service: Service) -> Result<RebuildStatus, String> {
        let answer = self.ask(service, "fold", &serde_json::json!({})).await?;
        serde_json::from_value(answer).map_err(|error| error.to_string())
    }

    /// Starts a rebuild of the read store (`rebuild` or `verify`) and waits until it is done or has
    /// failed.
    pub async fn rebuild(&self, endpoint: &str) -> RebuildStatus {
        self.rebuild_of(Service::Purchases, endpoint).await
    }

    /// Like [`rebuild`](Self::rebuild), for the projection of a service.
    pub async fn rebuild_of(&self, service: Service, endpoint: &str) -> RebuildStatus {
        eventually("a rebuild to begin", || async {
            self.ask(service, endpoint, &serde_json::json!({})).await
        })
        .await;
        self.rebuilt_of(service).await
    }

    /// Waits until the current rebuild of the read store is done or has failed.
    pub async fn rebuilt(&self) -> RebuildStatus {
        self.rebuilt_of(Service::Purchases).await
    }

    async fn rebuilt_of(&self, service: Service) -> RebuildStatus {
        eventually("a rebuild to end", || async {
            let status = self.rebuild_status_of(service).await?;
            match status.state {
                RebuildState::Done | RebuildState::Failed => Ok(status),
                _ => Err(format!("{status:?}")),
            }
        })
        .await
    }
}

/// Verifies as the tool does, with a long timeout for slow machines.
pub async fn verify(world: &World) -> Report {
    verify_within(world, "60").await
}

/// [`verify`] with a timeout of `wait` seconds for missing answers.
pub async fn verify_within(world: &World, wait: &str) -> Report {
    let url = world.nats_url();
    let args = ["headwater", "verify", "--wait", wait, "--no-context"];
    let mut args: Vec<String> = args.map(str::to_owned).into();
    args.extend(["--server".to_owned(), url]);
    if let Some((user, password)) = world.login() {
        args.extend(["--user".to_owned(), user, "--password".to_owned(), password]);
    }
    let cli = Cli::parse_from(args);
    let Command::Verify(args) = cli.command else {
        unreachable!("the arguments say `verify`");
    };
    cli::verify::run(&cli.common, args).await.expect("verify")
}
