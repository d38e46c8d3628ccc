//! What all pages share.

use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use headwater::http::{Problem, content_security_policy};
use url::Url;
use uuid::Uuid;

use crate::answers::Answers;
use crate::list::{Count, Product, Shopper};
use crate::names::{Known, Names};
use crate::orders::Orders;
use crate::style::Style;

/// Images may come from any host, everything else only from this service.
const ALLOWED: &str = "img-src http: https:; form-action 'self'";

/// What the handlers work with.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) style: Style,
    pub(crate) answers: Answers,
    pub(crate) names: Names,
    pub(crate) orders: Orders,
    /// The base URL of uploaded images, for browsers.
    pub(crate) images_url: Url,
}

/// A moment, for people and for programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment {
    /// RFC 3339.
    pub(super) exact: String,
    /// The day, as in "21 Nov 2026".
    pub(super) day: String,
}

impl Moment {
    /// `exact`: RFC 3339, in UTC.
    pub(super) fn at(exact: String) -> Self {
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let day = || {
            let mut parts = exact.split_once('T')?.0.splitn(3, '-');
            let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
            let month = month.parse::<usize>().ok()?.checked_sub(1)?;
            let month = MONTHS.get(month)?;
            Some(format!("{} {month} {year}", day.trim_start_matches('0')))
        };
        let day = day().unwrap_or_else(|| exact.clone());
        Self { exact, day }
    }

    /// `ms`: milliseconds since 1970.
    pub(super) fn of_ms(ms: i64) -> Self {
        Self::at(shop_events::timestamp(ms).to_string())
    }
}

/// A user in a list.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: Uuid,
    pub(super) name: String,
    /// The number of different products; `None` if it is not known here.
    pub(super) products: Option<Count>,
    pub(super) last: Option<Moment>,
}

impl Row {
    pub(super) fn new(id: Uuid, name: String, shopper: Option<&Shopper>) -> Self {
        let last = shopper.and_then(|it| it.last_ordered_at);
        Self {
            id,
            name,
            products: shopper.map(|it| it.products),
            last: last.map(Moment::of_ms),
        }
    }
}

pub(super) fn rows(shoppers: &[Shopper], names: &Known) -> Vec<Row> {
    let row = |shopper: &Shopper| Row::new(shopper.id, names.of(shopper.id), Some(shopper));
    shoppers.iter().map(row).collect()
}

/// A product with its picture.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) id: Uuid,
    pub(super) title: String,
    /// A URL.
    pub(super) image: Option<String>,
}

impl Picture {
    pub(super) fn of(product: Product, images_url: &Url) -> Self {
        let (title, image) = product.look.unzip();
        Self {
            id: product.id,
            title: title.unwrap_or_else(|| UNKNOWN.to_owned()),
            image: image.map(|image| image_address(&image, images_url)),
        }
    }
}

/// The title of a product that is known from an order only.
pub(super) const UNKNOWN: &str = "A product that is not known here yet";

/// The URL of an image: the service `products` serves paths.
pub(super) fn image_address(image: &str, images_url: &Url) -> String {
    if image.starts_with('/') {
        return format!("{}{image}", images_url.as_str().trim_end_matches('/'));
    }
    image.to_owned()
}

/// The page of something that does not exist.
#[derive(Debug, Template)]
#[template(path = "missing.html")]
pub(super) struct Missing {
    /// What is missing: "user", "product".
    pub(super) what: &'static str,
    pub(super) id: String,
    /// Why, and what to do.
    pub(super) why: &'static str,
}

pub(super) fn render(status: StatusCode, page: &impl Template) -> Result<Response, Problem> {
    render_with(status, page, ALLOWED)
}

/// A page with a script and a stream.
pub(super) fn render_following(page: &impl Template) -> Result<Response, Problem> {
    let allowed = format!("{ALLOWED}; script-src 'self'; connect-src 'self'");
    render_with(StatusCode::OK, page, &allowed)
}

fn render_with(
    status: StatusCode,
    page: &impl Template,
    allowed: &str,
) -> Result<Response, Problem> {
    let html = page.render().map_err(|_| Problem::internal())?;
    let policy = content_security_policy(&html, allowed);
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
    fn a_moment_is_shown_by_its_day() {
        let moment = Moment::of_ms(1_700_000_000_123);
        assert_eq!(moment.exact, "2023-11-14T22:13:20.123Z");
        assert_eq!(moment.day, "14 Nov 2023");
        assert_eq!(Moment::of_ms(0).day, "1 Jan 1970");
        assert_eq!(Moment::at("?".to_owned()).day, "?");
    }
}
