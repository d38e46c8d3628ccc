//! All four services in one program, so that the tests have one to build, to start and to kill:
//! `shop users --database users.db …`. Each runs as its own binary runs it.
//!
//! `shop torture` and `shop recovery` start it many times over. `shop ready` is the operator's
//! tool's, for the health check of the image; `shop reap` removes what a test left in Docker.

mod recovery;
mod torture;

use anyhow::Context as _;
use clap::{CommandFactory, FromArgMatches};
use headwater::telemetry::{self, Telemetry};
use headwater::{Service, http, supervisor};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1).peekable();
    let name = args.peek().cloned().unwrap_or_default();
    match name.as_str() {
        "users" => {
            let users::Config { service } = parse(args);
            let (_telemetry, listener, stop) = begin(&name, &service).await?;
            users::run(service, listener, stop).await
        }
        "products" => {
            let products::Config { service } = parse(args);
            let (_telemetry, listener, stop) = begin(&name, &service).await?;
            products::run(service, listener, stop).await
        }
        "orders" => {
            let orders::Config { service } = parse(args);
            let (_telemetry, listener, stop) = begin(&name, &service).await?;
            orders::run(service, listener, stop).await
        }
        "purchases" => {
            let config: purchases::Config = parse(args);
            let (_telemetry, listener, stop) =
                begin(config.style.service(), &config.service).await?;
            purchases::run(config, listener, stop).await
        }
        // One more relay for a database that another process writes to.
        "rival-orders" => {
            let orders::Config { service } = parse(args);
            let (_telemetry, listener, stop) = begin(&name, &service).await?;
            let mut rival = Service::start(orders::NAME, orders::MIGRATIONS, service, stop).await?;
            rival.relay();
            rival.serve(listener, axum::Router::new()).await
        }
        // The operator's tool.
        "headwater" => match cli::run(parse(args)).await {
            cli::Exit::Done => Ok(()),
            exit => anyhow::bail!("exit code {}", exit as u8),
        },
        "torture" => torture::run(parse(args)).await,
        "recovery" => recovery::run(parse(args)).await,
        "ready" => {
            let exit = cli::run(parse(std::env::args())).await;
            std::process::exit(exit as i32)
        }
        "reap" => e2e::docker::reap(&args.nth(1).context("which run")?).await,
        other => anyhow::bail!("there is no service `{other}`"),
    }
}

fn parse<C: CommandFactory + FromArgMatches>(args: impl Iterator<Item = String>) -> C {
    let matches = C::command().get_matches_from(args);
    C::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

async fn begin(
    name: &str,
    config: &headwater::Config,
) -> anyhow::Result<(Telemetry, TcpListener, CancellationToken)> {
    Ok((
        telemetry::init(name, &config.telemetry)?,
        http::bind(&config.http).await?,
        supervisor::stop_on_signal(),
    ))
}
