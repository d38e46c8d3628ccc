//! A course as it runs: the streams, and the process that applies them.

use std::convert::Infallible;
use std::sync::Arc;

use headwater::database::Tx;
use headwater::projection::testing;
use headwater::{ApplyError, Envelope, EventId, Projection};
use sea_orm::DbErr;

use crate::projection::course::Step;

/// Work in the background.
type Settle = dyn Fn(&Tx) -> Result<(), DbErr> + Send + Sync;

/// What a course runs.
pub(super) struct Parts<P> {
    pub(super) projection: Arc<dyn Fn() -> P + Send + Sync>,
    /// The events of each source.
    pub(super) sources: Vec<(&'static str, Vec<Envelope>)>,
    pub(super) settle: Option<Arc<Settle>>,
}

/// The epoch of all sources.
const EPOCH: &str = "test";

/// A stream of a source.
#[derive(Debug, Clone)]
struct Stream {
    created: i64,
    /// The position of the event at each sequence; sequences begin at 1.
    stored: Vec<usize>,
    /// The last position that was applied.
    applied: usize,
}

/// A course that runs.
pub(super) struct Run<P> {
    projection: P,
    streams: Vec<Stream>,
}

impl<P: Projection> Run<P> {
    /// A process that has started, and streams without events.
    pub(super) fn begin(tx: &Tx, what: &Parts<P>) -> Result<Self, DbErr> {
        for (source, _) in &what.sources {
            testing::read_after::<P>(tx, (*source, 1), 0)?;
        }
        let stream = Stream {
            created: 1,
            stored: Vec::new(),
            applied: 0,
        };
        Ok(Self {
            projection: (what.projection)(),
            streams: vec![stream; what.sources.len()],
        })
    }

    /// Does one step.
    pub(super) fn step(&mut self, tx: &Tx, what: &Parts<P>, step: &Step) -> Result<(), ApplyError> {
        match *step {
            Step::Apply { source, events } => {
                let known = self.streams[source].publish(events);
                self.streams[source].applied += events;
                self.deliver(tx, what, source, known)?;
            }
            Step::RollBack { source, events } => {
                let before = self.streams[source].clone();
                let known = self.streams[source].publish(events);
                let rolled_back = tx.savepoint(|tx| {
                    self.deliver(tx, what, source, known)?;
                    Err::<Infallible, _>(RolledBack::OnPurpose)
                });
                if let Err(RolledBack::Failed(error)) = rolled_back {
                    return Err(error);
                }
                self.streams[source] = before;
            }
            Step::Duplicate { source, position } => {
                let stored = &mut self.streams[source].stored;
                stored.push(position);
                let known = stored.len() - 1;
                self.deliver(tx, what, source, known)?;
            }
            Step::Replay { source, position } => {
                let stream = &mut self.streams[source];
                if position == 1 {
                    stream.created += 1;
                    stream.stored = (1..=stream.applied).collect();
                }
                let known = stream.stored.iter().position(|it| *it == position);
                let (known, created) = (known.expect("it was applied"), stream.created);
                let name = what.sources[source].0;
                testing::read_after::<P>(tx, (name, created), known as u64)?;
                self.deliver(tx, what, source, known)?;
            }
            Step::Restart => self.projection = (what.projection)(),
            Step::Settle => {
                if let Some(settle) = &what.settle {
                    settle(tx)?;
                }
            }
        }
        Ok(())
    }

    /// Applies what the stream holds after `known`, as one batch.
    fn deliver(
        &self,
        tx: &Tx,
        what: &Parts<P>,
        source: usize,
        known: usize,
    ) -> Result<(), ApplyError> {
        let (name, events) = &what.sources[source];
        let stored = self.streams[source].stored.iter().enumerate().skip(known);
        let batch = stored.map(|(index, position)| Envelope {
            id: Some(EventId {
                source: (*name).into(),
                epoch: EPOCH.into(),
                position: *position as u64,
            }),
            sequence: Some(index as u64 + 1),
            ..events[*position - 1].clone()
        });
        let stream = (*name, self.streams[source].created);
        testing::apply(&self.projection, tx, stream, EPOCH, batch.collect())
    }
}

impl Stream {
    /// Adds the next events. Returns the last sequence before them.
    fn publish(&mut self, events: usize) -> usize {
        let known = self.stored.len();
        self.stored.extend(self.applied + 1..=self.applied + events);
        known
    }
}

/// Why a batch is rolled back.
enum RolledBack {
    OnPurpose,
    Failed(ApplyError),
}

impl From<DbErr> for RolledBack {
    fn from(error: DbErr) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ApplyError> for RolledBack {
    fn from(error: ApplyError) -> Self {
        Self::Failed(error)
    }
}
