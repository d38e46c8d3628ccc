//! A source's outbox, read through its admin endpoint.

use anyhow::Context as _;
use client::Nats;
use headwater::operator::{Endpoint, EventsAnswer, EventsRequest, fetch_events};
use headwater::outbox::Row;

/// Rows per request when reading forward: as many as the source returns at once.
const FORWARD: usize = 1000;

/// Rows per request when looking back at a difference.
const BACK: usize = 100;

/// An outbox being read: mostly forward, sometimes back.
pub(crate) struct Outbox<'a> {
    nats: &'a Nats,
    source: &'a str,
    epoch: &'a str,
    /// The newest known position.
    head: u64,
    forward: Vec<Row>,
    back: Vec<Row>,
}

impl<'a> Outbox<'a> {
    pub(crate) fn new(nats: &'a Nats, source: &'a str, epoch: &'a str, head: u64) -> Self {
        Self {
            nats,
            source,
            epoch,
            head,
            forward: Vec::new(),
            back: Vec::new(),
        }
    }

    /// Whether `position` is beyond the outbox. The outbox grows while it is read, so its end is
    /// read again first.
    pub(crate) async fn ends_before(&mut self, position: u64) -> anyhow::Result<bool> {
        if position > self.head {
            self.page(position, 1).await?;
        }
        Ok(position > self.head)
    }

    /// The row at `position`, if it exists.
    pub(crate) async fn row(&mut self, position: u64) -> anyhow::Result<Option<&Row>> {
        let end = self.forward.last().map_or(0, |row| row.position);
        let begin = self.forward.first().map_or(0, |row| row.position);
        if position > end {
            self.forward = self.page(position, FORWARD).await?;
        } else if position < begin && find(&self.back, position).is_none() {
            self.back = self.page(position, BACK).await?;
        }
        Ok(find(&self.forward, position).or_else(|| find(&self.back, position)))
    }

    async fn page(&mut self, from: u64, limit: usize) -> anyhow::Result<Vec<Row>> {
        let request = EventsRequest {
            epoch: Some(self.epoch.to_owned()),
            from,
            limit,
            ..EventsRequest::default()
        };
        let answer = fetch_events(request, async |request| {
            let asked = self.nats.ask(self.source, Endpoint::Events, &request);
            asked.await as Result<EventsAnswer, client::Error>
        })
        .await
        .with_context(|| format!("read the outbox of {} from {from} on", self.source))?;
        self.head = self.head.max(answer.head);
        Ok(answer.events)
    }
}

fn find(page: &[Row], position: u64) -> Option<&Row> {
    let index = page.binary_search_by_key(&position, |row| row.position);
    index.ok().map(|index| &page[index])
}
