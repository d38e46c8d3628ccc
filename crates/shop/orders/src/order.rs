//! Orders, and the decision whether an order can be placed.

use serde::{Deserialize, Serialize};
use shop_events::OrderPlaced;
use utoipa::ToSchema;
use uuid::Uuid;

/// The most lines an order may have.
pub(crate) const LINES_MAX: usize = 1000;

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) id: Uuid,
    pub(crate) user_id: Uuid,
    /// One per line; a product may occur twice.
    pub(crate) product_ids: Vec<Uuid>,
    /// Milliseconds since 1970.
    pub(crate) placed_at: i64,
}

/// An order as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct OrderView {
    pub(crate) id: Uuid,
    pub(crate) user_id: Uuid,
    /// One per line; a product may occur twice.
    pub(crate) product_ids: Vec<Uuid>,
    /// RFC 3339.
    #[schema(example = "2026-11-22T10:30:00Z")]
    pub(crate) placed_at: String,
}

/// A request to place an order.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceOrder {
    /// The order's id, if the client chooses it.
    pub(crate) id: Option<Uuid>,
    pub(crate) user_id: Uuid,
    /// 1 to 1,000, one per line; a product may occur twice.
    #[schema(min_items = 1, max_items = 1000)]
    pub(crate) product_ids: Vec<Uuid>,
}

/// Which of a request's ids this service knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) user: bool,
    pub(crate) products: Vec<Uuid>,
}

/// Why an order is rejected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejection {
    #[error("there is an order {0} from another request; leave the id out for a new order")]
    IdTaken(Uuid),
    #[error("{} of the order's values are invalid", .0.len())]
    Invalid(Vec<Invalid>),
}

/// Why a value of an order is invalid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("must name at least one product")]
    NoLines,
    #[error("must name at most {LINES_MAX} products, not {0}; place several orders")]
    TooManyLines(usize),
    #[error("there is no user {0}; {IF_NEW}")]
    UnknownUser(Uuid),
    #[error("there is no product {product}; {IF_NEW}")]
    UnknownProduct { line: usize, product: Uuid },
}

const IF_NEW: &str = "if it is new, send its Headwater-Position as ?after=";

impl PlaceOrder {
    /// Checks what does not depend on the known users and products.
    pub(crate) fn check(&self) -> Result<(), Rejection> {
        let wrong = match self.product_ids.len() {
            0 => Invalid::NoLines,
            1..=LINES_MAX => return Ok(()),
            lines => Invalid::TooManyLines(lines),
        };
        Err(Rejection::Invalid(vec![wrong]))
    }
}

/// Decides whether the order can be placed: every id in it must be known.
pub(crate) fn place(
    request: &PlaceOrder,
    id: Uuid,
    known: &Known,
    placed_at: i64,
) -> Result<Order, Rejection> {
    let unknown_user = (!known.user).then_some(Invalid::UnknownUser(request.user_id));
    let lines = request.product_ids.iter().copied().enumerate();
    let unknown_products = lines
        .filter(|(_, product)| known.products.binary_search(product).is_err())
        .map(|(line, product)| Invalid::UnknownProduct { line, product });
    let wrong: Vec<_> = unknown_user.into_iter().chain(unknown_products).collect();
    if !wrong.is_empty() {
        return Err(Rejection::Invalid(wrong));
    }
    Ok(Order {
        id,
        user_id: request.user_id,
        product_ids: request.product_ids.clone(),
        placed_at,
    })
}

impl Order {
    pub(crate) fn placed_event(&self) -> OrderPlaced {
        OrderPlaced {
            order_id: self.id.to_string(),
            user_id: self.user_id.to_string(),
            product_ids: self.product_ids.iter().map(Uuid::to_string).collect(),
            placed_at: Some(shop_events::timestamp(self.placed_at)),
        }
    }
}

impl From<Order> for OrderView {
    fn from(order: Order) -> Self {
        Self {
            id: order.id,
            user_id: order.user_id,
            product_ids: order.product_ids,
            placed_at: shop_events::timestamp(order.placed_at).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(lines: usize) -> PlaceOrder {
        PlaceOrder {
            id: None,
            user_id: Uuid::from_u128(1),
            product_ids: (0..lines)
                .map(|line| Uuid::from_u128(line as u128))
                .collect(),
        }
    }

    #[test]
    fn an_order_has_one_to_a_thousand_lines() {
        let rejected = |wrong| Err(Rejection::Invalid(vec![wrong]));
        assert_eq!(request(0).check(), rejected(Invalid::NoLines));
        assert_eq!(request(1).check(), Ok(()));
        assert_eq!(request(1000).check(), Ok(()));
        let too_many = rejected(Invalid::TooManyLines(1001));
        assert_eq!(request(1001).check(), too_many);
    }

    #[test]
    fn an_order_names_only_what_is_known() {
        let request = request(2);
        let all = Known {
            user: true,
            products: request.product_ids.clone(),
        };
        let order = place(&request, Uuid::nil(), &all, 7).unwrap();
        assert_eq!(order.product_ids, request.product_ids);

        let no_user = Known {
            user: false,
            ..all.clone()
        };
        let unknown_user = Invalid::UnknownUser(request.user_id);
        assert_eq!(
            place(&request, Uuid::nil(), &no_user, 7),
            Err(Rejection::Invalid(vec![unknown_user]))
        );
        let one_product = Known {
            products: vec![request.product_ids[0]],
            ..all
        };
        let (line, product) = (1, request.product_ids[1]);
        assert_eq!(
            place(&request, Uuid::nil(), &one_product, 7),
            Err(Rejection::Invalid(vec![Invalid::UnknownProduct {
                line,
                product
            }]))
        );
    }
}
