//! Style inquiry: question events on the bus, answered by answer events.
//!
//! The note's "async, method 1"; in the field's words request-reply messaging.

use headwater::Positions;
use headwater::inquiry::{Answer, Inquirer, NoAnswer};
use shop_events::OrderPlaced;
use shop_events::inquiry::{
    self, OrdersAnswered, OrdersAsked, ProductsAnswered, ProductsAsked, UserAnswered, UserAsked,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::failure::Why;
use super::gathered::{AsOf, Order, Orders, Product};

/// How many products one question is about.
pub(super) const PRODUCTS_MAX: usize = inquiry::PRODUCTS_MAX;

/// Asks over the bus. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Inquiry(pub(crate) Inquirer);

impl Inquiry {
    /// `inquiry.users.v1.asked`.
    pub(super) async fn is_known(
        &self,
        user: Uuid,
        deadline: Instant,
    ) -> Result<(bool, Positions), Why> {
        let user_id = user.to_string();
        let question = UserAsked {
            user_id: user_id.clone(),
        };
        let answer = self.0.ask(inquiry::USERS, &question, deadline).await?;
        let Answer { said, as_of } = answer;
        let UserAnswered {
            user_id: told,
            is_known,
        } = said;
        if told != user_id {
            return Err(Why::Nonsense("another user".to_owned()));
        }
        Ok((is_known, as_of))
    }

    /// `inquiry.orders.v1.asked`: as many orders as one answer has room for.
    pub(super) async fn orders(
        &self,
        user: Uuid,
        start_after: Option<Uuid>,
        deadline: Instant,
    ) -> Result<(Orders, Positions), Why> {
        let question = OrdersAsked {
            user_id: user.to_string(),
            start_after: start_after.map(|id| id.to_string()).unwrap_or_default(),
        };
        let answer = self.0.ask(inquiry::ORDERS, &question, deadline).await?;
        let Answer { said, as_of } = answer;
        let OrdersAnswered { orders, next } = said;
        let next = match next.as_str() {
            "" => None,
            next => Some(id(next)?),
        };
        let orders: Result<_, Why> = orders.into_iter().map(Order::try_from).collect();
        let orders = orders?;
        Ok((Orders { orders, next }, as_of))
    }

    /// `inquiry.products.v1.asked`, with fewer products at a time where one answer has no room for
    /// all.
    pub(super) async fn products(
        &self,
        ids: &[Uuid],
        deadline: Instant,
    ) -> Result<(Vec<Product>, Positions), Why> {
        let (mut products, mut as_of) = (Vec::new(), AsOf::default());
        let mut chunks = vec![ids];
        while let Some(ids) = chunks.pop() {
            let question = ProductsAsked {
                product_ids: ids.iter().map(Uuid::to_string).collect(),
            };
            match self.0.ask(inquiry::PRODUCTS, &question, deadline).await {
                Ok(Answer { said, as_of: at }) => {
                    let ProductsAnswered { products: said } = said;
                    let said: Result<Vec<_>, Why> =
                        said.into_iter().map(Product::try_from).collect();
                    products.extend(said?);
                    as_of.add(at);
                }
                Err(NoAnswer::TooLarge(_)) if ids.len() > 1 => {
                    chunks.extend(<[_; 2]>::from(ids.split_at(ids.len() / 2)));
                }
                Err(no_answer) => return Err(no_answer.into()),
            }
        }
        Ok((products, as_of.into()))
    }
}

impl TryFrom<OrderPlaced> for Order {
    type Error = Why;

    fn try_from(placed: OrderPlaced) -> Result<Self, Why> {
        let product_ids: Result<_, Why> = placed.product_ids.iter().map(|text| id(text)).collect();
        Ok(Self {
            product_ids: product_ids?,
            placed_at: shop_events::millis(&placed.placed_at.unwrap_or_default()),
        })
    }
}

impl TryFrom<inquiry::Product> for Product {
    type Error = Why;

    fn try_from(product: inquiry::Product) -> Result<Self, Why> {
        Ok(Self {
            id: id(&product.product_id)?,
            title: product.title,
            image: product.image,
        })
    }
}

fn id(text: &str) -> Result<Uuid, Why> {
    text.parse()
        .map_err(|_| Why::Nonsense(format!("`{text}` is not a UUID")))
}
