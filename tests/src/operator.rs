//! Asking the services as an operator does: NATS requests.

use clap::Parser as _;
use cli::verify::Report;
use cli::{Cli, Command};
use headwater::operator::{RebuildState, RebuildStatus};
use serde_json::Value;

use crate::{Service, World, eventually};

impl World {
    /// Asks the endpoint `endpoint` of a service; a refusal is its code and text.
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

    /// How far the fold beside the read store is.
    pub async fn fold_status(&self) -> Result<RebuildStatus, String> {
        self.fold_status_of(Service::Purchases).await
    }

    /// How far the fold beside the projection of a service is.
    pub async fn fold_status_of(&self, service: Service) -> Result<RebuildStatus, String> {
        let answer = self.ask(service, "fold", &serde_json::json!({})).await?;
        serde_json::from_value(answer).map_err(|error| error.to_string())
    }

    /// Begins a fold of the read store (`rebuild` or `verify`) and waits until it is done or has
    /// failed.
    pub async fn fold(&self, endpoint: &str) -> RebuildStatus {
        self.fold_of(Service::Purchases, endpoint).await
    }

    /// [`fold`](Self::fold) of the projection of a service.
    pub async fn fold_of(&self, service: Service, endpoint: &str) -> RebuildStatus {
        eventually("a fold to begin", || async {
            self.ask(service, endpoint, &serde_json::json!({})).await
        })
        .await;
        self.folded_of(service).await
    }

    /// Waits until the fold of the read store that is under way is done or has failed.
    pub async fn folded(&self) -> RebuildStatus {
        self.folded_of(Service::Purchases).await
    }

    async fn folded_of(&self, service: Service) -> RebuildStatus {
        eventually("a fold to end", || async {
            let status = self.fold_status_of(service).await?;
            match status.state {
                RebuildState::Done | RebuildState::Failed => Ok(status),
                _ => Err(format!("{status:?}")),
            }
        })
        .await
    }
}

/// Verifies as the tool does; it waits long, so that a slow machine is no difference.
pub async fn verify(world: &World) -> Report {
    verify_within(world, "60").await
}

/// [`verify`], not waiting longer than `wait` seconds for who does not answer.
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
        unreachable!("a verification was asked for");
    };
    cli::verify::run(&cli.common, args).await.expect("verify")
}
