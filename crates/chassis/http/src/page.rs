//! Lists in pages, by key: a page stays correct while rows before it come and go.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// The number of items that a client requests: 1 to `MAX`, `DEFAULT` if not given.
#[derive(Debug, Clone, Copy)]
pub struct Limit<const DEFAULT: usize, const MAX: usize>(usize);

impl<const DEFAULT: usize, const MAX: usize> Default for Limit<DEFAULT, MAX> {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

impl<'de, const DEFAULT: usize, const MAX: usize> Deserialize<'de> for Limit<DEFAULT, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match usize::deserialize(deserializer)? {
            limit if (1..=MAX).contains(&limit) => Ok(Self(limit)),
            _ => Err(D::Error::custom(format!("must be 1 to {MAX}"))),
        }
    }
}

impl<const DEFAULT: usize, const MAX: usize> Limit<DEFAULT, MAX> {
    /// The number of items, at most.
    pub fn get(self) -> usize {
        self.0
    }
}

/// Cuts `rows`, which were read with one more than `limit`, down to a page. Returns whether there
/// is another page.
pub fn cut<R>(rows: &mut Vec<R>, limit: usize) -> bool {
    let more = rows.len() > limit;
    rows.truncate(limit);
    more
}

/// The requested page of a list ordered by id.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// How many at most.
    #[serde(default)]
    #[param(value_type = usize, required = false, minimum = 1, maximum = 500, default = 50)]
    limit: Limit<50, 500>,
    /// Give those whose id comes after this one; `next` of the page before has it.
    start_after: Option<Uuid>,
}

/// A page of a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items of the page, ordered by id.
    pub items: Vec<T>,
    /// The address of the next page; `null` on the last.
    pub next: Option<String>,
}

impl PageQuery {
    /// The number of items, at most.
    pub fn limit(&self) -> usize {
        self.limit.get()
    }

    /// The id before the first item of the page; `None` on the first page.
    pub fn start_after(&self) -> Option<Uuid> {
        self.start_after
    }

    /// The page of `rows`, which were read with one more than the limit to show whether a next page
    /// exists. `link` makes the address of the page after an id.
    pub fn page<R, T>(
        &self,
        mut rows: Vec<R>,
        id: impl Fn(&R) -> Uuid,
        link: impl FnOnce(usize, Uuid) -> String,
        view: impl FnMut(R) -> T,
    ) -> Page<T> {
        let limit = self.limit();
        let more = cut(&mut rows, limit);
        let last = rows.last().filter(|_| more);
        let next = last.map(|last| link(limit, id(last)));
        Page {
            items: rows.into_iter().map(view).collect(),
            next,
        }
    }
}
