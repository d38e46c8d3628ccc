//! Questions and answers: what services may ask one another over the bus.

use headwater_event::schema::Question;

pub use crate::generated::shop::orders::v1::{OrdersAnswered, OrdersAsked};
pub use crate::generated::shop::products::v1::{Product, ProductsAnswered, ProductsAsked};
pub use crate::generated::shop::users::v1::{UserAnswered, UserAsked};

/// Is there a user? [`UserAsked`], answered by `users`. Never rename.
pub const USERS: &str = "inquiry.users.v1.asked";

/// What do products look like? [`ProductsAsked`], answered by `products`. Never rename.
pub const PRODUCTS: &str = "inquiry.products.v1.asked";

/// What did a user order? [`OrdersAsked`], answered by `orders`. Never rename.
pub const ORDERS: &str = "inquiry.orders.v1.asked";

/// How many products one question may be about. Where one answer has no room for what they look
/// like, it is refused, and whoever asks asks for fewer.
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

/// How many bytes `message` takes in another one, at most: with its number and its length.
pub fn field_bytes(message: &impl prost::Message) -> usize {
    const NUMBER_AND_LENGTH: usize = 8;
    message.encoded_len() + NUMBER_AND_LENGTH
}
