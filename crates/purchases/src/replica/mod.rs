//! Style replica: answers from a copy that events keep up to date.
//!
//! The note's "async, method 2"; in the field's words event-carried state transfer.

mod projection;
mod store;

use std::time::Duration;

use headwater::http::Problem;
use headwater::projection::{Progress, as_of, as_of_bare};
use headwater::{Database, Positions};
use uuid::Uuid;

pub use projection::Purchases;
pub use store::{erase_part, is_erasing};

use crate::answer::{Purchase, UserPurchases};

/// A user that the store knows, and how much they ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shopper {
    pub(crate) id: Uuid,
    pub(crate) products: i64,
}

/// The store and how far it is. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    db: Database,
    progress: Progress,
    deadline: Duration,
}

impl Replica {
    /// `deadline`: how long a read waits for what it asks to be in the answer.
    pub(crate) fn new(db: Database, progress: Progress, deadline: Duration) -> Self {
        Self {
            db,
            progress,
            deadline,
        }
    }

    /// What `user` ordered, in one snapshot that is at `after` at least. `None` if there is no
    /// such user.
    pub(crate) async fn purchases(
        &self,
        user: Uuid,
        after: &Positions,
    ) -> Result<Option<UserPurchases>, Problem> {
        self.progress.whole(after, self.deadline).await?;
        let read = move |snapshot: &_| {
            let as_of = as_of_bare::<Purchases>(snapshot)?;
            let purchases = store::purchases(snapshot, user)?;
            Ok::<_, Problem>(purchases.map(|purchases| UserPurchases {
                user_id: user,
                purchases,
                as_of: as_of.whole(),
                parked: as_of.parked,
            }))
        };
        self.db.read_bare(read).await
    }

    /// The `limit` users heard of last, and how far the store is.
    pub(crate) async fn shoppers(&self, limit: u32) -> Result<(Vec<Shopper>, Positions), Problem> {
        let nothing = Positions::default();
        self.progress.whole(&nothing, self.deadline).await?;
        let read = move |snapshot: &_| {
            let as_of = as_of::<Purchases>(snapshot)?.whole();
            Ok::<_, Problem>((store::shoppers(snapshot, limit)?, as_of))
        };
        self.db.read(read).await
    }
}
