//! What others may ask over the bus: what a user ordered.

use events::inquiry::{self, OrdersAnswered, OrdersAsked};
use headwater::database::Snapshot;
use headwater::inquiry::Refusal;
use uuid::Uuid;

use crate::order::Order;
use crate::store;

/// How many orders one answer has at most.
const ORDERS_MAX: usize = 100;

/// How many lines they may have together: about 40 bytes each, so the answer stays below half of
/// the server's `max_payload`. One order always fits.
const LINES_MAX: usize = 5_000;

pub(crate) fn orders(snapshot: &Snapshot, asked: &OrdersAsked) -> Result<OrdersAnswered, Refusal> {
    let user = inquiry::id(&asked.user_id)?;
    let start_after = match asked.start_after.as_str() {
        "" => Uuid::nil(),
        id => inquiry::id(id)?,
    };
    // One more than there may be, to see whether there are more.
    let mut orders = store::page_of_user(snapshot, user, start_after, ORDERS_MAX as u64 + 1)?;
    let fitting = fitting(&orders);
    let more = fitting < orders.len();
    orders.truncate(fitting);
    let last = orders.last().filter(|_| more);
    Ok(OrdersAnswered {
        next: last.map(|order| order.id.to_string()).unwrap_or_default(),
        orders: orders.iter().map(Order::placed_event).collect(),
    })
}

/// How many of `orders` one answer has room for.
fn fitting(orders: &[Order]) -> usize {
    let mut lines = 0;
    let within = orders.iter().take(ORDERS_MAX).take_while(|order| {
        lines += order.product_ids.len();
        lines <= LINES_MAX
    });
    within.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(count: usize, lines: usize) -> Vec<Order> {
        let order = Order {
            id: Uuid::nil(),
            user_id: Uuid::nil(),
            product_ids: vec![Uuid::nil(); lines],
            placed_at: 0,
        };
        vec![order; count]
    }

    #[test]
    fn an_answer_has_a_hundred_orders_and_five_thousand_lines_at_most() {
        assert_eq!(fitting(&[]), 0);
        assert_eq!(fitting(&orders(100, 1)), 100);
        assert_eq!(fitting(&orders(101, 1)), 100);
        assert_eq!(fitting(&orders(50, 100)), 50);
        assert_eq!(fitting(&orders(50, 101)), 49);
        assert_eq!(fitting(&orders(7, crate::order::LINES_MAX)), 5);
    }
}
