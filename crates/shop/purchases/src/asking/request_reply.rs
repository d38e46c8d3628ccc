//! Style request-reply: question events on the bus, answered by answer events. The pattern is
//! called request-reply messaging.

use headwater::Positions;
use headwater::request_reply::{NoAnswer, RequestClient};
use shop_events::{
    OrderPlaced, OrdersAnswered, OrdersAsked, ProductsAnswered, ProductsAsked, UserAnswered,
    UserAsked, inquiry,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::failure::{Answer, Why};
use super::gathered::{Order, Orders, Product, add_positions};

/// The most products per question.
pub(super) const PRODUCTS_MAX: usize = inquiry::PRODUCTS_MAX;

/// Asks over the bus. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct RequestReply(pub(crate) RequestClient);

impl RequestReply {
    /// `inquiry.users.v1.asked`.
    pub(super) async fn is_known(&self, user: Uuid, deadline: Instant) -> Answer<bool> {
        let user_id = user.to_string();
        let question = UserAsked { user_id };
        let answer = self.0.ask(UserAsked::SUBJECT, &question, deadline).await?;
        let UserAnswered { user_id, is_known } = answer.body;
        if user_id != question.user_id {
            return Err(Why::InvalidAnswer("another user".to_owned()));
        }
        Ok((is_known, answer.as_of))
    }

    /// `inquiry.orders.v1.asked`: as many orders as fit into one answer.
    pub(super) async fn orders(
        &self,
        user: Uuid,
        start_after: Option<Uuid>,
        deadline: Instant,
    ) -> Answer<Orders> {
        let question = OrdersAsked {
            user_id: user.to_string(),
            start_after: start_after.map(|id| id.to_string()).unwrap_or_default(),
        };
        let answer = self
            .0
            .ask(OrdersAsked::SUBJECT, &question, deadline)
            .await?;
        let OrdersAnswered { orders, next } = answer.body;
        let next = Some(next).filter(|next| !next.is_empty());
        let orders = orders.into_iter().map(Order::try_from);
        let orders = Orders {
            orders: orders.collect::<Result<_, _>>()?,
            next: next.map(|next| id(&next)).transpose()?,
        };
        Ok((orders, answer.as_of))
    }

    /// `inquiry.products.v1.asked`. If one answer is too small for all products, asks for fewer at
    /// a time.
    pub(super) async fn products(&self, ids: &[Uuid], deadline: Instant) -> Answer<Vec<Product>> {
        let (mut products, mut as_of) = (Vec::new(), Positions::default());
        let mut chunks = vec![ids];
        while let Some(ids) = chunks.pop() {
            let question = ProductsAsked {
                product_ids: ids.iter().map(Uuid::to_string).collect(),
            };
            match self
                .0
                .ask(ProductsAsked::SUBJECT, &question, deadline)
                .await
            {
                Ok(answer) => {
                    let ProductsAnswered { products: some } = answer.body;
                    for product in some {
                        products.push(Product::try_from(product)?);
                    }
                    add_positions(&mut as_of, answer.as_of);
                }
                Err(NoAnswer::TooLarge(_)) if ids.len() > 1 => {
                    chunks.extend(<[_; 2]>::from(ids.split_at(ids.len() / 2)));
                }
                Err(no_answer) => return Err(no_answer.into()),
            }
        }
        Ok((products, as_of))
    }
}

impl TryFrom<OrderPlaced> for Order {
    type Error = Why;

    fn try_from(placed: OrderPlaced) -> Result<Self, Why> {
        let product_ids = placed.product_ids.iter().map(|text| id(text));
        Ok(Self {
            product_ids: product_ids.collect::<Result<_, _>>()?,
            placed_at: shop_events::millis(&placed.placed_at.unwrap_or_default()),
        })
    }
}

impl TryFrom<shop_events::Product> for Product {
    type Error = Why;

    fn try_from(product: shop_events::Product) -> Result<Self, Why> {
        Ok(Self {
            id: id(&product.product_id)?,
            title: product.title,
            image: product.image,
        })
    }
}

fn id(text: &str) -> Result<Uuid, Why> {
    text.parse()
        .map_err(|_| Why::InvalidAnswer(format!("`{text}` is not a UUID")))
}
