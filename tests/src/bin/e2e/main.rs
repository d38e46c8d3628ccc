//! All four services in one program, so that the tests have one to build, to start and to kill:
//! `shop users --database users.db …`. Each runs as its own binary runs it.
//!
//! `shop torture` and `shop recovery` start it many times over. `shop ready` is the operator's
//! tool's, for the health check of the image; `shop reap` removes what a test left in Docker.

mod recovery;
mod torture;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory, FromArgMatches};
use headwater::{Bus, Clock, Database, Health, Relay, http, supervisor, telemetry};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let mut args = std::env::args().skip(1).peekable();
    let name = args.peek().cloned().unwrap_or_default();
    match name.as_str() {
        "users" => {
            let users::Config { service } = parse(args);
            return serve(&name, service, users::run).await;
        }
        "products" => {
            let config: products::Config = parse(args);
            let service = config.service.clone();
            let run = |_, listener, stop| products::run(config, listener, stop);
            return serve(&name, service, run).await;
        }
        "orders" => {
            let orders::Config { service } = parse(args);
            return serve(&name, service, orders::run).await;
        }
        "purchases" => {
            let config: purchases::Config = parse(args);
            let (name, service) = (config.style.service(), config.service.clone());
            let run = |_, listeners, stop| purchases::run(config, listeners, stop);
            return Box::pin(serve(name, service, run)).await;
        }
        "rival-orders" => {
            let orders::Config { service } = parse(args);
            return serve(&name, service, |config, _, stop| rival(config, stop)).await;
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
    }?;
    Ok(ExitCode::SUCCESS)
}

fn parse<C: CommandFactory + FromArgMatches>(args: impl Iterator<Item = String>) -> C {
    let matches = headwater::without_empty_variables(C::command()).get_matches_from(args);
    C::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

async fn serve<F: Future<Output = anyhow::Result<()>>>(
    name: &str,
    config: headwater::Config,
    run: impl FnOnce(headwater::Config, http::Listeners, CancellationToken) -> F,
) -> anyhow::Result<ExitCode> {
    let stop = supervisor::stop_on_signal();
    let telemetry = telemetry::init(name, &config.telemetry);
    let service = async {
        let listeners = http::bind(&config.http).await?;
        run(config, listeners, stop).await
    };
    Ok(telemetry.end(service.await))
}

/// One more relay for the orders, whose database another process writes to: no service would start
/// there.
async fn rival(config: headwater::Config, stop: CancellationToken) -> anyhow::Result<()> {
    let clock = Clock::system();
    let db = Database::open(orders::NAME, &config.database, orders::MIGRATIONS, clock).await?;
    let bus = Bus::connect(orders::NAME, &config.nats).await?;
    let relay = Relay::new(db.clone(), bus, Health::new());
    relay.run(stop).await?;
    db.close().await;
    Ok(())
}
