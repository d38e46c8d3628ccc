//! Sees the events of all sources as the relays publish them.

use anyhow::Context as _;
use async_nats::ConnectOptions;
use async_nats::header::NATS_MESSAGE_ID;
use futures_util::StreamExt as _;
use futures_util::stream::select_all;

use super::board::Board;
use crate::service::Service;

/// Runs until it is dropped; returns early if the broker is not ours and refuses us.
pub(super) async fn watch(urls: String, board: Board) -> anyhow::Result<()> {
    let addresses: Vec<&str> = urls.split(',').map(str::trim).collect();
    let options = ConnectOptions::new()
        .name("cargo dev: control room")
        .retry_on_initial_connect();
    let bus = options
        .connect(addresses)
        .await
        .context("connect to NATS")?;
    let mut all = Vec::new();
    for source in Service::all().filter(|service| service.is_source()) {
        let subjects = format!("{}.>", source.name());
        all.push(bus.subscribe(subjects).await.context("subscribe")?);
    }
    let mut events = select_all(all);
    while let Some(event) = events.next().await {
        let id = event
            .headers
            .as_ref()
            .and_then(|it| it.get(NATS_MESSAGE_ID));
        if let Some((source, position)) = id.and_then(|id| parts(id.as_str())) {
            board.known().published(source, position);
        }
    }
    Ok(())
}

/// Source and position of `SOURCE.EPOCH.POSITION`.
fn parts(id: &str) -> Option<(&str, u64)> {
    let mut parts = id.split('.');
    let (source, _epoch, position) = (parts.next()?, parts.next()?, parts.next()?);
    Some((source, position.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_source_and_position() {
        assert_eq!(parts("orders.0199.17"), Some(("orders", 17)));
        assert_eq!(parts("by-hand"), None);
    }
}
