//! The services that are measured, in this process, on a broker and files of their own.

use std::future::Future;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use broker::Broker;
use clap::Parser as _;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;

/// The sources, with one user and one product that orders can be placed for.
#[derive(Debug)]
pub(crate) struct Shop {
    /// Where `orders` listens.
    orders: String,
    /// An order that is accepted.
    order: Value,
    stop: CancellationToken,
    services: JoinSet<anyhow::Result<()>>,
    _broker: Broker,
    _folder: TempDir,
}

impl Shop {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let broker = Broker::start_in_temp().context("start nats-server")?;
        let folder = TempDir::new().context("make a folder")?;
        let stop = CancellationToken::new();
        let mut services = JoinSet::new();
        let args = |name: &str| {
            let database = folder
                .path()
                .join(format!("{name}.db"))
                .display()
                .to_string();
            [
                "bench",
                "--database",
                &database,
                "--nats-url",
                &broker.url(),
            ]
            .map(str::to_owned)
        };
        let config = users::Config::parse_from(args("users")).service;
        let users = spawn(&mut services, |it| users::run(config, it, stop.clone())).await?;
        let config = products::Config::parse_from(args("products")).service;
        let products = spawn(&mut services, |it| products::run(config, it, stop.clone())).await?;
        let config = orders::Config::parse_from(args("orders")).service;
        let orders = spawn(&mut services, |it| orders::run(config, it, stop.clone())).await?;

        let client = Client::builder().no_proxy().build()?;
        let user = json!({"name": "Ada", "email": "ada@example.com"});
        let (user, user_at) = create(&client, &format!("{users}/users"), &user).await?;
        let product = json!({"title": "Mug", "image": "https://example.com/mug.png"});
        let (product, product_at) =
            create(&client, &format!("{products}/products"), &product).await?;
        let order = json!({"user_id": user, "product_ids": [product]});
        let first = format!("{orders}/orders?after={user_at},{product_at}");
        create(&client, &first, &order).await?;
        Ok(Self {
            orders,
            order,
            stop,
            services,
            _broker: broker,
            _folder: folder,
        })
    }

    /// A connection that places orders.
    pub(crate) async fn connection(&self) -> anyhow::Result<Connection> {
        let address = self.orders.trim_start_matches("http://");
        Connection::open(address, "/orders", &self.order.to_string()).await
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.services.join_next().await {
            ended.context("run a service")??;
        }
        Ok(())
    }
}

/// Starts a service on a free port; gives its address.
async fn spawn<T>(
    services: &mut JoinSet<anyhow::Result<()>>,
    run: impl FnOnce(TcpListener) -> T,
) -> anyhow::Result<String>
where
    T: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("listen")?;
    let address = format!("http://{}", listener.local_addr()?);
    services.spawn(Box::pin(run(listener)));
    Ok(address)
}

/// POSTs and gives the id and the position of what was made.
async fn create(client: &Client, url: &str, body: &Value) -> anyhow::Result<(String, String)> {
    let request = client.post(url).timeout(Duration::from_secs(30)).json(body);
    let response = expect_created(request.send().await?)?;
    let position = response
        .headers()
        .get("headwater-position")
        .and_then(|value| value.to_str().ok())
        .context("no Headwater-Position")?
        .to_owned();
    let made: Value = response.json().await?;
    let id = made["id"].as_str().context("no id")?.to_owned();
    Ok((id, position))
}

fn expect_created(response: Response) -> anyhow::Result<Response> {
    ensure!(
        response.status() == 201,
        "{} answered {}",
        response.url(),
        response.status()
    );
    Ok(response)
}
