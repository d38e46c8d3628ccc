//! The connection to the broker, and the broker.

use std::time::Instant;

use async_nats::jetstream::response::Response;
use client::{Common, Nats, Unreachable};
use headwater::bus::ACCOUNTS_SINCE;
use headwater::{Clock, causes};
use serde_json::Value;

use crate::brokers::Brokers;
use crate::finding::{Finding, Grade};
use crate::survey::Survey;

/// How far two clocks may differ before lag in seconds is meaningless.
const SKEW_MAX_MS: i64 = 2_000;

/// Resolves the connection settings and connects.
pub(crate) async fn connect(common: &Common, findings: &mut Vec<Finding>) -> anyhow::Result<Nats> {
    const CONFIGURED: &str = "configured";
    const BROKER: &str = "broker";
    let settings = match common.nats.resolve() {
        Ok(settings) => settings,
        Err(error) => {
            let fix = "fix what it names, or use --server and --no-context";
            findings.push(Finding::fail(CONFIGURED, error.to_string(), fix));
            return Err(error.into());
        }
    };
    findings.push(Finding::ok(CONFIGURED, settings.place()));
    let started = Instant::now();
    match Nats::connect_to(&settings).await {
        Ok(nats) => {
            let (info, ms) = (nats.client.server_info(), started.elapsed().as_millis());
            let cluster = info.cluster.map(|name| format!(" of the cluster {name}"));
            let name = info.server_name + &cluster.unwrap_or_default();
            let what = format!("{name} accepts connections, in {ms} ms");
            findings.push(Finding::ok(BROKER, what));
            Ok(nats)
        }
        Err(error) => {
            let fix = match &error {
                client::Error::Unreachable(Unreachable::Login { .. }) => {
                    "log in with --creds, --nkey or --user"
                }
                client::Error::Unreachable(_) => {
                    "start it (`cargo dev`, `systemctl start headwater-nats`), or name the server with --server"
                }
                _ => "fix the file that it names",
            };
            findings.push(Finding::fail(BROKER, causes(&error), fix));
            Err(error.into())
        }
    }
}

/// Whether the server version works with the services.
pub(crate) fn version(nats: &Nats) -> Finding {
    const CHECK: &str = "version";
    let info = nats.client.server_info();
    let (major, minor, patch) = ACCOUNTS_SINCE;
    if nats.client.is_server_compatible(major, minor, patch) {
        Finding::ok(CHECK, format!("nats-server {}", info.version))
    } else if nats.client.is_server_compatible(2, 14, 0) {
        Finding::warn(
            CHECK,
            format!(
                "nats-server {} is too old for services with restricted accounts",
                info.version
            ),
            "install 2.14.4 or later: with older versions, a projection gets no answer when it positions its consumer",
        )
    } else {
        Finding::fail(
            CHECK,
            format!("nats-server {} is too old", info.version),
            "install 2.14.4 or later: relays need atomic batches, projections need consumer reset",
        )
    }
}

/// Whether acknowledged messages are synced to disk. Not every account may see the setting.
pub(crate) fn sync(brokers: &Brokers) -> Finding {
    const CHECK: &str = "sync";
    let mut seen = brokers.statuses.iter().filter_map(|broker| broker.sync);
    let lax = seen.clone().find(|(is_always, _)| !is_always);
    match (lax, seen.next()) {
        (Some((_, interval)), _) => Finding::warn(
            CHECK,
            format!(
                "sync_interval is {interval:?}: a power cut loses the last acknowledged events"
            ),
            "set `sync_interval: always` in the server's jetstream block; relays publish lost events again",
        ),
        (None, Some(_)) => Finding::ok(CHECK, "sync_interval is always"),
        (None, None) => Finding::new(
            CHECK,
            Grade::Unknown,
            "sync_interval is visible only to the system account, and with the accounts of deploy/nats",
            "check the server's configuration: `jetstream { sync_interval: always }`",
        ),
    }
}

/// Whether the server's clock agrees with ours: event times come from the server, ages are computed
/// here.
pub(crate) async fn clock(nats: &Nats, survey: &Survey) -> Finding {
    const CHECK: &str = "clock";
    let Some(skew_ms) = skew_ms(nats, survey).await else {
        return Finding::new(
            CHECK,
            Grade::Unknown,
            "the server reports its time only with a stream",
            "create the streams: `headwater provision`",
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
        format!("the server's clock is {skew_ms} ms ahead of the local clock"),
        "synchronise both (`timedatectl set-ntp true`): lag in seconds is wrong by as much",
    )
}

/// How far the server's clock is ahead, by the timestamp of an answer.
async fn skew_ms(nats: &Nats, survey: &Survey) -> Option<i64> {
    let name = &survey.streams.first()?.name;
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
