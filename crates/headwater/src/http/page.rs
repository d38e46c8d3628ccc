//! Lists in pages, by key: a page stays right while rows come and go before it.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Problem;

/// The largest page.
const LIMIT_MAX: u64 = 500;

/// Which page a client asks for.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// How many at most: 1 to 500, 50 without it.
    limit: Option<u64>,
    /// Give those whose id comes after this one; `next` of the page before has it.
    start_after: Option<Uuid>,
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Page<T> {
    /// The page, by id.
    pub items: Vec<T>,
    /// Where the next page is; `null` on the last.
    pub next: Option<String>,
}

impl PageQuery {
    /// How many at most.
    ///
    /// # Errors
    /// The client asked for none, or for too many.
    pub fn limit(&self) -> Result<u64, Problem> {
        match self.limit.unwrap_or(50) {
            limit @ 1..=LIMIT_MAX => Ok(limit),
            _ => Err(Problem::bad_request(format!(
                "limit must be 1 to {LIMIT_MAX}"
            ))),
        }
    }

    /// The id before the first of the page: the nil UUID, which sorts before all, on the first.
    pub fn start_after(&self) -> Uuid {
        self.start_after.unwrap_or_default()
    }

    /// The page of `rows`, which were read with one more than the limit to see whether there is
    /// a next one. `link` makes the address of the page after an id.
    ///
    /// # Errors
    /// See [`limit`](Self::limit).
    pub fn page<R, T>(
        &self,
        mut rows: Vec<R>,
        id: impl Fn(&R) -> Uuid,
        link: impl FnOnce(u64, Uuid) -> String,
        view: impl FnMut(R) -> T,
    ) -> Result<Page<T>, Problem> {
        let limit = self.limit()?;
        let more = rows.len() as u64 > limit;
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let next = rows
            .last()
            .filter(|_| more)
            .map(|last| link(limit, id(last)));
        Ok(Page {
            items: rows.into_iter().map(view).collect(),
            next,
        })
    }
}
