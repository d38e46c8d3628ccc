//! Sources: their streams and relays, and whether these agree.

use std::collections::BTreeSet;

use headwater::stream;
use terminal::table::{age, count};

use crate::finding::{Check, Finding, Grade};
use crate::limits::Limits;
use crate::survey::Survey;
use crate::topology;

/// Whether each source has its stream, with all events and the right settings.
pub(crate) fn streams(survey: &Survey) -> Vec<Finding> {
    let mut check = Check::new("streams");
    incomplete(&mut check, survey);
    for stream in &survey.topology.streams {
        settings(&mut check, stream);
    }
    missing(&mut check, survey);
    check.or(|| {
        let names = survey.topology.streams.iter();
        let names: Vec<&str> = names.map(|stream| &*stream.info.config.name).collect();
        format!(
            "{} have all events and the right settings",
            names.join(", ")
        )
    })
}

/// Reports streams that do not have all events of their source.
fn incomplete(check: &mut Check, survey: &Survey) {
    for stream in &survey.streams {
        let (name, source) = (&stream.name, &stream.source);
        if !stream.discards.is_empty() {
            let limits = stream.discards.join(", ");
            check.alarm(
                Grade::Warn,
                format!("{name} drops events by its {limits}: a rebuild reads the dropped events from the outbox of {source}"),
                format!("if that is not intended, `nats stream edit {name}`; then `headwater stream restore {source}` puts all events into the stream again"),
            );
        } else if let Some(first) = stream.begins_at {
            check.alarm(
                Grade::Warn,
                format!("{name} begins with position {first} of {source}: earlier events are only in the outbox"),
                format!("headwater stream restore {source}"),
            );
        }
    }
}

fn settings(check: &mut Check, stream: &topology::Stream) {
    let (source, config, state) = (&stream.source, &stream.info.config, &stream.info.state);
    let wanted = stream::settings(source, config.num_replicas);
    let differing: Vec<String> = stream::differences(config, &wanted)
        .into_iter()
        .map(|found| format!("{} is {}, not {}", found.setting, found.is, found.wanted))
        .collect();
    if !differing.is_empty() {
        check.advise(
            Grade::Warn,
            format!("{}: {}", config.name, differing.join("; ")),
            format!("headwater provision {source} --dry-run"),
        );
    }
    let span = (state.last_sequence + 1).saturating_sub(state.first_sequence.max(1));
    let holes = span.saturating_sub(state.messages);
    if holes > 0 {
        check.advise(
            Grade::Warn,
            format!("{}: {holes} sequences have no event", config.name),
            format!(
                "headwater verify --source {source}; projections fetch missing events from the outbox"
            ),
        );
    }
}

/// Reports sources of the plan, or with a relay, that have no stream, or that there is no source at
/// all.
fn missing(check: &mut Check, survey: &Survey) {
    let streams = survey.topology.streams.iter();
    let there: BTreeSet<&str> = streams.map(|stream| &*stream.source).collect();
    let relays = survey.relays.iter().map(|relay| &*relay.source);
    let planned = survey.topology.planned.iter().map(String::as_str);
    let known: BTreeSet<&str> = planned.chain(relays).collect();
    let missing: Vec<&str> = (known.into_iter())
        .filter(|source| !there.contains(source))
        .filter(|source| !survey.silent.contains(&stream::name(source)))
        .collect();
    if !missing.is_empty() {
        check.advise(
            Grade::Fail,
            format!("there is no stream of {}", missing.join(", ")),
            format!(
                "start the services, or `headwater provision {}`",
                missing.join(" ")
            ),
        );
    } else if there.is_empty() && survey.silent.is_empty() {
        check.advise(
            Grade::Fail,
            "there are none",
            "start the services, or `headwater provision --plan FILE`: see deploy/nats",
        );
    }
}

/// Whether the relays publish the outboxes' events.
pub(crate) fn relays(survey: &Survey, limits: &Limits) -> Vec<Finding> {
    let mut check = Check::new("relays");
    for relay in &survey.relays {
        let (source, depth) = (&relay.source, relay.depth);
        if let Some(grade) = limits.of_outbox(depth) {
            let (events, seconds) = (count(depth.events), age(depth.seconds));
            check.alarm(
                grade,
                format!("the outbox of {source}: {events} events wait, the oldest for {seconds}"),
                format!(
                    "find the cause with `nats request headwater.{source}.status ''` and in its log"
                ),
            );
        }
    }
    check.or(|| {
        let depths = survey.relays.iter();
        let waiting: u64 = depths.filter_map(|relay| relay.depth.events).sum();
        format!("{} outboxes, {waiting} events wait", survey.relays.len())
    })
}

/// Whether each stream ends where its outbox does, or its relay is still publishing.
pub(crate) fn positions(survey: &Survey) -> Vec<Finding> {
    let (mut check, mut agreeing) = (Check::new("positions"), Vec::new());
    for relay in &survey.relays {
        let source = &relay.source;
        match (relay.head, relay.published) {
            (Some(head), Some(published)) if published > head => check.alarm(
                Grade::Fail,
                format!("the stream of {source} is ahead of its outbox: it ends with {published}, the outbox with {head}"),
                format!("restore the newest copy of the database or, if the database is right, run `headwater stream restore {source}`"),
            ),
            (Some(head), Some(published)) => agreeing.push(format!("{source} {published} of {head}")),
            // Reported with the replicas.
            (Some(_), None) if survey.is_leaderless(source) => {}
            (Some(_), None) => check.advise(
                Grade::Warn,
                format!("the stream of {source} ends with events that are not of {source}"),
                format!("headwater verify --source {source}"),
            ),
            (None, _) => check.advise(
                Grade::Fail,
                format!("the outbox of {source} cannot be reached"),
                format!("start {source}"),
            ),
        }
    }
    if !agreeing.is_empty() {
        check.ok(agreeing.join(", "));
    }
    check.or(|| "no outboxes".to_owned())
}
