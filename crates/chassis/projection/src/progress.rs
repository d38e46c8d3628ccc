//! Waits until a projection has applied what a client wants to see.

use std::time::Duration;

use headwater_event::{AsOf, Behind, Positions};
use headwater_store::{Database, Snapshot};
use headwater_telemetry::Clock;
use headwater_telemetry::trace::{self, SpanKind};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::dead_letter;
use crate::dead_letter::insert::FirstLetter;
use headwater_store::follow::{Follower, Followers};

/// How far a projection has got. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Progress {
    projection: &'static str,
    db: Database,
    as_of: watch::Receiver<AsOf>,
    is_complete: watch::Receiver<bool>,
    followers: Followers,
}

impl Progress {
    pub(super) fn new(
        projection: &'static str,
        db: Database,
        as_of: watch::Receiver<AsOf>,
        is_complete: watch::Receiver<bool>,
        followers: Followers,
    ) -> Self {
        Self {
            projection,
            db,
            as_of,
            is_complete,
            followers,
        }
    }

    /// The positions that are applied now.
    pub fn now(&self) -> Positions {
        self.as_of.borrow().applied.clone()
    }

    /// Whether the tables were once built to the end of all sources. Before that, a row that is
    /// missing may well exist: "not found" would be wrong.
    pub fn is_complete(&self) -> bool {
        *self.is_complete.borrow()
    }

    /// Waits until the positions differ from `from`; returns the new ones.
    pub async fn moved(&self, from: &Positions) -> Positions {
        let mut receiver = self.as_of.clone();
        let moved = receiver.wait_for(|at| at.applied != *from).await;
        let Ok(moved) = moved.map(|at| at.applied.clone()) else {
            return std::future::pending().await;
        };
        moved
    }

    /// Wakes a reader when what it shows has changed: name the keys
    /// ([`Projection::key`](crate::Projection::key)) with [`Follower::set`], then read, then wait.
    ///
    /// It costs a look-up for each applied event, however many follow; a reader that follows reads
    /// the database only after it was woken.
    pub fn follow(&self) -> Follower {
        self.followers.follow()
    }

    /// Waits until every position in `asked` is applied and the tables are complete, at most
    /// `within` for both together.
    ///
    /// # Errors
    /// See [`Behind`].
    pub async fn caught_up(&self, asked: &Positions, within: Duration) -> Result<(), Behind> {
        let deadline = Instant::now() + within;
        self.reach(asked, deadline).await?;
        let mut receiver = self.is_complete.clone();
        let complete = receiver.wait_for(|is_complete| *is_complete);
        match timeout_at(deadline, complete).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Behind::Incomplete { at: self.now() }),
        }
    }

    /// Waits until every position in `asked` is applied, at most `within`. A read that begins
    /// afterwards sees them.
    ///
    /// # Errors
    /// See [`Behind`].
    pub async fn wait(&self, asked: &Positions, within: Duration) -> Result<(), Behind> {
        self.reach(asked, Instant::now() + within).await
    }

    async fn reach(&self, asked: &Positions, deadline: Instant) -> Result<(), Behind> {
        if let Some(unknown) = asked
            .0
            .keys()
            .find(|source| !self.as_of.borrow().applied.0.contains_key(*source))
        {
            return Err(Behind::UnknownSource(unknown.clone()));
        }
        let mut receiver = self.as_of.clone();
        let is_reached = receiver.borrow().applied.reach(asked);
        if !is_reached {
            let span = trace::part(SpanKind::Internal, || "wait for positions");
            if span.is_recording() {
                span.set("headwater.after", asked.to_string());
            }
            // A dead letter is not applied by waiting.
            let reached =
                receiver.wait_for(|at| at.applied.reach(asked) || is_parked(&at.parked, asked));
            if !matches!(timeout_at(deadline, reached).await, Ok(Ok(_))) {
                return Err(self.not_yet(asked));
            }
        }
        let parked = receiver.borrow().parked.clone();
        if is_parked(&parked, asked) {
            self.expect_nothing_parked(asked).await?;
            // The dead letter was retried or discarded just now.
            let reached = receiver.wait_for(|at| at.applied.reach(asked));
            if !matches!(timeout_at(deadline, reached).await, Ok(Ok(_))) {
                return Err(self.not_yet(asked));
            }
        }
        Ok(())
    }

    fn not_yet(&self, asked: &Positions) -> Behind {
        Behind::NotYet {
            at: self.now(),
            asked: asked.clone(),
        }
    }

    /// Fails with the first dead letter at or before a position in `asked`, as the database has it:
    /// an operator may have retried or discarded the remembered one.
    async fn expect_nothing_parked(&self, asked: &Positions) -> Result<(), Behind> {
        for (source, upto) in &asked.0 {
            let (projection, of, upto) = (self.projection, source.clone(), *upto);
            let find = move |snapshot: &Snapshot| {
                dead_letter::first_parked(snapshot, projection, &of, upto)
            };
            match self.db.read(find).await {
                Ok(None) => {}
                Ok(Some(first)) => return Err(parked(source, first)),
                Err(error) => {
                    tracing::warn!(projection, source, %error, "could not read the dead letters");
                    return Err(self.not_yet(asked));
                }
            }
        }
        Ok(())
    }
}

