//! Style replica: answers from a copy that events keep up to date. The pattern is called
//! event-carried state transfer.

mod projection;
mod store;

use std::time::Duration;

use headwater::http::{Problem, cut};
use headwater::projection::{Progress, as_of, as_of_raw};
use headwater::{Database, Positions};
use uuid::Uuid;

pub use projection::Purchases;
pub use store::{erase_part, is_erasing};

use crate::purchase::{Found, Part, Shopper};

/// The store and its progress. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    db: Database,
    progress: Progress,
    deadline: Duration,
}

impl Replica {
    /// `deadline`: how long a read waits for the positions of `?after`.
    pub(crate) fn new(db: Database, progress: Progress, deadline: Duration) -> Self {
        Self {
            db,
            progress,
            deadline,
        }
    }

    /// A part of what `user` ordered, from one snapshot, at least as of `after`. `None` if there is
    /// no such user.
    pub(crate) async fn purchases(
        &self,
        user: Uuid,
        part: Part,
        after: &Positions,
    ) -> Result<Option<Found>, Problem> {
        self.progress.caught_up(after, self.deadline).await?;
        let read = move |snapshot: &_| {
            let as_of = as_of_raw::<Purchases>(snapshot)?;
            let Some(mut purchases) = store::purchases(snapshot, user, part)? else {
                return Ok::<_, Problem>(None);
            };
            let more = cut(&mut purchases, part.limit);
            Ok(Some(Found {
                purchases,
                more,
                as_of: as_of.without_gaps(),
                parked: as_of.parked,
            }))
        };
        self.db.read_raw(read).await
    }

    /// The `limit` newest users, and the position of the store.
    pub(crate) async fn shoppers(&self, limit: u32) -> Result<(Vec<Shopper>, Positions), Problem> {
        let nothing = Positions::default();
        self.progress.caught_up(&nothing, self.deadline).await?;
        let read = move |snapshot: &_| {
            let as_of = as_of::<Purchases>(snapshot)?.without_gaps();
            Ok::<_, Problem>((store::shoppers(snapshot, limit)?, as_of))
        };
        self.db.read(read).await
    }
}
