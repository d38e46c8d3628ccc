//! The web pages: rendered on the server. This file has the page of a user, which follows if it may
//! run a script.

mod home;
mod look;
mod order;
mod product;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use headwater::Positions;
use headwater::http::{After, Path, Problem, Query, script};
use serde::Deserialize;
use url::Url;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::purchase::{Cursor, Found, Order, Part, Purchase, PurchaseLimit};
pub(crate) use look::Shared;
use look::{Missing, Moment, Picture, UNKNOWN, image_address, render, render_following};

/// Shows on a page what its stream brings.
const FOLLOW: &str = include_str!("follow.js");

pub(crate) fn routes(shared: Shared) -> OpenApiRouter {
    let routes = OpenApiRouter::new().routes(routes!(user));
    let routes = routes.route("/follow.js", get(follow_script));
    let routes = routes.merge(home::routes()).merge(product::routes());
    routes.merge(order::routes()).with_state(shared)
}

#[derive(Template)]
#[template(path = "user.html", blocks = ["count", "note", "pages"])]
struct UserPage {
    user: Uuid,
    name: String,
    /// Why the name is missing.
    missing: Option<String>,
    /// How long an order took that was just placed with the form, until it was in the answer.
    seen_ms: Option<u64>,
    /// The position of an order that was just placed and is not in the answer yet.
    unseen: Option<Positions>,
    cards: Vec<Card>,
    /// The paths of the neighbouring pages.
    newer: Option<String>,
    older: Option<String>,
    /// The path of the stream that the page follows; `None` in a style that has none.
    follow: Option<String>,
    /// On a page that only says that there is something newer: the id of the newest product, if
    /// there is one. The first page follows all that it shows.
    newest: Option<String>,
    as_of: Positions,
    /// The first dead letter of each source.
    parked: Positions,
}

/// A product on the page.
#[derive(Template)]
#[template(path = "card.html")]
struct Card {
    picture: Picture,
    /// When the user first and last ordered it.
    first: Moment,
    last: Moment,
    times: u64,
}

/// Which part of the list the page shows.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Shown {
    /// The most products on the page.
    #[serde(default)]
    #[param(value_type = usize, required = false, minimum = 1, maximum = 1000, default = 100)]
    limit: PurchaseLimit,
    /// Show the products ordered before this cursor.
    #[param(value_type = Option<String>, pattern = "^[0-9a-f]{48}$")]
    older_than: Option<Cursor>,
    /// Show the products ordered after this cursor. It takes precedence over `older_than`.
    #[param(value_type = Option<String>, pattern = "^[0-9a-f]{48}$")]
    newer_than: Option<Cursor>,
    /// An order was just placed, and was in the read store after this time, in milliseconds.
    seen_ms: Option<u64>,
    /// An order was just placed with this position, and is not in the read store yet.
    #[param(value_type = Option<String>)]
    unseen: Option<String>,
}

impl Shown {
    fn part(&self) -> Part {
        let (from, order) = match self.newer_than {
            Some(cursor) => (Some(cursor), Order::OldestFirst),
            // The start page of a user has the newest products.
            None => (self.older_than, Order::NewestFirst),
        };
        Part {
            limit: self.limit.get(),
            from,
            order,
            with_newest: from.is_some(),
        }
    }
}

/// Show what a user ordered
///
/// In pages, newest first.
#[utoipa::path(
    get, path = "/users/{id}", tag = "pages",
    params(("id" = String, Path), Shown, After),
    responses(
        (status = 200, description = "HTML", body = String, content_type = "text/html"),
        (status = 404, description = "The user does not exist or was erased", body = String, content_type = "text/html"),
        (status = 507, description = "Styles composition and request-reply: the user ordered more products than one answer may combine"),
    )
)]
async fn user(
    State(shared): State<Shared>,
    Path(text): Path<String>,
    Query(shown): Query<Shown>,
    After(after): After,
) -> Result<Response, Problem> {
    let part = shown.part();
    if let Ok(id) = text.parse()
        && let Some(found) = shared.answers.purchases(id, part, &after).await?
    {
        let names = shared.names.of(&[id]).await;
        let unseen = shown.unseen.and_then(|text| text.parse::<Positions>().ok());
        let mut page = UserPage {
            name: names.of(id),
            missing: names.missing,
            seen_ms: shown.seen_ms,
            unseen: unseen.filter(|unseen| !includes(&found.as_of, unseen)),
            ..user_page(id, part, found, &shared.images_url)
        };
        if shared.answers.replica().is_none() {
            return render(StatusCode::OK, &page);
        }
        let limit = if page.newest.is_some() { 1 } else { part.limit };
        page.follow = Some(format!("/users/{id}/purchases?limit={limit}"));
        return render_following(&page);
    }
    let page = Missing {
        what: "user",
        id: text,
        why: "The user does not exist, was erased, or registered a moment ago and is not known here yet.",
    };
    render(StatusCode::NOT_FOUND, &page)
}

