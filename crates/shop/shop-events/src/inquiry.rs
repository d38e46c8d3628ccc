//! Questions and answers: what services may ask each other over the bus.

use headwater_event::schema::Question;

pub use crate::generated::shop::orders::v1::{OrdersAnswered, OrdersAsked};
pub use crate::generated::shop::products::v1::{Product, ProductsAnswered, ProductsAsked};
pub use crate::generated::shop::users::v1::{UserAnswered, UserAsked};

/// Does a user exist? [`UserAsked`], answered by `users`. Never rename.
pub const USERS: &str = "inquiry.users.v1.asked";

/// What do products look like? [`ProductsAsked`], answered by `products`. Never rename.
pub const PRODUCTS: &str = "inquiry.products.v1.asked";

/// What did a user order? [`OrdersAsked`], answered by `orders`. Never rename.
pub const ORDERS: &str = "inquiry.orders.v1.asked";

/// The most products per question. If the answer would be too large, the question is refused, and
/// the caller asks for fewer products.
pub const PRODUCTS_MAX: usize = 50;

/// Every question's subject, its protobuf message, and that of the answer. Never rename.
pub const CATALOGUE: [Question; 3] = [
    Question {
        subject: USERS,
        asked: "shop.users.v1.UserAsked",
        answered: "shop.users.v1.UserAnswered",
    },
    Question {
        subject: PRODUCTS,
        asked: "shop.products.v1.ProductsAsked",
        answered: "shop.products.v1.ProductsAnswered",
    },
    Question {
        subject: ORDERS,
        asked: "shop.orders.v1.OrdersAsked",
        answered: "shop.orders.v1.OrdersAnswered",
    },
];

/// An upper bound of the bytes that `message` takes as a field of another message.
pub fn field_bytes(message: &impl prost::Message) -> usize {
    const NUMBER_AND_LENGTH: usize = 8;
    message.encoded_len() + NUMBER_AND_LENGTH
}
