//! The order form: sends an order to the service `orders`, waits until it is in the read store, and
//! shows how long that took.

use std::time::Instant;

use askama::Template;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use headwater::Clock;
use headwater::http::{Problem, SameOrigin};
use shop_events::search::{TEXT_MAX, words};
use url::form_urlencoded::parse;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::look::{Picture, Shared, render};
use crate::names::{Found, Names, short};
use crate::orders::NotPlaced;

/// The products to choose from on one page.
const CHOICES_SHOWN: usize = 24;

/// The most products that the form keeps chosen.
const CHOSEN_MAX: usize = 100;

/// The users with the typed name to choose from.
const PEOPLE_SHOWN: usize = 12;

/// When a browser may send an order again that found `orders` away, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(form, place))
}

/// What was typed and chosen.
#[derive(Debug, Default)]
struct Typed {
    user: String,
    query: String,
    /// The Idempotency-Key: the same for each attempt.
    key: Option<Uuid>,
    products: Vec<Uuid>,
    /// Whether a product or the key is not an id, or there are too many products.
    is_broken: bool,
}

/// The fields of the form, as it is sent.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the documentation")]
struct OrderForm {
    /// The id of the user who orders.
    user: Uuid,
    /// The ids of the products.
    #[schema(min_items = 1, max_items = 100)]
    product: Vec<Uuid>,
    /// A form that is sent again with the same key places one order.
    key: Option<Uuid>,
}

impl Typed {
    /// Reads a query, or the body of a form. Unknown fields are ignored.
    fn of(form: &[u8]) -> Self {
        let mut typed = Self::default();
        let cut = |text: &str| {
            let text = text.replace(char::is_control, " ");
            text.trim().chars().take(TEXT_MAX + 1).collect()
        };
        for (name, value) in parse(form) {
            match &*name {
                "user" => typed.user = cut(&value),
                "q" => typed.query = cut(&value),
                "key" | "product" => match value.parse::<Uuid>() {
                    Ok(key) if name == "key" => typed.key = Some(key),
                    Ok(product) => typed.products.push(product),
                    Err(_) => typed.is_broken = true,
                },
                _ => {}
            }
        }
        typed.is_broken |= typed.products.len() > CHOSEN_MAX;
        let mut seen = std::collections::BTreeSet::new();
        typed.products.retain(|product| seen.insert(*product));
        typed.products.truncate(CHOSEN_MAX);
        typed
    }
}

#[derive(Debug, Template)]
#[template(path = "order.html")]
struct Form {
    /// An id, or words of a name.
    user: String,
    /// What the user is called, if the id is one and the name is known.
    name: Option<String>,
    /// Whether this style can search names.
    can_find: bool,
    /// The users with the typed name.
    people: Vec<Person>,
    /// Why there are none, or not all.
    people_hint: Option<String>,
    query: String,
    key: Uuid,
    chosen: Vec<Picture>,
    choices: Vec<Picture>,
    /// Why there are no choices, or none of those searched for.
    hint: Option<String>,
    /// Why the order was not placed.
    wrong: Option<String>,
}

/// A user to choose.
#[derive(Debug)]
struct Person {
    name: String,
    /// The path of the form with this user, and what was chosen.
    path: String,
}

/// Show the order form
#[utoipa::path(
    get, path = "/order", tag = "pages",
    params(
        ("user" = Option<String>, Query, description = "The id of the user who orders, or words of a name to choose from"),
        ("product" = Option<Vec<String>>, Query, description = "The ids of products that are chosen already, one each"),
        ("q" = Option<String>, Query, description = "Words of the titles of products to choose from"),
        ("key" = Option<String>, Query, description = "The key of an order that was not placed yet"),
    ),
    responses((status = 200, description = "HTML", body = String, content_type = "text/html"))
)]
async fn form(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let typed = Typed::of(query.unwrap_or_default().as_bytes());
    let form = show(&shared, typed, None).await?;
    render(StatusCode::OK, &form)
}

