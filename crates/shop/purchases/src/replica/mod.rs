//! Style replica: answers from a copy that events keep up to date. The pattern is called
//! event-carried state transfer.

mod lists;
mod projection;
mod recent;
mod store;

use std::time::Duration;

use headwater::database::RawSnapshot;
use headwater::http::{Problem, cut};
use headwater::projection::{Follower, Progress, as_of_raw};
use headwater::{Database, Positions};
use sea_orm::DbErr;
use uuid::Uuid;

pub use projection::Purchases;
pub use store::{erase_part, is_erasing};

use crate::list::{self, Listed, Product, Sales, Shopper};
use crate::purchase::{Found, Part};

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
            let Some(number) = store::number_of(snapshot, user)? else {
                return Ok::<_, Problem>(None);
            };
            let mut purchases = store::purchases(snapshot, number, part)?;
            let more = cut(&mut purchases, part.limit);
            Ok(Some(Found {
                purchases,
                more,
                newest: if part.with_newest {
                    store::newest(snapshot, number)?
                } else {
                    None
                },
                as_of: as_of.without_gaps(),
                parked: as_of.parked,
            }))
        };
        self.db.read_raw(read).await
    }

    /// Wakes a stream when what it shows has changed: the keys are ids of users and products.
    pub(crate) fn follow(&self) -> Follower {
        self.progress.follow()
    }

    /// Whether nothing was applied since `found` was read.
    pub(crate) fn is_now(&self, found: &Found) -> bool {
        found.parked.is_empty() && self.progress.now() == found.as_of
    }

    /// A page of the list of users.
    pub(crate) async fn users(
        &self,
        from: list::From,
        limit: usize,
    ) -> Result<Listed<Shopper, list::From>, Problem> {
        self.list(move |snapshot| lists::users(snapshot, from, limit))
            .await
    }

    /// Those of `users` who are known here, in their order.
    pub(crate) async fn known(&self, users: Vec<Uuid>) -> Result<Listed<Shopper>, Problem> {
        self.list(move |snapshot| Ok((lists::known(snapshot, &users)?, None)))
            .await
    }

    /// A page of the products, the newest first; with `words`, a query of FTS5, of those whose
    /// titles have them. `None` if too many have them to look through.
    pub(crate) async fn products(
        &self,
        words: Option<String>,
        from: Option<Uuid>,
        limit: usize,
    ) -> Result<Option<Listed<Product>>, Problem> {
        let found =
            self.read(move |snapshot| lists::products(snapshot, words.as_deref(), from, limit + 1));
        let (found, as_of) = found.await?;
        Ok(found.map(|mut found| {
            let more = cut(&mut found, limit);
            let items: Vec<Product> = found.into_iter().map(|(_, product)| product).collect();
            let next = items.last().filter(|_| more).map(|product| product.id);
            Listed { items, next, as_of }
        }))
    }

    /// The products with these ids that are known here, in their order.
    pub(crate) async fn some_products(&self, ids: Vec<Uuid>) -> Result<Vec<Product>, Problem> {
        let found = self.list(move |snapshot| {
            let find = |id: &Uuid| lists::find_product(snapshot, *id).transpose();
            let found = ids.iter().filter_map(find).collect::<Result<Vec<_>, _>>()?;
            let found = found.into_iter().map(|(_, product)| product);
            Ok((found.collect(), None::<Uuid>))
        });
        Ok(found.await?.items)
    }

    /// A page of the users who ordered a product whose title has the `words`, the newest user
    /// first. It may be short and followed by more. `None` if too many titles have the words.
    pub(crate) async fn buyers(
        &self,
        words: String,
        from: Option<Uuid>,
        limit: usize,
    ) -> Result<Option<Listed<Shopper>>, Problem> {
        let found = self.read(move |snapshot| {
            let found = lists::products(snapshot, Some(&words), None, lists::FOUND_MAX)?;
            let Some(found) = found else {
                return Ok(None);
            };
            let found: Vec<i64> = found.into_iter().map(|(number, _)| number).collect();
            lists::buyers(snapshot, &found, from, limit).map(Some)
        });
        let (found, as_of) = found.await?;
        Ok(found.map(|(items, next)| Listed { items, next, as_of }))
    }

    /// A product, who ordered it, and as of when; `None` if there is no such product.
    pub(crate) async fn product(
        &self,
        product: Uuid,
    ) -> Result<Option<(Product, Sales, Positions)>, Problem> {
        let found = self.read(move |snapshot| {
            let Some((number, product)) = lists::find_product(snapshot, product)? else {
                return Ok(None);
            };
            Ok(Some((product, lists::sales(snapshot, number)?)))
        });
        let (found, as_of) = found.await?;
        Ok(found.map(|(product, sales)| (product, sales, as_of)))
    }

    /// Waits until the store includes `after`.
    pub(crate) async fn reach(&self, after: &Positions) -> Result<(), Problem> {
        Ok(self.progress.caught_up(after, self.deadline).await?)
    }

    /// Waits until there is a store to read from.
    async fn start_up(&self) -> Result<(), Problem> {
        self.reach(&Positions::default()).await
    }

    async fn list<T: Send + 'static, F: Send + 'static>(
        &self,
        read: impl FnOnce(&RawSnapshot) -> Result<(Vec<T>, Option<F>), DbErr> + Send + 'static,
    ) -> Result<Listed<T, F>, Problem> {
        let ((items, next), as_of) = self.read(read).await?;
        Ok(Listed { items, next, as_of })
    }

    /// The result of `read`, and as of when.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&RawSnapshot) -> Result<T, DbErr> + Send + 'static,
    ) -> Result<(T, Positions), Problem> {
        self.start_up().await?;
        let read = move |snapshot: &RawSnapshot| {
            let as_of = as_of_raw::<Purchases>(snapshot)?.without_gaps();
            Ok::<_, Problem>((read(snapshot)?, as_of))
        };
        self.db.read_raw(read).await
    }
}
