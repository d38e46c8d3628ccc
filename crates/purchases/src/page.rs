//! The web page: plain, server-rendered, no script.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use headwater::Positions;
use headwater::http::{After, Path, Problem, Query};
use serde::Deserialize;
use url::Url;
use uuid::Uuid;

use crate::answer::{Purchase, UserPurchases};
use crate::http::Shared;
use crate::replica::Shopper;
use crate::style::Style;

/// How many users the start page shows.
const SHOPPERS_SHOWN: u32 = 60;

/// Pictures may come from anywhere; nothing else may come from anywhere but this page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; img-src http: https:; \
     style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

#[derive(Template)]
#[template(path = "find_user.html")]
struct FindUser {
    style: Style,
    /// Where users are heard of: some of them, and as of when.
    heard_of: Option<(Vec<Shopper>, Positions)>,
    /// What was looked for and is no id.
    wrong: Option<String>,
}

#[derive(Template)]
#[template(path = "user.html")]
struct UserPage {
    user: Uuid,
    cards: Vec<Card>,
    as_of: Positions,
    /// The first event of each source that could not be applied.
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

#[derive(Deserialize)]
pub(crate) struct Find {
    user: Option<String>,
}

/// `/`: find a user.
pub(crate) async fn find_user(
    State(shared): State<Shared>,
    Query(Find { user }): Query<Find>,
) -> Result<Response, Problem> {
    let user = user
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty());
    if let Some(id) = user.as_ref().and_then(|text| text.parse::<Uuid>().ok()) {
        return Ok(Redirect::to(&format!("/users/{id}")).into_response());
    }
    let heard_of = shared.answers.shoppers(SHOPPERS_SHOWN).await?;
    let status = if user.is_some() {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::OK
    };
    render(
        status,
        &FindUser {
            style: shared.style,
            heard_of,
            wrong: user,
        },
    )
}

/// `/users/{id}`: what a user ordered.
pub(crate) async fn user(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    After(after): After,
) -> Result<Response, Problem> {
    let found = match id.parse() {
        Ok(id) => shared.answers.purchases(id, &after).await?,
        Err(_) => None,
    };
    let Some(UserPurchases {
        user_id,
        purchases,
        as_of,
        parked,
    }) = found
    else {
        let style = shared.style;
        return render(StatusCode::NOT_FOUND, &NoUser { style, user: id });
    };
    // What was ordered last is what one looks for first.
    let cards = purchases
        .into_iter()
        .rev()
        .map(|purchase| card(purchase, &shared.images_url));
    let page = UserPage {
        user: user_id,
        cards: cards.collect(),
        as_of,
        parked,
    };
    render(StatusCode::OK, &page)
}

fn card(purchase: Purchase, images_url: &Url) -> Card {
    Card {
        title: purchase
            .title
            .unwrap_or_else(|| "A product that is still on its way here".to_owned()),
        image: purchase
            .image
            .map(|image| image_address(&image, images_url)),
        since: purchase.first_ordered_at.chars().take(10).collect(),
    }
}

/// Where a browser finds an image: a path is one of the service `products`.
fn image_address(image: &str, images_url: &Url) -> String {
    if image.starts_with('/') {
        return format!("{}{image}", images_url.as_str().trim_end_matches('/'));
    }
    image.to_owned()
}

fn render(status: StatusCode, page: &impl Template) -> Result<Response, Problem> {
    let html = page.render().map_err(|_| Problem::internal())?;
    let mut response = (status, Html(html)).into_response();
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(CONTENT_SECURITY_POLICY),
    );
    Ok(response)
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
            as_of: Positions::default(),
            parked: Positions::default(),
        };
        assert!(!page.render().unwrap().contains("<script>"));
    }
}
