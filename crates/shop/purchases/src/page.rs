//! The web pages: plain, rendered on the server, without scripts.

use askama::Template;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use headwater::Positions;
use headwater::http::{After, Path, Problem, Query, content_security_policy};
use serde::Deserialize;
use url::Url;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::answers::Answers;
use crate::list::{From, Shopper};
use crate::purchase::{Cursor, Found, Order, Part, Purchase, PurchaseLimit};
use crate::style::Style;

/// How many users the start page shows.
const SHOPPERS_SHOWN: usize = 60;

/// Images may come from any host, everything else only from this service.
const ALLOWED: &str = "img-src http: https:; form-action 'self'";

/// What the handlers work with.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) style: Style,
    pub(crate) answers: Answers,
    /// The base URL of uploaded images, for browsers.
    pub(crate) images_url: Url,
}

pub(crate) fn routes(shared: Shared) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(find_user))
        .routes(routes!(user))
        .with_state(shared)
}

#[derive(Template)]
#[template(path = "find_user.html")]
struct FindUser {
    style: Style,
    /// The newest users, and the position of the answer; `None` in a style that cannot list them.
    newest: Option<(Vec<Shopper>, Positions)>,
    /// The input, if it is not an id.
    wrong: Option<String>,
}

#[derive(Template)]
#[template(path = "user.html")]
struct UserPage {
    user: Uuid,
    cards: Vec<Card>,
    /// The paths of the neighbouring pages.
    newer: Option<String>,
    older: Option<String>,
    as_of: Positions,
    /// The first dead letter of each source.
    parked: Positions,
}

#[derive(Template)]
#[template(path = "no_user.html")]
struct NoUser {
    style: Style,
    user: String,
}

/// A product on the page.
struct Card {
    title: String,
    image: Option<String>,
    /// Year, month and day.
    since: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Find {
    /// The id of a user, whose page follows. Without an id, the start page is shown.
    #[param(pattern = "^ *([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})? *$")]
    user: Option<String>,
}

/// Find a user
#[utoipa::path(
    get, path = "/", tag = "pages", params(Find),
    responses(
        (status = 200, description = "HTML", body = String, content_type = "text/html"),
        (status = 303, description = "The page of the user", headers(("Location" = String))),
        (status = 400, description = "Not an id, or not a parameter of this page", content(
            (String = "text/html"),
            (Problem = "application/problem+json"),
        )),
    )
)]
async fn find_user(
    State(shared): State<Shared>,
    Query(Find { user }): Query<Find>,
) -> Result<Response, Problem> {
    let user = user
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty());
    if let Some(id) = user.as_ref().and_then(|text| text.parse::<Uuid>().ok()) {
        return Ok(Redirect::to(&format!("/users/{id}")).into_response());
    }
    let newest = match shared.answers.replica() {
        Some(replica) => {
            let users = replica.users(From::Start, SHOPPERS_SHOWN).await?;
            Some((users.items, users.as_of))
        }
        None => None,
    };
    let page = FindUser {
        style: shared.style,
        newest,
        wrong: user,
    };
    let status = match page.wrong {
        Some(_) => StatusCode::BAD_REQUEST,
        None => StatusCode::OK,
    };
    render(status, &page)
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
        let page = user_page(id, part, found, &shared.images_url);
        return render(StatusCode::OK, &page);
    }
    let style = shared.style;
    render(StatusCode::NOT_FOUND, &NoUser { style, user: text })
}

/// The page with `found`, newest first, in whichever order it was read.
fn user_page(user: Uuid, part: Part, found: Found, images_url: &Url) -> UserPage {
    let Found {
        mut purchases,
        more,
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
    let link = |name: &str, neighbour: Option<&(Cursor, Purchase)>| {
        let (limit, (cursor, _)) = (part.limit, neighbour?);
        Some(format!("/users/{user}?limit={limit}&{name}={cursor}"))
    };
    let newer = link("newer_than", purchases.first().filter(|_| has_newer));
    let older = link("older_than", purchases.last().filter(|_| has_older));
    let cards = purchases.into_iter();
    UserPage {
        user,
        cards: cards
            .map(|(_, purchase)| card(purchase, images_url))
            .collect(),
        newer,
        older,
        as_of,
        parked,
    }
}

fn card(purchase: Purchase, images_url: &Url) -> Card {
    Card {
        title: purchase
            .title
            .unwrap_or_else(|| "A product that is not known here yet".to_owned()),
        image: purchase
            .image
            .map(|image| image_address(&image, images_url)),
        since: purchase.first_ordered_at.chars().take(10).collect(),
    }
}

/// The URL of an image: the service `products` serves paths.
fn image_address(image: &str, images_url: &Url) -> String {
    if image.starts_with('/') {
        return format!("{}{image}", images_url.as_str().trim_end_matches('/'));
    }
    image.to_owned()
}

fn render(status: StatusCode, page: &impl Template) -> Result<Response, Problem> {
    let html = page.render().map_err(|_| Problem::internal())?;
    let policy = content_security_policy(&html, ALLOWED);
    let headers = [(header::CONTENT_SECURITY_POLICY, policy)];
    Ok((status, headers, Html(html)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_an_image_of_the_service_products() {
        let products = "http://127.0.0.1:8082/".parse().unwrap();
        let upload = image_address("/images/abc", &products);
        assert_eq!(upload, "http://127.0.0.1:8082/images/abc");
        let elsewhere = "https://example.com/mug.webp";
        assert_eq!(image_address(elsewhere, &products), elsewhere);
    }

    #[test]
    fn what_users_wrote_is_escaped() {
        let page = UserPage {
            user: Uuid::nil(),
            cards: vec![Card {
                title: "<script>alert(1)</script>".to_owned(),
                image: Some("\"><script>".to_owned()),
                since: String::new(),
            }],
            newer: None,
            older: None,
            as_of: Positions::default(),
            parked: Positions::default(),
        };
        assert!(!page.render().unwrap().contains("<script>"));
    }
}
