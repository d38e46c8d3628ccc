//! Query service `purchases`: title and image of every product a user ever ordered.
//!
//! It runs in one of three styles, with the same answers; `docs/styles.md` compares them.
//!
//! * **replica**: owns the read store `purchases.db`, with the data that it needs from `users`,
//!   `products` and `orders`, built from their events. It asks none of them, so it answers while
//!   they are down. The store is expendable: if it is missing, damaged or of another version, it is
//!   rebuilt from the first event.
//! * **composition**: no database; asks the three services over HTTP for each answer.
//! * **request-reply**: no database; asks the three services over the bus for each answer.

mod answers;
pub mod asking;
mod http;
mod page;
mod purchase;
mod replica;
mod style;

use anyhow::Context as _;
use axum::Router;
use headwater::Service;
use headwater::database::Migration;
use headwater::http::{About, Listeners};
use tokio_util::sync::CancellationToken;
use url::Url;

pub use replica::{Purchases, erase_part, is_erasing};
pub use style::{NAME, Style};

use answers::Answers;
use asking::{Asking, Composition, RequestReply, Transport};
use page::Shared;
use replica::Replica;

/// The tables of `purchases.db`.
pub const MIGRATIONS: &[Migration] = &[
    Migration::sql(
        "0001_purchases",
        include_str!("../migrations/0001_purchases.sql"),
    ),
    Migration::sql(
        "0002_erasing",
        include_str!("../migrations/0002_erasing.sql"),
    ),
];

/// Headwater service `purchases`: every product a user ever ordered.
#[derive(Debug, clap::Parser)]
#[command(name = "headwater-purchases", version)]
#[command(mut_arg("path", |path| path.required(false).default_value("purchases.db")
    .help("The SQLite file of style replica; created if missing")))]
pub struct Config {
    /// Where the answers come from
    #[arg(long, env = "HEADWATER_STYLE", value_parser = Style::parser(), default_value = "replica")]
    pub style: Style,
    /// The settings of every service.
    #[command(flatten)]
    pub service: headwater::Config,
    /// Where browsers reach the service `products`: the web page shows uploaded images from there
    #[arg(
        long,
        env = "HEADWATER_IMAGES_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8082"
    )]
    pub images_url: Url,
    /// How the sources are asked.
    #[command(flatten)]
    pub asking: asking::Config,
}

/// Runs the service until `stop` is cancelled or one of its tasks ends.
///
/// # Errors
/// The service cannot start, or a task ended unexpectedly.
pub async fn run(
    config: Config,
    listeners: Listeners,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Config {
        style,
        service: config,
        images_url,
        asking,
    } = config;
    if style == Style::Replica {
        let mut service = Service::start_copy(NAME, MIGRATIONS, config, stop).await?;
        let progress = service.project(Purchases).await?;
        service.remove_in_parts(replica::is_erasing, replica::erase_part);
        let deadline = service.config.http.consistency_timeout;
        let replica = Replica::new(service.db.clone(), progress, deadline);
        let answers = Answers::Replica(Box::new(replica));
        let app = app(&service, style, answers, images_url);
        return service.serve(listeners, app).await;
    }
    let mut service = Service::start_without_database(style.service(), config, stop).await?;
    let transport = if style == Style::Composition {
        let composition = Composition::new(asking.urls.clone(), asking.questions_max);
        Transport::Http(composition.context("make the HTTP client")?)
    } else {
        Transport::Bus(RequestReply(service.asks(asking.questions_max).await?))
    };
    let asking = Asking::new(transport, &asking, service.health.clone());
    let app = app(&service, style, Answers::Asking(asking), images_url);
    service.serve(listeners, app).await
}

fn app<D>(service: &Service<D>, style: Style, answers: Answers, images_url: Url) -> Router {
    let about = About {
        name: style.service(),
        description: "Title and image of every product a user ever ordered.",
    };
    let pages = page::routes(Shared {
        style,
        answers: answers.clone(),
        images_url,
    });
    let routes = http::routes(answers).merge(pages);
    headwater::http::app(about, routes, service.health.clone(), &service.config.http)
}
