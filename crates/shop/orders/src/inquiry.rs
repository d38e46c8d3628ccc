//! The question that other services may ask over the bus: what did a user order?

use headwater::database::Snapshot;
use headwater::request_reply::Refusal;
use shop_events::{OrderPlaced, OrdersAnswered, OrdersAsked, inquiry};

use crate::order::Order;
use crate::store;

/// The most orders per answer.
const ORDERS_MAX: usize = 100;

/// The most bytes of an answer without its orders: `next`.
const NEXT_BYTES: usize = 64;

/// A page of a user's orders, as many as fit into `room` bytes.
pub(crate) fn orders(
    snapshot: &Snapshot,
    asked: &OrdersAsked,
    room: usize,
) -> Result<OrdersAnswered, Refusal> {
    let user = shop_events::id(&asked.user_id)?;
    let start_after = match asked.start_after.as_str() {
        "" => None,
        id => Some(shop_events::id(id)?),
    };
    // One more than the limit, to see whether there are more.
    let orders = store::page_of_user(snapshot, user, start_after, ORDERS_MAX + 1)?;
    page(orders.iter().map(Order::placed_event), room)
}

/// The first of `orders` that fit into `room` bytes, at most [`ORDERS_MAX`].
fn page(orders: impl Iterator<Item = OrderPlaced>, room: usize) -> Result<OrdersAnswered, Refusal> {
    let mut answer = OrdersAnswered::default();
    let mut bytes = NEXT_BYTES;
    for order in orders {
        bytes += inquiry::field_bytes(&order);
        if bytes > room || answer.orders.len() == ORDERS_MAX {
            let Some(last) = answer.orders.last() else {
                let what = format!("the order {}", order.order_id);
                return Err(Refusal::TooLarge { what, bytes, room });
            };
            answer.next.clone_from(&last.order_id);
            break;
        }
        answer.orders.push(order);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const ROOM: usize = 512 * 1024;

    fn orders(count: usize, lines: usize) -> impl Iterator<Item = OrderPlaced> {
        let order = Order {
            id: Uuid::nil(),
            user_id: Uuid::nil(),
            product_ids: vec![Uuid::nil(); lines],
            placed_at: 0,
        };
        std::iter::repeat_n(order.placed_event(), count)
    }

    /// The number of orders on the page, and whether there are more.
    fn paged(orders: impl Iterator<Item = OrderPlaced>, room: usize) -> (usize, bool) {
        let page = page(orders, room).expect("a page");
        assert!(inquiry::field_bytes(&page) <= room + 8);
        (page.orders.len(), !page.next.is_empty())
    }

    #[test]
    fn a_page_has_a_hundred_orders_at_most_and_what_there_is_room_for() {
        assert_eq!(paged(orders(0, 0), ROOM), (0, false));
        assert_eq!(paged(orders(100, 1), ROOM), (100, false));
        assert_eq!(paged(orders(101, 1), ROOM), (100, true));
        let lines = crate::order::LINES_MAX;
        assert_eq!(paged(orders(13, lines), ROOM), (13, false));
        assert_eq!(paged(orders(14, lines), ROOM), (13, true));
        assert_eq!(paged(orders(7, lines), 64 * 1024), (1, true));
        assert_eq!(paged(orders(7, 10), 1024), (2, true));
    }

    #[test]
    fn an_order_that_alone_is_too_large_is_named() {
        let refused = page(orders(2, 1000), 32 * 1024).expect_err("refused");
        let text = refused.to_string();
        assert!(text.contains(&Uuid::nil().to_string()), "{text}");
        assert!(text.contains("room for 32768"), "{text}");
    }
}
