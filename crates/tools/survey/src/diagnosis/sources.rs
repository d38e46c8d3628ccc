//! Sources: their streams, services, relays.

use std::collections::BTreeSet;
use std::time::Duration;

use headwater::health::State;
use headwater::stream;
use terminal::table::{age, count};

use super::Finding;
use crate::nats::Unreachable;
use crate::provision::SHOP;
use crate::shop::Shop;
use crate::survey::{Level, Survey};

/// Whether each source has its stream, with the settings that it should have.
pub(super) fn streams(shop: &Shop, survey: &Survey) -> Vec<Finding> {
    const CHECK: &str = "streams";
    let incomplete = survey.incomplete().into_iter();
    let mut findings: Vec<Finding> = incomplete
        .map(|found| Finding::warn(CHECK, found.what, found.fix))
        .collect();
    for stream in &shop.streams {
        let (source, config) = (&stream.source, &stream.info.config);
        let wanted = stream::settings(source, config.num_replicas);
        let differing: Vec<String> = stream::differences(config, &wanted)
            .into_iter()
            .map(|found| format!("{} is {}, not {}", found.setting, found.is, found.wanted))
            .collect();
        if !differing.is_empty() {
            findings.push(Finding::warn(
                CHECK,
                format!("{}: {}", config.name, differing.join("; ")),
                format!("headwater provision {source} --dry-run"),
            ));
        }
        let state = &stream.info.state;
        let span = (state.last_sequence + 1).saturating_sub(state.first_sequence.max(1));
        let holes = span.saturating_sub(state.messages);
        if holes > 0 {
            findings.push(Finding::warn(
                CHECK,
                format!("{}: {holes} sequences have no event", config.name),
                format!("headwater verify --source {source}; readers fetch what is missing from the outbox"),
            ));
        }
    }
    let there: BTreeSet<&str> = shop.streams.iter().map(|stream| &*stream.source).collect();
    let has_shop = SHOP.iter().any(|source| there.contains(source));
    let missing: Vec<&str> = SHOP
        .into_iter()
        .filter(|source| !there.contains(source) && (has_shop || there.is_empty()))
        .filter(|source| !survey.silent.contains(&stream::name(source)))
        .collect();
    if !missing.is_empty() {
        findings.push(Finding::fail(
            CHECK,
            format!("there is none of {}", missing.join(", ")),
            format!(
                "start the services, or `headwater provision {}`",
                missing.join(" ")
            ),
        ));
    }
    if findings.is_empty() {
        let names: Vec<&str> = shop
            .streams
            .iter()
            .map(|stream| &*stream.info.config.name)
            .collect();
        findings.push(Finding::ok(
            CHECK,
            format!("{} are as they should be", names.join(", ")),
        ));
    }
    findings
}

/// Whether brokers have the copies that they should.
pub(super) fn replicas(survey: &Survey) -> Vec<Finding> {
    const CHECK: &str = "replicas";
    const START: &str = "start the broker that is named: `systemctl start headwater-nats` where it is; it catches up by itself";
    const LEADERLESS: &str =
        "start the brokers that are away; if all are there, docs/operations.md, HeadwaterQuorum";
    let troubles = survey.short_of_replicas().into_iter();
    let mut findings: Vec<Finding> = troubles
        .map(|(_, trouble)| match trouble.level {
            Level::Critical => Finding::fail(CHECK, trouble.what, LEADERLESS),
            Level::Warning => Finding::warn(CHECK, trouble.what, START),
        })
        .collect();
    if findings.is_empty() {
        let kept = survey
            .streams
            .iter()
            .map(|stream| stream.replicas.configured);
        let kept: BTreeSet<String> = kept.map(|copies| copies.to_string()).collect();
        let kept: Vec<String> = kept.into_iter().collect();
        let what = match kept.as_slice() {
            [] => "there are no streams".to_owned(),
            kept => format!("{} of each stream, all current", kept.join(" or ")),
        };
        findings.push(Finding::ok(CHECK, what));
    }
    findings
}

