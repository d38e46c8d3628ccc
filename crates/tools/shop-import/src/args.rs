//! The flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Parser};
use reqwest::Url;
use terminal::Format;
use terminal::output::duration;

/// Import users, products and orders from JSON Lines files
///
/// Users and products are sent first, then orders. Ids of the source system are mapped to UUIDs,
/// always to the same ones, so that a run can be repeated: nothing is doubled. A line that cannot
/// be imported is reported as `file:line: what is wrong`, the rest is imported; of lines with the
/// same reason the first 20 are shown and the others counted.
///
/// The ids `1000` and `"1000"` become one id: where both are in a file, the second is not imported.
///
/// Exit codes: 0 all was imported, 1 some lines failed, 2 the command line cannot be followed, 4 a
/// service cannot be reached, 130 interrupted by Ctrl-C or SIGTERM: the summary says what was done
/// until then, and the same command goes on.
#[derive(Clone, Debug, Parser)]
#[command(name = "shop-import", version)]
#[command(group(ArgGroup::new("files").args(["users", "products", "orders"]).required(true).multiple(true)))]
pub struct Args {
    /// Users, one `{"id", "name", "email"}` a line; `-` is stdin
    #[arg(long, value_name = "FILE", env = "HEADWATER_IMPORT_USERS")]
    pub users: Option<PathBuf>,

    /// Products, one `{"id", "title", "image"}` a line; `-` is stdin
    #[arg(long, value_name = "FILE", env = "HEADWATER_IMPORT_PRODUCTS")]
    pub products: Option<PathBuf>,

    /// Orders, one `{"id", "user_id", "product_ids": []}` a line; `-` is stdin
    #[arg(long, value_name = "FILE", env = "HEADWATER_IMPORT_ORDERS")]
    pub orders: Option<PathBuf>,

    /// Where the users service answers
    #[arg(long, value_name = "URL", env = "HEADWATER_USERS_URL", default_value = "http://127.0.0.1:8081", value_parser = base_url)]
    pub users_url: Url,

    /// Where the products service answers
    #[arg(long, value_name = "URL", env = "HEADWATER_PRODUCTS_URL", default_value = "http://127.0.0.1:8082", value_parser = base_url)]
    pub products_url: Url,

    /// Where the orders service answers
    #[arg(long, value_name = "URL", env = "HEADWATER_ORDERS_URL", default_value = "http://127.0.0.1:8083", value_parser = base_url)]
    pub orders_url: Url,

    /// Requests under way at one time, per service
    #[arg(long, value_name = "N", env = "HEADWATER_IMPORT_IN_FLIGHT", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub in_flight: u16,

    /// Where all lines that fail are kept, one `{"file", "line", "id", "reason", "status"}` a line;
    /// what is there is overwritten
    #[arg(long, value_name = "FILE", env = "HEADWATER_IMPORT_ERRORS")]
    pub errors: Option<PathBuf>,

    /// How long a line is tried again while its service is away or busy
    #[arg(long, value_name = "SECONDS", env = "HEADWATER_IMPORT_PATIENCE", default_value = "60", value_parser = duration)]
    pub patience: Duration,

    /// How to print the summary
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
    /// The files that were given.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.users, &self.products, &self.orders]
            .into_iter()
            .flatten()
    }
}

/// The services speak plain HTTP; TLS in front of them would be a reverse proxy's, for browsers.
fn base_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}"))?;
    if url.scheme() == "http" && url.has_host() {
        Ok(url)
    } else {
        Err("must begin with http:// and a host".to_owned())
    }
}