fn includes(as_of: &Positions, wanted: &Positions) -> bool {
    let mut wanted = wanted.0.iter();
    wanted.all(|(source, position)| as_of.get(source) >= *position)
}

async fn follow_script(headers: HeaderMap) -> Response {
    script(FOLLOW, &headers)
}

/// The page with `found`, newest first, in whichever order it was read.
fn user_page(user: Uuid, part: Part, found: Found, images_url: &Url) -> UserPage {
    let Found {
        mut purchases,
        more,
        newest,
        as_of,
        parked,
    } = found;
    // The page that the reader came from always exists.
    let (has_newer, has_older) = match part.order {
        Order::NewestFirst => (part.from.is_some(), more),
        Order::OldestFirst => {
            purchases.reverse();
            (more, true)
        }
    };
    // A client that comes back to the newest products may find fewer than the first page has.
    let is_first = !has_newer && (part.from.is_none() || purchases.len() == part.limit);
    let newest = newest.map(|id| id.to_string()).unwrap_or_default();
    let link = |name: &str, neighbour: Option<&(Cursor, Purchase)>| {
        let (limit, (cursor, _)) = (part.limit, neighbour?);
        Some(format!("/users/{user}?limit={limit}&{name}={cursor}"))
    };
    let newer = link("newer_than", purchases.first().filter(|_| has_newer));
    let older = link("older_than", purchases.last().filter(|_| has_older));
    let cards = purchases.into_iter();
    UserPage {
        user,
        name: String::new(),
        missing: None,
        seen_ms: None,
        unseen: None,
        cards: cards
            .map(|(_, purchase)| card(purchase, images_url))
            .collect(),
        newer,
        older,
        follow: None,
        newest: (!is_first).then_some(newest),
        as_of,
        parked,
    }
}

fn card(purchase: Purchase, images_url: &Url) -> Card {
    let image = purchase.image;
    Card {
        picture: Picture {
            id: purchase.product_id,
            title: purchase.title.unwrap_or_else(|| UNKNOWN.to_owned()),
            image: image.map(|image| image_address(&image, images_url)),
        },
        first: Moment::at(purchase.first_ordered_at),
        last: Moment::at(purchase.last_ordered_at),
        times: purchase.times,
    }
}

/// The HTML of the elements of a user's page that may change.
pub(crate) struct Parts {
    /// What is not a product, by the ids of its elements.
    pub(crate) others: [(&'static str, String); 3],
    /// The products, in order.
    pub(crate) cards: Vec<String>,
}

/// The parts of a user's page with `found`.
pub(crate) fn parts(
    user: Uuid,
    part: Part,
    found: Found,
    images_url: &Url,
) -> askama::Result<Parts> {
    let page = user_page(user, part, found, images_url);
    let cards = page.cards.iter().map(Card::render);
    Ok(Parts {
        others: [
            ("count", page.as_count().render()?),
            ("note", page.as_note().render()?),
            ("pages", page.as_pages().render()?),
        ],
        cards: cards.collect::<askama::Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_is_escaped() {
        let hostile = "<script>alert(1)</script>";
        let page = UserPage {
            user: Uuid::nil(),
            name: hostile.to_owned(),
            missing: Some(hostile.to_owned()),
            seen_ms: None,
            unseen: None,
            cards: vec![Card {
                picture: Picture {
                    id: Uuid::nil(),
                    title: hostile.to_owned(),
                    image: Some("\"><script>".to_owned()),
                },
                first: Moment::of_ms(0),
                last: Moment::of_ms(1),
                times: 2,
            }],
            newer: None,
            older: None,
            follow: None,
            newest: None,
            as_of: Positions::default(),
            parked: Positions::default(),
        };
        assert!(!page.render().unwrap().contains("<script"));
    }
}
