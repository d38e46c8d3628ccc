//! Query service `purchases`: title and image of every product a user ever ordered.
//!
//! In one of three styles, with the same answers; `docs/styles.md` compares them.
//!
//! * **replica**: owns `purchases.db`, a copy of what it needs of `users`, `products` and `orders`,
//!   folded from their events. Asks none of them, so it answers while they are down. The copy is
//!   expendable: missing, damaged or of another version, it is folded anew from the first event.
//! * **composition**: no database; asks the three over HTTP for each answer.
//! * **inquiry**: no database; asks the three over the bus for each answer.

mod answer;
pub mod asking;
mod http;
mod page;
mod part;
mod replica;
mod style;

use anyhow::Context as _;
use headwater::Service;
use headwater::database::Migration;
use headwater::http::Listeners;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use replica::{Purchases, erase_part, is_erasing};
pub use style::Style;

use answer::Answers;
use asking::{Asking, Composition, Inquiry, Way};
use http::Shared;
use replica::Replica;

/// The service's name. Never rename.
pub const NAME: &str = "purchases";

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
    .help("The SQLite file of style replica; made when it is not there")))]
pub struct Config {
    /// Where the answers come from
    #[arg(long, env = "HEADWATER_STYLE", value_enum, default_value_t)]
    pub style: Style,
    /// What every service is told.
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
/// It cannot start, or a task ended by itself.
pub async fn run(
    config: Config,
    listeners: Listeners,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Config {
        style,
        service,
        images_url,
        asking,
    } = config;
    let name = style.service();
    let shared = |answers| Shared {
        style,
        answers,
        images_url,
    };
    match style {
        Style::Replica => {
            let mut service = Service::start_copy(name, MIGRATIONS, service, stop).await?;
            let progress = service.project(Purchases).await?;
            service.remove_in_parts(replica::is_erasing, replica::erase_part);
            let deadline = service.config.http.after_deadline();
            let replica = Replica::new(service.db.clone(), progress, deadline);
            let app = http::app(&service, shared(Answers::Replica(Box::new(replica))));
            service.serve(listeners, app).await
        }
        Style::Composition => {
            let service = Service::start_without_database(name, service, stop).await?;
            let composition = Composition::new(&asking);
            let way = Way::Http(composition.context("make the HTTP client")?);
            let asking = Asking::new(way, &asking, service.health.clone());
            let app = http::app(&service, shared(Answers::Asking(asking)));
            service.serve(listeners, app).await
        }
        Style::Inquiry => {
            let mut service = Service::start_without_database(name, service, stop).await?;
            let way = Way::Bus(Inquiry(service.asks(asking.questions_max).await?));
            let asking = Asking::new(way, &asking, service.health.clone());
            let app = http::app(&service, shared(Answers::Asking(asking)));
            service.serve(listeners, app).await
        }
    }
}
