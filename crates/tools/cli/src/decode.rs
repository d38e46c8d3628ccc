//! `headwater decode`: decodes one event's payload from standard input to JSON.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::schemas::{self, Decoded, Problem, Schema};
use client::{Cache, Common, Nats, Settings, complain};
use serde_json::json;
use terminal::output::{Format, printable};
use terminal::{ErrorObject, Exit};

/// How long the broker may take: the operator waits for one event on the screen.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most bytes read: the largest payload that a server can be configured to accept.
const INPUT_MAX: u64 = 64 * 1024 * 1024;

/// Decode one event from standard input to JSON
///
/// The NATS CLI can run this command for each event:
/// `nats sub 'orders.>' --translate 'headwater decode --subject {{Subject}}'`, likewise with
/// `nats stream view` and `nats stream get`.
///
/// Schemas come from the KV bucket `headwater-schemas` and are cached for a minute below
/// `${XDG_CACHE_HOME:-~/.cache}/headwater`. Older cached schemas are used while the broker cannot
/// be reached.
///
/// A payload that does not decode is printed in base64, with the reason on stderr. With -o json,
/// one object has both.
///
/// Exit codes: 0 decoded, 1 not decoded, 2 usage error, 4 the broker cannot be reached and no
/// schema is cached.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The event's subject, which identifies its type
    #[arg(long, value_name = "SUBJECT", env = "HEADWATER_DECODE_SUBJECT")]
    pub subject: String,
}

/// Decodes the event and prints it.
pub(crate) async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let mut body = Vec::new();
    std::io::stdin()
        .take(INPUT_MAX)
        .read_to_end(&mut body)
        .context("read the event from standard input")?;
    let mut settings = common.nats.resolve()?;
    settings.timeout = settings.timeout.min(PATIENCE);
    match decode(&settings, &args.subject, &body).await? {
        Ok(decoded) => {
            print(decoded.json.get())?;
            Ok(Exit::Done)
        }
        Err(problem) => {
            let (what, payload) = (
                format!("{}: {problem}", args.subject),
                STANDARD.encode(&body),
            );
            if common.output == Format::Json {
                let mut error = json!(ErrorObject::new(what, None, Exit::Failed));
                error["payload"] = payload.into();
                common.print(&error)?;
            } else {
                complain(&printable(&what));
                print(&payload)?;
            }
            Ok(Exit::Failed)
        }
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("write to stdout")
}

/// Uses the cached schema if it is fresh and knows all fields, otherwise the broker's, otherwise
/// the old cached one.
async fn decode(
    settings: &Settings,
    subject: &str,
    body: &[u8],
) -> anyhow::Result<Result<Decoded, Problem>> {
    let source = schemas::source_of(subject);
    // The settings contain secrets: only their hash is used.
    let cache = Cache::of(&format!("{settings:?}"));
    let kept = cache.load(source);
    let kept = kept.and_then(|(entry, is_fresh)| Some((Schema::read(&entry).ok()?, is_fresh)));
    let at_hand = kept.map(|(schema, is_fresh)| (schema.decode(subject, body), is_fresh));
    let is_good = matches!(&at_hand, Some((Ok(decoded), true)) if !decoded.has_unknown);
    match at_hand {
        Some((decoded, _)) if is_good => Ok(decoded),
        at_hand => match (fetch(settings, source, &cache).await, at_hand) {
            (Ok(Some(schema)), _) => Ok(schema.decode(subject, body)),
            (_, Some((decoded, _))) => Ok(decoded),
            (Ok(None), None) => Ok(Err(Problem::NoSchema(source.to_owned()))),
            (Err(error), None) => Err(error),
        },
    }
}

async fn fetch(settings: &Settings, source: &str, cache: &Cache) -> anyhow::Result<Option<Schema>> {
    let nats = Nats::connect_to(settings).await?;
    let Some(entry) = schemas::fetch(&nats, source).await? else {
        return Ok(None);
    };
    let schema = Schema::read(&entry)?;
    cache.keep(source, &entry);
    Ok(Some(schema))
}
