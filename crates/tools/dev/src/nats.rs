//! Which broker it is to be.

use std::time::Duration;

use anyhow::{Context as _, bail};
use broker::Binary;
use reqwest::Url;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::Args;
use crate::screen::Screen;

/// How long a broker that others run may take to accept a connection.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// The port of a URL that names none.
const PORT: u16 = 4222;

/// Finds or installs nats-server; `None` if a broker that others run is to be used, and is there.
pub(crate) async fn find(args: &Args, screen: Screen) -> anyhow::Result<Option<Binary>> {
    if let Some(urls) = &args.nats_url {
        check(urls).await?;
        return Ok(None);
    }
    let found = spawn_blocking(move || broker::find(&|progress| screen.say(progress)));
    Ok(Some(found.await.context("look for nats-server")??))
}

/// Checks that somebody listens at one of `urls`, which stand with commas between them.
///
/// The services would come up without a broker, and wait for it: good for them, but somebody who
/// mistyped an address wants to know.
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
        "there is no broker at {urls} ({why}); start one there, or leave --nats-url out to have one started"
    )
}

async fn connect(url: &str) -> anyhow::Result<TcpStream> {
    let scheme = if url.contains("://") { "" } else { "nats://" };
    let url = Url::parse(&format!("{scheme}{url}"))?;
    let host = url.host_str().context("it names no host")?;
    // IPv6 addresses stand in brackets in URLs, and nowhere else.
    let host = host.trim_matches(['[', ']']);
    Ok(TcpStream::connect((host, url.port().unwrap_or(PORT))).await?)
}