/// Whether those answer who should be there, and what they say of themselves.
pub(super) fn services(shop: &Shop, survey: &Survey) -> Vec<Finding> {
    const CHECK: &str = "services";
    let mut findings = Vec::new();
    for away in &shop.unreachable {
        let fix = match away {
            Unreachable::Service { service, .. } => format!(
                "`systemctl status headwater-{service}`, or the output of `cargo dev`; `/readyz?verbose` at its admin port says more"
            ),
            _ => "do what it says".to_owned(),
        };
        findings.push(Finding::fail(CHECK, away.to_string(), fix));
    }
    for failed in &shop.failed {
        let fix = "do what it says; the log of the service has more";
        findings.push(Finding::fail(CHECK, failed, fix));
    }
    for service in &survey.services {
        let versions: BTreeSet<&str> = service
            .instances
            .iter()
            .map(|instance| &*instance.version)
            .collect();
        if versions.len() > 1 {
            let versions: Vec<&str> = versions.into_iter().collect();
            findings.push(Finding::warn(
                CHECK,
                format!(
                    "{} runs in the versions {}",
                    service.name,
                    versions.join(", ")
                ),
                "finish the upgrade",
            ));
        }
        for (part, state) in &service.parts {
            let name = &service.name;
            match state {
                State::Ok(_) => {}
                // Told with the projections, with what to do.
                State::Degraded(_) if is_paused(survey, part) || is_at_fault(survey, part) => {}
                // Told with the brokers.
                State::Degraded(why) if survey.is_said_of_brokers(part, why) => {}
                State::Degraded(why) => findings.push(Finding::warn(
                    CHECK,
                    format!("{name}: {part}: {why}"),
                    format!("look what it names; if it stays, journalctl -u 'headwater*{name}*' has more"),
                )),
                State::Failed(why) => findings.push(Finding::fail(
                    CHECK,
                    format!("{name}: {part}: {why}"),
                    format!("do what it says; journalctl -u 'headwater*{name}*' has more"),
                )),
            }
        }
    }
    if findings.is_empty() {
        let names: Vec<&str> = shop.services.keys().map(String::as_str).collect();
        let what = match names.as_slice() {
            [] => "nobody is expected, and nobody answers".to_owned(),
            names => format!("{} answer", names.join(", ")),
        };
        findings.push(Finding::ok(CHECK, what));
    }
    findings
}

fn is_paused(survey: &Survey, part: &str) -> bool {
    let mut projections = survey.projections.iter();
    projections.any(|projection| projection.name == part && projection.paused.is_some())
}

fn is_at_fault(survey: &Survey, part: &str) -> bool {
    survey.projections.iter().any(|projection| {
        let mut faults = projection.faults();
        faults.any(|(source, _)| part == format!("{} from {source}", projection.name))
    })
}

/// Whether what is in the outboxes gets to the streams.
pub(super) fn relays(survey: &Survey, max_lag: Duration) -> Vec<Finding> {
    const CHECK: &str = "relays";
    let mut findings = Vec::new();
    for relay in &survey.relays {
        let depth = relay.depth;
        if depth.is_older_than(max_lag) {
            findings.push(Finding::fail(
                CHECK,
                format!(
                    "{}: {} events wait, the oldest for {}",
                    relay.source,
                    count(depth.events),
                    age(depth.seconds)
                ),
                format!(
                    "look why: `nats request headwater.{}.status ''`, and its log",
                    relay.source
                ),
            ));
        }
    }
    if findings.is_empty() {
        let waiting: u64 = survey
            .relays
            .iter()
            .filter_map(|relay| relay.depth.events)
            .sum();
        findings.push(Finding::ok(
            CHECK,
            format!("{} outboxes, {waiting} events wait", survey.relays.len()),
        ));
    }
    findings
}

/// Whether each stream ends where its outbox does, or the relay is on the way there.
pub(super) fn positions(survey: &Survey) -> Vec<Finding> {
    const CHECK: &str = "positions";
    let mut findings = Vec::new();
    let mut agreeing = Vec::new();
    for relay in &survey.relays {
        let source = &relay.source;
        match (relay.head, relay.published) {
            (Some(head), Some(published)) if published > head => findings.push(Finding::fail(
                CHECK,
                format!("the stream of {source} is ahead: it ends with {published}, the outbox with {head}"),
                format!("put back the newest copy of the database; or, if the database is right, `headwater stream restore {source}`"),
            )),
            (Some(head), Some(published)) => agreeing.push(format!("{source} {published} of {head}")),
            // Told with the replicas.
            (Some(_), None) if survey.is_leaderless(source) => {}
            (Some(_), None) => findings.push(Finding::warn(
                CHECK,
                format!("the end of the stream of {source} has only events of others"),
                format!("headwater verify --source {source}"),
            )),
            (None, _) => findings.push(Finding::fail(
                CHECK,
                format!("the outbox of {source} cannot be asked"),
                format!("start {source}"),
            )),
        }
    }
    if !agreeing.is_empty() || findings.is_empty() {
        let what = if agreeing.is_empty() {
            "no outboxes".to_owned()
        } else {
            agreeing.join(", ")
        };
        findings.push(Finding::ok(CHECK, what));
    }
    findings
}
