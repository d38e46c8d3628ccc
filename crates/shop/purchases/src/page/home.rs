//! The start page: users, and what a search finds.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use headwater::Positions;
use headwater::http::{Problem, Query};
use serde::Deserialize;
use shop_events::search::{TEXT_MAX, Unsearchable, words};
use url::form_urlencoded::byte_serialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::look::{Picture, Row, Shared, render, rows};
use crate::list::{From, Listed, Shopper};
use crate::names::Found;
use crate::purchase::Cursor;
use crate::replica::Replica;
use crate::style::Style;

/// The users on one page.
const USERS_SHOWN: usize = 50;

/// The products on one page of a search.
const PRODUCTS_SHOWN: usize = 24;

/// Of each kind, on the first page of a search.
const FIRST_SHOWN: usize = 12;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(home))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Find {
    /// The id of a user, whose page follows.
    #[param(pattern = "^ *([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})? *$")]
    user: Option<String>,
    /// Words of a name or of a product's title, or the id of a user. Without them, all users are
    /// listed. At most ten words.
    #[param(max_length = 200)]
    q: Option<String>,
    /// What to list of a search: everything found, if not given.
    #[param(inline)]
    within: Option<Within>,
    /// Continue the list of the search after this user or product.
    start_after: Option<Uuid>,
    /// Continue the list of all users after this place.
    #[param(value_type = Option<String>, pattern = "^[0-9a-f]{48}$")]
    older_than: Option<Cursor>,
    /// Continue the list of all users after this user, who is none of those with the newest orders.
    others_after: Option<Uuid>,
}

/// A part of what a search finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Within {
    /// Users with the words in their names.
    Names,
    /// Products with the words in their titles.
    Products,
    /// Users who ordered such a product.
    Buyers,
}

#[derive(Debug, Template)]
#[template(path = "home.html")]
struct Home {
    style: Style,
    /// Whether this is the beginning, which says what all this is.
    is_first: bool,
    query: String,
    /// What is wrong with the query.
    wrong: Option<String>,
    /// `None` in a style that cannot list users.
    users: Option<Users>,
    as_of: Positions,
}

/// A part of a list of users.
#[derive(Debug)]
struct Users {
    rows: Vec<Row>,
    /// The path of the next page.
    next: Option<String>,
    /// Why names or users are missing.
    missing: Option<String>,
}

#[derive(Debug, Template)]
#[template(path = "search.html")]
struct Search {
    query: String,
    /// `None` if not asked for, or if this style cannot search.
    named: Option<Users>,
    products: Option<Products>,
    buyers: Option<Users>,
    /// Whether this style can search only names, or nothing.
    can_search_all: bool,
    /// Whether too many titles have the words, so that they were not looked through.
    is_too_broad: bool,
    as_of: Positions,
}

#[derive(Debug)]
struct Products {
    pictures: Vec<Picture>,
    next: Option<String>,
}

impl Search {
    fn is_empty(&self) -> bool {
        let is_none = |users: &Option<Users>| {
            let found = users.as_ref();
            found.is_none_or(|it| it.rows.is_empty() && it.next.is_none() && it.missing.is_none())
        };
        let products = self.products.as_ref();
        is_none(&self.named)
            && is_none(&self.buyers)
            && products.is_none_or(|it| it.pictures.is_empty())
            && !self.is_too_broad
    }
}

/// Find users and products
///
/// Users, those with the newest orders first; or, with `q`, the users and products that it finds.
#[utoipa::path(
    get, path = "/", tag = "pages", params(Find),
    responses(
        (status = 200, description = "HTML", body = String, content_type = "text/html"),
        (status = 303, description = "The page of the user", headers(("Location" = String))),
        (status = 400, description = "Not an id, too much to search for, or not a parameter of this page", content(
            (String = "text/html"),
            (Problem = "application/problem+json"),
        )),
    )
)]
async fn home(State(shared): State<Shared>, Query(find): Query<Find>) -> Result<Response, Problem> {
    let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let user = given(find.user.as_deref().unwrap_or_default());
    let text = find.q.as_deref().unwrap_or_default();
    let text = given(&text.replace(char::is_control, " "));
    let id = user.as_ref().or(text.as_ref());
    if let Some(id) = id.and_then(|text| text.parse::<Uuid>().ok()) {
        return Ok(Redirect::to(&format!("/users/{id}")).into_response());
    }
    let wrong = match (user, &text) {
        (Some(user), _) => Some(format!(
            "“{user}” is not a user id. An id is a UUID: five groups of hexadecimal digits with dashes."
        )),
        (None, Some(text)) => match words(text) {
            Ok(words) => return search(&shared, &find, text.clone(), words).await,
            Err(why) => Some(format!("Nothing was searched: {why}.")),
        },
        (None, None) => None,
    };
    let is_wordless = text.as_deref().map(words) == Some(Err(Unsearchable::NoWord));
    let status = match wrong {
        Some(_) if !is_wordless => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    };
    // What was typed is kept, unless it is very long.
    let query = text.unwrap_or_default().chars().take(TEXT_MAX).collect();
    let is_first = find.older_than.is_none() && find.others_after.is_none();
    let (users, as_of) = match shared.answers.replica() {
        Some(replica) => {
            let (users, as_of) = all(&shared, replica, &find).await?;
            (Some(users), as_of)
        }
        None => (None, Positions::default()),
    };
    let page = Home {
        style: shared.style,
        is_first: is_first && wrong.is_none(),
        query,
        wrong,
        users,
        as_of,
    };
    render(status, &page)
}