/// Whether a first dead letter is at or before the position in `asked`.
fn is_parked(parked: &Positions, asked: &Positions) -> bool {
    let mut first = parked.0.iter();
    first.any(|(source, first)| asked.get(source) >= *first)
}

fn parked(source: &str, first: FirstLetter) -> Behind {
    Behind::DeadLettered {
        source_name: source.to_owned(),
        position: first.position,
        events: first.events,
        lane: first.blocked_key,
        reason: first.reason,
        since: Clock::text(first.recorded_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(text: &str) -> Positions {
        text.parse().unwrap()
    }

    /// A projection that reaches `sensors:1` half-way to the deadline, and is not complete by then.
    #[tokio::test]
    async fn positions_and_wholeness_share_one_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let config = headwater_store::Config::at(folder.path().join("house.db"));
        let db = Database::open("house", &config, &[], Clock::system()).await;
        let (as_of, as_of_receiver) = watch::channel(AsOf {
            applied: positions("sensors:0"),
            parked: Positions::default(),
        });
        let (_is_complete, complete_receiver) = watch::channel(false);
        let followers = Followers::default();
        let progress = Progress::new(
            "readings",
            db.unwrap(),
            as_of_receiver,
            complete_receiver,
            followers,
        );
        let (began, within) = (Instant::now(), Duration::from_millis(400));
        let reached = async {
            let half_way = timeout_at(began + within / 2, std::future::pending::<()>());
            half_way.await.unwrap_err();
            as_of.send_modify(|as_of| as_of.applied = positions("sensors:1"));
        };
        let asked = positions("sensors:1");
        // A second deadline for the second wait would end at one and a half.
        let waited = timeout_at(began + within * 5 / 4, progress.caught_up(&asked, within));
        let (waited, ()) = tokio::join!(waited, reached);
        let behind = waited.expect("one deadline for both").unwrap_err();
        assert!(matches!(
            behind,
            Behind::Incomplete { .. } | Behind::NotYet { .. }
        ));
    }

    #[test]
    fn what_is_parked_and_what_comes_after_it_is_not_whole() {
        let as_of = AsOf {
            applied: positions("orders:16,users:3"),
            parked: positions("orders:15"),
        };
        assert_eq!(as_of.without_gaps(), positions("orders:14,users:3"));
        assert!(!is_parked(&as_of.parked, &positions("orders:14,users:9")));
        assert!(is_parked(&as_of.parked, &positions("orders:15")));
        assert!(is_parked(&as_of.parked, &positions("orders:16,users:3")));
    }
}
