//! Query service `purchases`: title and image of every product a user ever ordered.
//!
//! Its web pages also find users and products, and take orders. Names are not among the data: each
//! page asks the service `users` for them, and comes without them if it does not answer.
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
mod follow;
mod http;
mod list;
mod names;
mod orders;
mod page;
mod purchase;
mod replica;
mod style;

use anyhow::Context as _;
use headwater::personal;
use headwater::prelude::*;
use url::Url;

pub use replica::{Purchases, erase_part, is_erasing};
pub use style::{NAME, Style};

use answers::Answers;
use asking::{Asking, Composition, RequestReply, Transport};
use names::Names;
use orders::Orders;
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
    Migration::sql("0003_lists", include_str!("../migrations/0003_lists.sql")),
];

/// What it is, in style replica.
pub const ABOUT: About = About {
    name: NAME,
    description: "Title and image of every product a user ever ordered.",
    version: env!("CARGO_PKG_VERSION"),
    port: 8080,
};

/// Its settings.
#[derive(Debug, clap::Args)]
#[command(mut_arg("path", |path| path
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
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let Config {
        style,
        service: config,
        images_url,
        asking,
    } = config;
    let about = About {
        name: style.service(),
        ..ABOUT
    };
    // Names are in memory while a page is made.
    personal::forbid_core_dumps().context("forbid core dumps")?;
    let orders = Orders::at(&asking.urls.orders).context("make the HTTP client")?;
    let shared = |answers, names| Shared {
        style,
        answers,
        names,
        orders,
        images_url,
    };
    if style == Style::Replica {
        let mut service = Service::start_read_store(about, MIGRATIONS, config, process).await?;
        let progress = service.project(Purchases).await?;
        service.remove_in_parts(replica::is_erasing, replica::erase_part);
        let deadline = service.config.http.consistency_timeout;
        let replica = Replica::new(service.db.clone(), progress, deadline);
        let answers = Answers::Replica(Box::new(replica));
        let names = Names::Bus(service.asks(asking.questions_max).await?);
        return Ok(service.serve(routes(shared(answers, names))).await?);
    }
    let mut service = Service::start_without_database(about, config, process).await?;
    let (transport, names) = if style == Style::Composition {
        let composition = Composition::new(asking.urls.clone(), asking.questions_max);
        let composition = composition.context("make the HTTP client")?;
        let names = Names::Http(composition.clone());
        (Transport::Http(composition), names)
    } else {
        let client = service.asks(asking.questions_max).await?;
        let names = Names::Bus(client.clone());
        (Transport::Bus(RequestReply(client)), names)
    };
    let asking = Asking::new(transport, &asking, service.health.clone());
    let answers = Answers::Asking(asking);
    Ok(service.serve(routes(shared(answers, names))).await?)
}

fn routes(shared: Shared) -> OpenApiRouter {
    http::routes(shared.clone()).merge(page::routes(shared))
}
