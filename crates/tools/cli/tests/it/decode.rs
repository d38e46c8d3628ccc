//! `decode` with events of a service that was not compiled into the tool.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use tempfile::TempDir;

use crate::source::{PROTO, Source, reading};
use crate::tool::{self, Ended};

/// A terminal with its own cache.
struct Terminal {
    cache: TempDir,
    url: String,
}

impl Terminal {
    fn new(source: &Source) -> Self {
        Self {
            cache: tempfile::tempdir().expect("a folder"),
            url: source.broker.url(),
        }
    }

    async fn decode(&self, subject: &str, body: &[u8]) -> Ended {
        let cache = self.cache.path().to_str().expect("UTF-8");
        let environment = [("NATS_URL", &*self.url), ("XDG_CACHE_HOME", cache)];
        let mut tool = tool::start(&["decode", "--subject", subject], &environment);
        drop(tool.feed(body).await);
        tool.end().await
    }
}

#[tokio::test]
async fn an_event_of_a_service_that_the_tool_was_not_built_with_is_json() {
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    let terminal = Terminal::new(&source);
    let body = reading(8).encode_to_vec();
    for subject in ["sensors.v1.read.17", "sensors.v1.read"] {
        let ended = terminal.decode(subject, &body).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(ended.stdout, "{\"sensor\":\"sensor 1\",\"value\":\"8\"}\n");
        assert_eq!(ended.stderr, "", "the NATS CLI shows it, too");
    }
    let ended = terminal.decode("sensors.v1.read.17", b"").await;
    assert_eq!(ended.stdout, "{\"sensor\":\"\",\"value\":\"0\"}\n");
    source.stop().await;
}

#[tokio::test]
async fn with_the_broker_away_what_was_learnt_before_is_used() {
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    let terminal = Terminal::new(&source);
    let body = reading(8).encode_to_vec();
    let ended = terminal.decode("sensors.v1.read.17", &body).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    source.broker.kill().expect("kill");
    let ended = terminal.decode("sensors.v1.read.17", &body).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let entry = file_of(&terminal);
    let old = std::fs::File::options().write(true).open(&entry);
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    old.expect("a file").set_modified(epoch).expect("a time");
    let ended = terminal.decode("sensors.v1.read.17", &body).await;
    assert_eq!(
        ended.code,
        Some(0),
        "it is old, but there is no other: {ended:?}"
    );
    let stranger = Terminal::new(&source);
    let ended = stranger.decode("sensors.v1.read.17", &body).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("cannot be reached"), "{ended:?}");
}

/// The file with the cached schema of sensors.
fn file_of(terminal: &Terminal) -> std::path::PathBuf {
    let folder = terminal.cache.path().join("headwater/schemas");
    let mut brokers = std::fs::read_dir(folder).expect("a folder");
    let broker = brokers.next().expect("one broker").expect("an entry");
    broker.path().join("sensors.json")
}

#[tokio::test]
async fn what_does_not_decode_is_shown_as_it_is() {
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    let terminal = Terminal::new(&source);
    let body = b"\x0a\xffnonsense";
    for (subject, why) in [
        (
            "sensors.v1.read.17",
            "not a valid test.sensors.v1.SensorRead",
        ),
        (
            "sensors.v1.broken.17",
            "is not an event type of sensors; its types are: sensors.v1.read",
        ),
        (
            "gauges.v1.read.17",
            "there is no schema of the events of gauges",
        ),
        ("../gauges", "there is no schema"),
    ] {
        let ended = terminal.decode(subject, body).await;
        assert_eq!(ended.code, Some(1), "{subject}: {ended:?}");
        assert_eq!(ended.stdout, format!("{}\n", STANDARD.encode(body)));
        assert!(ended.stderr.contains(why), "{subject}: {ended:?}");
    }
    source.stop().await;
}

#[tokio::test]
async fn a_schema_that_grew_is_asked_for_at_once() {
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    let terminal = Terminal::new(&source);
    let old = reading(8).encode_to_vec();
    let ended = terminal.decode("sensors.v1.read.17", &old).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let grown = PROTO.replace("value = 2;", "value = 2; string unit = 3;");
    source.describe(&grown).await;
    // Field 3, five bytes: not in the cached schema.
    let new = [&old[..], b"\x1a\x05hours"].concat();
    let ended = terminal.decode("sensors.v1.read.17", &new).await;
    let wanted = "{\"sensor\":\"sensor 1\",\"value\":\"8\",\"unit\":\"hours\"}\n";
    assert_eq!(ended.stdout, wanted);
    source.stop().await;
}
