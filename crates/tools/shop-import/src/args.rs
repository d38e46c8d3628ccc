//! The command-line flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Parser};
use reqwest::Url;
use terminal::Format;
use terminal::output::duration;

/// Import users, products and orders from JSON Lines files
///
/// Users and products are sent first, then orders. Each id of the source system always maps to the
/// same UUID, so a run can be repeated without duplicates. A line that cannot be imported is
/// reported as `file:line: reason`, and the rest is imported. Of lines with the same reason, the
/// first 20 are shown and the others are counted.
///
/// The ids `1000` and `"1000"` map to the same UUID: if a file has both, the second is not
/// imported.
///
/// Exit codes: 0 everything was imported, 1 some lines failed, 2 usage error, 4 a service cannot be
/// reached, 130 interrupted by Ctrl-C or SIGTERM: the summary shows what was done, and the same
/// command continues.
#[derive(Clone, Debug, Parser)]
#[command(name = "shop-import", version)]
#[command(group(ArgGroup::new("files").args(["users", "products", "orders"]).required(true).multiple(true)))]
pub struct Args {
    /// File with users, one `{"id", "name", "email"}` per line; `-` is stdin
    #[arg(long, value_name = "FILE", env = "HEADWATER_IMPORT_USERS")]
    pub users: Option<PathBuf>,

    /// File with products, one `{"id", "title", "image"}` per line; `-` is stdin
    #[arg(long, value_name = "FILE", env = "HEADWATER_IMPORT_PRODUCTS")]
    pub products: Option<PathBuf>,

    /// File with orders, one `{"id", "user_id", "product_ids": []}` per line; `-` is stdin
    #[arg(long, value_name = "FILE", env = "HEADWATER_IMPORT_ORDERS")]
    pub orders: Option<PathBuf>,

    /// URL of the users service
    #[arg(long, value_name = "URL", env = "HEADWATER_USERS_URL", default_value = "http://127.0.0.1:8081", value_parser = base_url)]
    pub users_url: Url,

    /// URL of the products service
    #[arg(long, value_name = "URL", env = "HEADWATER_PRODUCTS_URL", default_value = "http://127.0.0.1:8082", value_parser = base_url)]
    pub products_url: Url,

    /// URL of the orders service
    #[arg(long, value_name = "URL", env = "HEADWATER_ORDERS_URL", default_value = "http://127.0.0.1:8083", value_parser = base_url)]
    pub orders_url: Url,

    /// Number of concurrent requests per service
    #[arg(long, value_name = "N", env = "HEADWATER_IMPORT_IN_FLIGHT", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub in_flight: u16,

    /// File for all failed lines, one `{"file", "line", "id", "reason", "status"}` per line; it is
    /// overwritten
    #[arg(long, value_name = "FILE", env = "HEADWATER_IMPORT_ERRORS")]
    pub errors: Option<PathBuf>,

    /// How long a line is retried while its service is down or busy
    #[arg(long, value_name = "SECONDS", env = "HEADWATER_IMPORT_PATIENCE", default_value = "60", value_parser = duration)]
    pub patience: Duration,

    /// Output format of the summary
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        env = "HEADWATER_OUTPUT",
        value_enum,
        default_value_t
    )]
    pub output: Format,
}

impl Args {
    /// The given files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.users, &self.products, &self.orders]
            .into_iter()
            .flatten()
    }
}

/// The services use plain HTTP; TLS would be a reverse proxy's, for browsers.
fn base_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}"))?;
    if url.scheme() == "http" && url.has_host() {
        Ok(url)
    } else {
        Err("must begin with http:// and a host".to_owned())
    }
}
