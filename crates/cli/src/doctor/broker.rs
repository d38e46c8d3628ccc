//! The way to the broker, and the broker.

use std::time::{Duration, Instant};

use async_nats::jetstream::response::Response;
use headwater::Clock;
use headwater::bus::ACCOUNTS_SINCE;
use serde_json::Value;

use super::{Finding, Grade};
use crate::Common;
use crate::nats::{Nats, Unreachable};
use crate::shop::Shop;

/// How long a server may take to answer what it answers at once or not at all.
const AT_ONCE: Duration = Duration::from_millis(500);

/// How far two clocks may be apart before lag in seconds means nothing.
const SKEW_MAX_MS: i64 = 2_000;

/// Finds out where NATS is and goes there.
pub(super) async fn connect(common: &Common, findings: &mut Vec<Finding>) -> anyhow::Result<Nats> {
    const CONFIGURED: &str = "configured";
    const BROKER: &str = "broker";
    let settings = match common.nats.resolve() {
        Ok(settings) => settings,
        Err(error) => {
            let fix = "mend what it names, or say --server and --no-context";
            findings.push(Finding::fail(CONFIGURED, error.to_string(), fix));
            return Err(error.into());
        }
    };
    findings.push(Finding::ok(CONFIGURED, settings.place()));
    let started = Instant::now();
    match Nats::connect_to(&settings).await {
        Ok(nats) => {
            let info = nats.client.server_info();
            let cluster = info.cluster.map(|name| format!(" of the cluster {name}"));
            findings.push(Finding::ok(
                BROKER,
                format!(
                    "{}{} accepts connections, in {} ms",
                    info.server_name,
                    cluster.unwrap_or_default(),
                    started.elapsed().as_millis()
                ),
            ));
            Ok(nats)
        }
        Err(error) => {
            let fix = match error.downcast_ref() {
                Some(Unreachable::Login { .. }) => "say who you are: --creds, --nkey, --user",
                Some(_) => {
                    "start it (`cargo dev`, `systemctl start headwater-nats`), or say where it is with --server"
                }
                None => "mend the file that it names",
            };
            findings.push(Finding::fail(BROKER, format!("{error:#}"), fix));
            Err(error)
        }
    }
}

/// Whether it is a server that the services can work with.
pub(super) async fn is_usable(nats: &Nats, findings: &mut Vec<Finding>) -> bool {
    let info = nats.client.server_info();
    let (major, minor, patch) = ACCOUNTS_SINCE;
    let version = if nats.client.is_server_compatible(major, minor, patch) {
        Finding::ok("version", format!("nats-server {}", info.version))
    } else if nats.client.is_server_compatible(2, 14, 0) {
        Finding::warn(
            "version",
            format!(
                "nats-server {} is too old for services with accounts of their own",
                info.version
            ),
            "install 2.14.4 or later: before, a projection gets no answer when it places its consumer",
        )
    } else {
        Finding::fail(
            "version",
            format!("nats-server {} is too old", info.version),
            "install 2.14.4 or later: relays need atomic batches, projections consumer reset",
        )
    };
    let jetstream = match nats.jetstream.query_account().await {
        Ok(account) => Finding::ok("jetstream", format!("enabled, {} streams", account.streams)),
        Err(error) => Finding::fail(
            "jetstream",
            format!("not available here: {error}"),
            "enable it in the server's configuration, `jetstream { store_dir: … }`, and for this account",
        ),
    };
    let is_usable = jetstream.grade == Grade::Ok;
    findings.extend([version, jetstream, sync(nats).await]);
    is_usable
}

/// Whether what is acknowledged is on the disk. Only the system account is told.
async fn sync(nats: &Nats) -> Finding {
    const CHECK: &str = "sync";
    let asked = nats.client.request("$SYS.REQ.SERVER.PING.VARZ", "".into());
    let answer = match tokio::time::timeout(AT_ONCE, asked).await {
        Ok(Ok(answer)) => serde_json::from_slice(&answer.payload).unwrap_or(Value::Null),
        _ => Value::Null,
    };
    let config = &answer["data"]["jetstream"]["config"];
    match (&config["sync_always"], &config["sync_interval"]) {
        (Value::Bool(true), _) => Finding::ok(CHECK, "sync_interval is always"),
        (_, Value::Number(nanos)) => {
            let interval = Duration::from_nanos(nanos.as_u64().unwrap_or_default());
            Finding::warn(
                CHECK,
                format!(
                    "sync_interval is {interval:?}: a power cut loses what was acknowledged last"
                ),
                "set `sync_interval: always` in the server's jetstream block; relays publish again what was lost",
            )
        }
        _ => Finding::not_ok(
            CHECK,
            Grade::Unknown,
            "sync_interval can only be seen by the system account",
            "look in the server's configuration: `jetstream { sync_interval: always }`",
        ),
    }
}

/// Whether the server's clock is like ours: ages are told by one and counted by the other.
pub(super) async fn clock(nats: &Nats, shop: &Shop) -> Finding {
    const CHECK: &str = "clock";
    let Some(skew_ms) = skew_ms(nats, shop).await else {
        return Finding::not_ok(
            CHECK,
            Grade::Unknown,
            "the server tells no time without a stream",
            "make the streams: `headwater provision`",
        );
    };
    if skew_ms.abs() <= SKEW_MAX_MS {
        return Finding::ok(
            CHECK,
            format!("within {} ms of the server's", skew_ms.abs()),
        );
    }
    Finding::warn(
        CHECK,
        format!("the server's clock is {skew_ms} ms ahead of the one here"),
        "synchronise both (`timedatectl set-ntp true`): lag in seconds is wrong by as much",
    )
}

/// How far the server's clock is ahead, by the time that it puts on an answer.
async fn skew_ms(nats: &Nats, shop: &Shop) -> Option<i64> {
    let name = &shop.streams.first()?.info.config.name;
    let clock = Clock::system();
    let before = clock.now_ms();
    let asked = nats.jetstream.request(format!("STREAM.INFO.{name}"), &());
    let answer: Response<Value> = asked.await.ok()?;
    let after = clock.now_ms();
    let Response::Ok(answer) = answer else {
        return None;
    };
    let server = Clock::read(answer["ts"].as_str()?)?;
    Some(server - before.midpoint(after))
}
