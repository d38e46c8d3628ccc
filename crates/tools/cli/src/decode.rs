//! `headwater decode`: one event's body from standard input, as JSON.

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

/// How long the broker may take while somebody waits for one event on the screen.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most that is read: what a server lets through at its largest.
const INPUT_MAX: u64 = 64 * 1024 * 1024;

/// Decode one event from standard input to JSON
///
/// Made for the NATS CLI, which runs it for each event:
/// `nats sub 'orders.>' --translate 'headwater decode --subject {{Subject}}'`, and the same with
/// `nats stream view` and `nats stream get`.
///
/// What the bytes mean is in the KV bucket `headwater-schemas`, and for a minute in a file below
/// `${XDG_CACHE_HOME:-~/.cache}/headwater`, which is also used when the broker is away.
///
/// A body that does not decode is printed in base64, and why is said on stderr; with -o json both
/// are one object.
///
/// Exit codes: 0 decoded, 1 not decoded, 2 the command line cannot be followed, 4 the broker
/// cannot be reached and no schema is kept.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The subject that it came on: it says which event it is
    #[arg(long, value_name = "SUBJECT", env = "HEADWATER_DECODE_SUBJECT")]
    pub subject: String,
}

/// Decodes and prints.
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

/// With the schema at hand if that is fresh and has all of it; else with the broker's; else with
/// the old one.
async fn decode(
    settings: &Settings,
    subject: &str,
    body: &[u8],
) -> anyhow::Result<Result<Decoded, Problem>> {
    let source = schemas::source_of(subject);
    // Nothing in it is told to anybody: it is hashed.
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