/// Place an order with the form
///
/// Sends it to the service `orders`, under the form's key, so that sending the form again places it
/// once. Then the page of the user follows, which shows the order.
#[utoipa::path(
    post, path = "/order", tag = "pages",
    request_body(content = OrderForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "The page of the user", headers(("Location" = String))),
        (status = 403, description = "A page of another site sent the form"),
        (status = 415, description = "Not a form"),
        (status = 422, description = "The order is wrong: HTML with the form as it was filled in", body = String, content_type = "text/html"),
        (status = 503, description = "The service orders is away: HTML with the form as it was filled in", body = String, content_type = "text/html"),
    )
)]
async fn place(
    State(shared): State<Shared>,
    _own: SameOrigin,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()?.split(';').next());
    if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case(FORM)) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-content-type",
            format!("send a form, with the header Content-Type: {FORM}"),
        ));
    }
    let mut typed = Typed::of(&body);
    let key = *typed.key.get_or_insert_with(|| Clock::system().new_id());
    let wrong = match typed.user.parse::<Uuid>() {
        Err(_) => NotPlaced::Refused(
            "Who orders? Choose a user. An id is five groups of hexadecimal digits with dashes, as \
             in the address of the user's page."
                .to_owned(),
        ),
        Ok(_) if typed.is_broken => NotPlaced::Refused(format!(
            "The ids of the products and the key are UUIDs, and an order of this form has at most \
             {CHOSEN_MAX} products."
        )),
        Ok(_) if typed.products.is_empty() => {
            NotPlaced::Refused("Choose at least one product.".to_owned())
        }
        Ok(user) => match shared.orders.place(key, user, &typed.products).await {
            Ok(position) => {
                let placed = Instant::now();
                let page = format!("/users/{user}?after={position}");
                let page = match shared.answers.reach(&position).await {
                    Ok(true) => format!("{page}&seen_ms={}", placed.elapsed().as_millis()),
                    Ok(false) => page,
                    // The page comes at once, and says that it does not have the order yet.
                    Err(_) => format!("/users/{user}?unseen={position}"),
                };
                return Ok(Redirect::to(&page).into_response());
            }
            Err(why) => why,
        },
    };
    let status = match &wrong {
        NotPlaced::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
        NotPlaced::Unknown(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    if status == StatusCode::UNPROCESSABLE_ENTITY {
        // Nothing is placed under this key, and a changed order may not use it.
        typed.key = None;
    }
    let form = show(&shared, typed, Some(wrong)).await?;
    let mut answer = render(status, &form)?;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    Ok(answer)
}

const FORM: &str = "application/x-www-form-urlencoded";

/// The form, with what was typed.
async fn show(shared: &Shared, typed: Typed, wrong: Option<NotPlaced>) -> Result<Form, Problem> {
    let Typed {
        user,
        query,
        key,
        products,
        ..
    } = typed;
    let picture = |product| Picture::of(product, &shared.images_url);
    let (mut chosen, mut choices, mut hint) = (Vec::new(), Vec::new(), None);
    if let Some(replica) = shared.answers.replica() {
        chosen = replica.some_products(products.clone()).await?;
        match words(&query).map(Some) {
            Err(why) if !query.is_empty() => hint = Some(format!("Nothing was searched: {why}.")),
            words => match replica
                .products(words.ok().flatten(), None, CHOICES_SHOWN)
                .await?
            {
                None => hint = Some("Too many titles have these letters: type more.".to_owned()),
                Some(found) => {
                    choices = found.items;
                    choices.retain(|product| !products.contains(&product.id));
                    if choices.is_empty() {
                        hint = Some("No other product is found.".to_owned());
                    }
                }
            },
        }
    } else {
        hint = Some("This style of purchases cannot list products.".to_owned());
    }
    let mut chosen: Vec<Picture> = chosen.into_iter().map(picture).collect();
    for product in products {
        if !chosen.iter().any(|it| it.id == product) {
            chosen.push(Picture {
                id: product,
                title: format!("Product {}", short(product)),
                image: None,
            });
        }
    }
    let (mut name, mut people) = (None, Found::default());
    if let Ok(id) = user.parse::<Uuid>() {
        name = shared.names.of(&[id]).await.get(id);
    } else if words(&user).is_ok()
        && let Some(found) = shared.names.find(&user, None, PEOPLE_SHOWN).await
    {
        people = found;
        if people.users.is_empty() && people.missing.is_none() {
            people.missing = Some("Nobody is called so.".to_owned());
        } else if people.next.is_some() {
            people.missing = Some("There are more: type more of the name.".to_owned());
        }
    }
    let kept = chosen.iter().map(|it| format!("&product={}", it.id));
    let kept: String = kept.chain(key.map(|key| format!("&key={key}"))).collect();
    let person = |(id, name): (Uuid, String)| Person {
        name,
        path: format!("/order?user={id}{kept}"),
    };
    Ok(Form {
        user,
        name,
        can_find: matches!(shared.names, Names::Bus(_)),
        people: people.users.into_iter().map(person).collect(),
        people_hint: people.missing,
        query,
        key: key.unwrap_or_else(|| Clock::system().new_id()),
        chosen,
        choices: choices.into_iter().map(picture).collect(),
        hint,
        wrong: wrong.map(|why| match why {
            NotPlaced::Refused(why) => why,
            NotPlaced::Unknown(why) => format!(
                "{why} What you chose is still here: send it again in a moment. It is placed once, \
                 however often you send it."
            ),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_it_is_sent() {
        let (mug, tent) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let form = format!("user=+x%3Cy&product={mug}&product={tent}&product={mug}&product=no&z=1");
        let typed = Typed::of(form.as_bytes());
        assert_eq!(typed.user, "x<y");
        assert_eq!(typed.products, [mug, tent]);
        assert_eq!(typed.key, None);
        assert!(typed.is_broken, "a product is no id");
        assert!(!Typed::of(format!("product={mug}&key={tent}").as_bytes()).is_broken);
        let many: Vec<_> = (0..500)
            .map(|n| format!("product={}", Uuid::from_u128(n)))
            .collect();
        assert_eq!(
            Typed::of(many.join("&").as_bytes()).products.len(),
            CHOSEN_MAX
        );
        let long = format!("q={}", "a".repeat(10_000));
        assert!(
            words(&Typed::of(long.as_bytes()).query).is_err(),
            "too long, and refused"
        );
    }

    #[test]
    fn what_was_typed_stays_and_is_escaped() {
        let hostile = "\"><script>alert(1)</script>";
        let form = Form {
            user: hostile.to_owned(),
            name: Some(hostile.to_owned()),
            can_find: true,
            people: vec![Person {
                name: hostile.to_owned(),
                path: hostile.to_owned(),
            }],
            people_hint: Some(hostile.to_owned()),
            query: hostile.to_owned(),
            key: Uuid::nil(),
            chosen: vec![Picture {
                id: Uuid::nil(),
                title: hostile.to_owned(),
                image: Some(hostile.to_owned()),
            }],
            choices: Vec::new(),
            hint: Some(hostile.to_owned()),
            wrong: Some(hostile.to_owned()),
        };
        let html = form.render().unwrap();
        assert!(
            html.contains("alert(1)") && !html.contains("<script"),
            "{html}"
        );
    }
}
