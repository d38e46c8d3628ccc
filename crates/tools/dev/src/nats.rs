//! Chooses the broker.

use std::time::Duration;

use anyhow::{Context as _, bail};
use broker::Binary;
use reqwest::Url;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::Args;
use crate::screen::Screen;

/// How long an external broker may take to accept a connection.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// The default port.
const PORT: u16 = 4222;

/// Finds or installs nats-server; `None` if an external broker is to be used and can be reached.
pub(crate) async fn find(args: &Args, screen: Screen) -> anyhow::Result<Option<Binary>> {
    if let Some(urls) = &args.nats_url {
        check(urls).await?;
        return Ok(None);
    }
    let found = spawn_blocking(move || broker::find(&|progress| screen.say(progress)));
    Ok(Some(found.await.context("look for nats-server")??))
}

/// Checks that a broker listens at one of `urls`, separated by commas.
///
/// The services would start without a broker and wait for it, which would hide a mistyped address.
async fn check(urls: &str) -> anyhow::Result<()> {
    let mut why = String::new();
    for url in urls.split(',').map(str::trim) {
        why = match timeout(ANSWERS_WITHIN, connect(url)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {ANSWERS_WITHIN:?}"),
        };
    }
    bail!(
        "there is no broker at {urls} ({why}); start one there, or omit --nats-url to start one here"
    )
}

async fn connect(url: &str) -> anyhow::Result<TcpStream> {
    let scheme = if url.contains("://") { "" } else { "nats://" };
    let url = Url::parse(&format!("{scheme}{url}"))?;
    let host = url.host_str().context("it names no host")?;
    // Only URLs put brackets around IPv6 addresses.
    let host = host.trim_matches(['[', ']']);
    Ok(TcpStream::connect((host, url.port().unwrap_or(PORT))).await?)
}