/// A page of the list of all users.
async fn all(
    shared: &Shared,
    replica: &Replica,
    find: &Find,
) -> Result<(Users, Positions), Problem> {
    let from = match (find.others_after, find.older_than) {
        (Some(user), _) => From::Others(user),
        (None, Some(place)) => From::Ordered(place.first_ordered_at, place.product_id),
        (None, None) => From::Start,
    };
    let Listed { items, next, as_of } = replica.users(from, USERS_SHOWN).await?;
    let next = next.map(|next| match next {
        From::Start => "/".to_owned(),
        From::Ordered(at, user) => {
            let place = Cursor {
                first_ordered_at: at,
                product_id: user,
            };
            format!("/?older_than={place}")
        }
        From::Others(user) => format!("/?others_after={user}"),
    });
    Ok((users(shared, items, next).await, as_of))
}

/// Users with their names.
async fn users(shared: &Shared, shoppers: Vec<Shopper>, next: Option<String>) -> Users {
    let ids: Vec<Uuid> = shoppers.iter().map(|it| it.id).collect();
    let names = shared.names.of(&ids).await;
    Users {
        rows: rows(&shoppers, &names),
        next,
        missing: names.missing,
    }
}

/// What a search finds, of each kind; or more of one kind.
async fn search(
    shared: &Shared,
    find: &Find,
    query: String,
    words: String,
) -> Result<Response, Problem> {
    let is_wanted = |part| find.within.is_none_or(|within| within == part);
    let limit = |most| match find.within {
        Some(_) => most,
        None => FIRST_SHOWN,
    };
    let q: String = byte_serialize(query.as_bytes()).collect();
    let next = |part: &str, after: Option<Uuid>| {
        Some(format!("/?q={q}&within={part}&start_after={}", after?))
    };
    let mut page = Search {
        named: None,
        products: None,
        buyers: None,
        can_search_all: true,
        is_too_broad: false,
        as_of: Positions::default(),
        query,
    };
    let start_after = find.start_after;
    if is_wanted(Within::Names)
        && let Some(found) = shared
            .names
            .find(&page.query, start_after, limit(USERS_SHOWN))
            .await
    {
        let more = next("names", found.next);
        page.named = Some(named(shared, found, more).await?);
    }
    let Some(replica) = shared.answers.replica() else {
        page.can_search_all = false;
        return render(StatusCode::OK, &page);
    };
    if is_wanted(Within::Products) {
        let words = Some(words.clone());
        let found = replica.products(words, start_after, limit(PRODUCTS_SHOWN));
        match found.await? {
            Some(found) => {
                let picture = |product| Picture::of(product, &shared.images_url);
                page.products = Some(Products {
                    pictures: found.items.into_iter().map(picture).collect(),
                    next: next("products", found.next),
                });
                page.as_of = found.as_of;
            }
            None => page.is_too_broad = true,
        }
    }
    if is_wanted(Within::Buyers) && !page.is_too_broad {
        let found = replica.buyers(words, start_after, limit(USERS_SHOWN));
        match found.await? {
            Some(found) => {
                let more = next("buyers", found.next);
                page.buyers = Some(users(shared, found.items, more).await);
                page.as_of = found.as_of;
            }
            None => page.is_too_broad = true,
        }
    }
    render(StatusCode::OK, &page)
}

/// Users whom the service `users` found, with what they ordered where that is known here.
async fn named(shared: &Shared, found: Found, next: Option<String>) -> Result<Users, Problem> {
    let ids: Vec<Uuid> = found.users.iter().map(|(id, _)| *id).collect();
    let shoppers = match shared.answers.replica() {
        Some(replica) => replica.known(ids).await?.items,
        None => Vec::new(),
    };
    let row = |(id, name): (Uuid, String)| {
        let shopper = shoppers.iter().find(|it| it.id == id);
        Row::new(id, name, shopper)
    };
    Ok(Users {
        rows: found.users.into_iter().map(row).collect(),
        next,
        missing: found.missing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::Product;

    #[test]
    fn what_people_wrote_is_escaped() {
        let hostile = "<script>alert(1)</script>\"'>";
        let users = || Users {
            rows: vec![Row::new(Uuid::nil(), hostile.to_owned(), None)],
            next: None,
            missing: None,
        };
        let product = Product {
            id: Uuid::nil(),
            look: Some((hostile.to_owned(), hostile.to_owned())),
        };
        let images = "http://127.0.0.1:8082".parse().unwrap();
        let search = Search {
            query: hostile.to_owned(),
            named: Some(users()),
            products: Some(Products {
                pictures: vec![Picture::of(product, &images)],
                next: None,
            }),
            buyers: Some(users()),
            can_search_all: true,
            is_too_broad: true,
            as_of: Positions::default(),
        };
        let home = Home {
            style: Style::Replica,
            is_first: true,
            query: hostile.to_owned(),
            wrong: Some(hostile.to_owned()),
            users: Some(users()),
            as_of: Positions::default(),
        };
        for html in [search.render().unwrap(), home.render().unwrap()] {
            assert!(html.contains("alert(1)"));
            assert!(
                !html.contains("<script") && !html.contains("\"'>"),
                "{html}"
            );
        }
    }
}
