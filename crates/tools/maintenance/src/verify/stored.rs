//! A source's stream, read once from its first event to its last.

use anyhow::ensure;
use async_nats::jetstream::stream::Stream;
use client::Nats;
use client::direct::{Event, Reader};
use headwater::stream;

/// How often an event is requested if it does not arrive.
const TRIES: u32 = 3;

/// A stream being read.
pub(crate) struct Stored<'a> {
    nats: &'a Nats,
    name: String,
    /// The stream as last seen; `None` until it exists.
    stream: Option<Stream>,
    reader: Reader,
}

impl<'a> Stored<'a> {
    pub(crate) fn new(nats: &'a Nats, source: &str) -> Self {
        Self {
            nats,
            name: stream::name(source),
            stream: None,
            reader: Reader::new(nats, &[">".to_owned()], 1),
        }
    }

    /// The stream's last sequence as last seen; events are read up to here.
    pub(crate) fn last(&self) -> u64 {
        self.stream.as_ref().map_or(0, last)
    }

    /// Updates the stream's end. A stream that does not exist yet ends before its first event.
    pub(crate) async fn look(&mut self) -> anyhow::Result<()> {
        let Some(stream) = self.nats.stream(&self.name).await? else {
            return Ok(());
        };
        if let Some(before) = &self.stream {
            let is_same = before.cached_info().created == stream.cached_info().created;
            ensure!(
                is_same && last(before) <= last(&stream),
                "the stream {} was replaced, or lost its end, while it was read: run verify again",
                self.name
            );
        }
        self.stream = Some(stream);
        Ok(())
    }

    /// The next event, up to the end last seen.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        let Some(stream) = &self.stream else {
            return Ok(None);
        };
        let mut tries = 1;
        loop {
            match self.reader.next(stream, last(stream)).await {
                Err(error) if tries == TRIES => {
                    self.nats.expect_connected()?;
                    return Err(error.context(format!("read the stream {}", self.name)));
                }
                Err(_) => tries += 1,
                read => return read,
            }
        }
    }
}

fn last(stream: &Stream) -> u64 {
    stream.cached_info().state.last_sequence
}
