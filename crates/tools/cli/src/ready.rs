//! `headwater ready`: asks one service over HTTP. For health checks in images without a shell and
//! curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use client::Common;
use headwater::telemetry::duration;
use reqwest::{Client, Response, Url};
use serde_json::json;
use terminal::Exit;
use terminal::output::Format;

/// The most bytes shown of an answer: Docker keeps 4 KiB of a health check's output.
const SHOWN_BYTES_MAX: usize = 4096;

/// Check over HTTP whether one service is ready, and print what is wrong if not
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The URL to request [default: `/readyz?verbose` at the service's admin address]
    url: Option<Url>,
    /// The address that the service listens on, as in its own configuration
    #[arg(
        long,
        env = "HEADWATER_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8080"
    )]
    listen: SocketAddr,
    /// The service's admin address, as in its own configuration [default: 127.0.0.1, at the port of
    /// --listen plus 1000]
    #[arg(long, env = "HEADWATER_ADMIN_LISTEN", value_name = "ADDRESS:PORT")]
    admin_listen: Option<SocketAddr>,
    /// How long to wait for the answer
    #[arg(
        long,
        alias = "within-s",
        env = "HEADWATER_READY_WITHIN",
        value_name = "DURATION",
        value_parser = duration,
        default_value = "3s"
    )]
    within: Duration,
}

/// `Done` if the answer is a 2xx, `Failed` otherwise.
pub(crate) async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let url = if let Some(url) = args.url {
        url
    } else {
        let admin = headwater::http::admin_address(args.listen, args.admin_listen)?;
        format!("http://{}/readyz?verbose", reachable(admin))
            .parse()
            .context("build the URL of the address")?
    };
    let http = Client::builder()
        .no_proxy()
        .timeout(args.within)
        .build()
        .context("create an HTTP client")?;
    let answer = http.get(url.clone()).send().await;
    let answer = answer.with_context(|| format!("ask {url}"))?;
    let status = answer.status();
    if status.is_success() {
        if common.output == Format::Json {
            common.print(&json!({"url": url.as_str(), "status": status.as_u16()}))?;
        }
        return Ok(Exit::Done);
    }
    let what = format!("{url} answered {status}: {}", beginning(answer).await);
    common.refuse(&what, Exit::Failed)
}

/// A service that listens on all addresses is reached at the loopback address.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The beginning of an answer, with control characters escaped.
async fn beginning(mut answer: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < SHOWN_BYTES_MAX
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(SHOWN_BYTES_MAX);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}
