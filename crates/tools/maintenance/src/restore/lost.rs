//! What the present database, the stream and the projections have that a copy does not.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use client::{Nats, Tail};
use headwater::backup::{self, Facts};
use headwater::stream;
use survey::Topology;

/// Events that the copy does not have.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lost {
    /// Events of the copy's own epoch.
    own: u64,
    /// Events of another epoch, which the present database or the stream has.
    other: u64,
    /// The position up to which that epoch has the same events as the copy, as far as known.
    shared: u64,
    /// Whether other services have seen any of them, or know another epoch: the positions are in
    /// use.
    pub(crate) is_seen: bool,
}

impl Lost {
    /// What the copy `file`, with the facts `copy`, lacks.
    pub(crate) async fn of(
        nats: &Nats,
        copy: &Facts,
        file: &Path,
        database: &Path,
    ) -> anyhow::Result<Self> {
        let mut lost = Self::default();
        lost.look_at_database(copy, file, database);
        lost.look_at_stream(nats, copy).await?;
        lost.look_at_projections(nats, copy).await?;
        lost.other = lost.other.saturating_sub(lost.shared);
        Ok(lost)
    }

    pub(crate) fn events(&self) -> u64 {
        self.own + self.other
    }

    /// The loss and its consequences, one sentence each.
    pub(crate) fn lines(&self, service: &str, head: u64) -> Vec<String> {
        let (own, other, shared, events) = (self.own, self.other, self.shared, self.events());
        let mut lines = Vec::new();
        if own > 0 {
            lines.push(format!(
                "LOST at the source: the {own} events after {service}:{head}"
            ));
        }
        if other > 0 {
            lines.push(format!(
                "LOST at the source: {other} events of another epoch than the copy's, all that \
                 it has after {service}:{shared}"
            ));
        }
        if events > 0 {
            lines.push(format!(
                "read them now with `headwater tail '{service}.>' --last {events} --no-follow`, \
                 and repeat those that must not be lost"
            ));
        }
        if self.is_seen {
            lines.push(format!(
                "others have seen events that the copy does not have: it starts a new epoch, the \
                 stream {} is created again from it, and the projections of {service} are rebuilt",
                stream::name(service)
            ));
        }
        lines
    }

    /// Whether confirming `other` also confirms this.
    pub(crate) fn is_no_more_than(&self, other: &Self) -> bool {
        let is_loss_confirmed = other.events() > 0 || self.events() == 0;
        is_loss_confirmed && (other.is_seen || !self.is_seen)
    }

    fn look_at_database(&mut self, copy: &Facts, file: &Path, database: &Path) {
        match Facts::of(database) {
            Ok(present) if present.epoch == copy.epoch => self.has_own(copy, present.head),
            Ok(present) => {
                // If it is damaged, all its events are lost.
                self.shared = backup::common(file, database).unwrap_or(0);
                self.other = present.head;
            }
            Err(_) => {}
        }
    }

    async fn look_at_stream(&mut self, nats: &Nats, copy: &Facts) -> anyhow::Result<()> {
        let source = &copy.owner;
        let Some(found) = nats.stream(&stream::name(source)).await? else {
            return Ok(());
        };
        let end = |epoch| Tail::read(nats, found.cached_info(), source, epoch);
        let own = end(Some(&*copy.epoch))
            .await?
            .map_or(0, |tail| tail.position);
        let any = end(None).await?.map(|tail| tail.position);
        self.has_own(copy, own);
        if own == 0 {
            self.other = self.other.max(any.unwrap_or(0));
        }
        // `None`: no event of the source is near the stream's end.
        self.is_seen = own > copy.head || (own == 0 && any != Some(0));
        Ok(())
    }

    async fn look_at_projections(&mut self, nats: &Nats, copy: &Facts) -> anyhow::Result<()> {
        let topology = Topology::look(nats, &BTreeSet::new(), Duration::ZERO).await?;
        for (_, status) in topology.projections() {
            let Some(epoch) = status.epochs.get(&copy.owner) else {
                continue;
            };
            let applied = status.positions.get(&copy.owner);
            if *epoch == copy.epoch {
                self.is_seen |= applied > copy.head;
                self.has_own(copy, applied);
            } else {
                self.is_seen |= applied > 0;
                self.other = self.other.max(applied);
            }
        }
        Ok(())
    }

    /// Notes that events of the copy's own epoch exist up to `head`.
    fn has_own(&mut self, copy: &Facts, head: u64) {
        self.own = self.own.max(head.saturating_sub(copy.head));
    }
}
