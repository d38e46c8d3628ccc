//! Orders: the decision whether one can be placed.

use headwater::http::{Invalid, Problem};
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
    /// One a line; a product may come up twice.
    pub(crate) product_ids: Vec<Uuid>,
    /// Milliseconds since 1970.
    pub(crate) placed_at: i64,
}

/// An order, as the service shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct OrderView {
    pub(crate) id: Uuid,
    pub(crate) user_id: Uuid,
    /// One a line; a product may come up twice.
    pub(crate) product_ids: Vec<Uuid>,
    /// RFC 3339.
    #[schema(example = "2026-11-22T10:30:00Z")]
    pub(crate) placed_at: String,
}

/// A request to place an order.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceOrder {
    /// The order's id, if the client wants to choose it.
    pub(crate) id: Option<Uuid>,
    pub(crate) user_id: Uuid,
    /// 1 to 1,000, one a line; a product may come up twice.
    #[schema(min_items = 1, max_items = 1000)]
    pub(crate) product_ids: Vec<Uuid>,
}

/// What of a request's ids this service knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) user: bool,
    pub(crate) products: Vec<Uuid>,
}

impl PlaceOrder {
    /// Checks what can be checked without knowing anything.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let lines = self.product_ids.len();
        let mut invalid = Invalid::none();
        invalid.require(lines > 0, "/product_ids", "must name at least one product");
        invalid.require(
            lines <= LINES_MAX,
            "/product_ids",
            format!(
                "must name at most {LINES_MAX} products, this is {lines}; place several orders"
            ),
        );
        invalid.check()
    }
}

/// Decides whether the order can be placed: every id in it must be known.
pub(crate) fn place(
    request: &PlaceOrder,
    id: Uuid,
    known: &Known,
    placed_at: i64,
) -> Result<Order, Problem> {
    let again = "if it was made a moment ago, send its Headwater-Position along as ?after=";
    let mut invalid = Invalid::none();
    invalid.require(
        known.user,
        "/user_id",
        format!("there is no user {}; {again}", request.user_id),
    );
    for (line, product) in request.product_ids.iter().enumerate() {
        invalid.require(
            known.products.binary_search(product).is_ok(),
            format!("/product_ids/{line}"),
            format!("there is no product {product}; {again}"),
        );
    }
    invalid.check()?;
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
        assert!(request(0).check().is_err());
        assert!(request(1).check().is_ok());
        assert!(request(1000).check().is_ok());
        assert!(request(1001).check().is_err());
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
        assert!(place(&request, Uuid::nil(), &no_user, 7).is_err());
        let one_product = Known {
            products: vec![request.product_ids[0]],
            ..all
        };
        let problem = place(&request, Uuid::nil(), &one_product, 7).unwrap_err();
        assert!(format!("{problem:?}").contains("/product_ids/1"));
    }
}
