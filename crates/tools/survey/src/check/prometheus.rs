//! The text exposition for Prometheus. The names differ from the metrics that services export.

use std::fmt::{Display, Write as _};

use headwater::health::State;
use headwater::replicas::Replicas;

use crate::survey::{Projection, Relay, Survey};

/// All values of the survey; without a survey, only that there is none.
pub(crate) fn exposition(survey: Option<&Survey>) -> String {
    let mut text = String::new();
    let up = u8::from(survey.is_some());
    one(&mut text, "up", "Whether the broker could be reached.", up);
    if let Some(survey) = survey {
        brokers(&mut text, survey);
        services(&mut text, survey);
        outboxes(&mut text, survey);
        projections(&mut text, survey);
    }
    text
}

/// Writes a metric that has a value for each set of labels.
fn gauge<'a, const N: usize>(
    text: &mut String,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = ([(&'static str, &'a str); N], impl Display)>,
) {
    let write = || {
        writeln!(text, "# HELP headwater_check_{name} {help}")?;
        writeln!(text, "# TYPE headwater_check_{name} gauge")?;
        for (labels, value) in values {
            let labels = labels.map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
            let labels = match labels.as_slice() {
                [] => String::new(),
                labels => format!("{{{}}}", labels.join(",")),
            };
            writeln!(text, "headwater_check_{name}{labels} {value}")?;
        }
        std::fmt::Result::Ok(())
    };
    write().expect("a String takes all");
}

/// Writes a metric that has one value.
fn one(text: &mut String, name: &str, help: &str, value: impl Display) {
    gauge(text, name, help, [([], value)]);
}

fn brokers(text: &mut String, survey: &Survey) {
    let brokers = &survey.brokers;
    let help = "Brokers that are reachable.";
    one(text, "brokers", help, brokers.there.len());
    let help = "Brokers that should be reachable, as far as known.";
    one(text, "brokers_expected", help, brokers.expected);
    let help = "Whether JetStream is usable: the brokers have a quorum.";
    one(text, "jetstream_up", help, u8::from(brokers.is_usable()));
    if let Some(storage) = brokers.storage() {
        let help = "Bytes that JetStream stores, where it is nearest to its limit.";
        one(text, "jetstream_storage_bytes", help, storage.used);
        let help = "The limit of these bytes.";
        one(text, "jetstream_storage_limit_bytes", help, storage.limit);
    }
    let replicas = |value: fn(&Replicas) -> usize| {
        let streams = survey.streams.iter();
        let streams = streams.map(|stream| (&stream.name, &stream.replicas));
        let groups = survey.groups.iter();
        let all = streams.chain(groups.map(|group| (&group.name, &group.replicas)));
        all.map(move |(name, replicas)| ([("name", &**name)], value(replicas)))
    };
    let help = "Replicas that brokers should keep.";
    gauge(text, "replicas", help, replicas(|it| it.configured));
    let help = "Replicas that are current; 0 without a leader.";
    gauge(text, "replicas_current", help, replicas(|it| it.current));
}

fn services(text: &mut String, survey: &Survey) {
    #[expect(clippy::cast_precision_loss, reason = "a time")]
    let at = survey.at_ms as f64 / 1000.0;
    let help = "Time of the check, in seconds since 1970.";
    one(text, "time_seconds", help, at);
    let help = "Services, or projections with their service, that should answer and do not.";
    one(text, "missing", help, survey.missing.len());
    let all = survey.services.iter();
    let instances = all
        .clone()
        .map(|service| ([("service", &*service.name)], service.instances.len()));
    let help = "Instances that answer.";
    gauge(text, "service_instances", help, instances);
    let states = |label: &'static str| {
        all.clone().flat_map(move |service| {
            let components = service.parts.iter();
            components.map(move |(component, state)| {
                let state = match state {
                    State::Ok(_) => 0,
                    State::Degraded(_) => 1,
                    State::Failed(_) => 2,
                };
                ([("service", &*service.name), (label, &**component)], state)
            })
        })
    };
    let help = "State of a component of a service: 0 ok, 1 degraded, 2 failed.";
    gauge(text, "component_state", help, states("component"));
    // Its name before the next version (0.2), which still prints it.
    let help = "Deprecated: renamed to headwater_check_component_state";
    gauge(text, "part_state", help, states("part"));
}

fn outboxes(text: &mut String, survey: &Survey) {
    let relays = survey.relays.iter();
    let events = relays.clone();
    let events = events.filter_map(|relay| Some((source(relay), relay.depth.events?)));
    let help = "Events of an outbox that are not in its stream.";
    gauge(text, "outbox_events", help, events);
    let seconds = relays.filter_map(|relay| Some((source(relay), relay.depth.seconds?)));
    let help = "Age in seconds of the oldest event not in the stream.";
    gauge(text, "outbox_oldest_seconds", help, seconds);
}

fn projections(text: &mut String, survey: &Survey) {
    let all = survey.projections.iter();
    let lags = all.clone().flat_map(|projection| {
        let sources = projection.sources.iter();
        sources.map(|(source, lag)| {
            let labels = [("projection", &*projection.name), ("source", &**source)];
            (labels, lag.waiting)
        })
    });
    let events = lags.clone();
    let events = events.filter_map(|(labels, waiting)| Some((labels, waiting.events?)));
    let help = "Events of a source that a projection has not applied.";
    gauge(text, "lag_events", help, events);
    let seconds = lags.filter_map(|(labels, waiting)| Some((labels, waiting.seconds?)));
    let help = "Age in seconds of the oldest event not applied.";
    gauge(text, "lag_seconds", help, seconds);
    let each = |value: fn(&Projection) -> u64| {
        let each = all.clone();
        each.map(move |projection| ([("projection", &*projection.name)], value(projection)))
    };
    let help = "Dead letters of a projection, and the events waiting behind them.";
    gauge(text, "dead_letters", help, each(|it| it.dead_letters));
    let help = "Whether a projection is paused.";
    let paused = each(|it| u64::from(it.paused.is_some()));
    gauge(text, "paused", help, paused);
    let help = "Whether a projection's read store is complete.";
    let complete = each(|it| u64::from(it.is_complete));
    gauge(text, "complete", help, complete);
}

fn source(relay: &Relay) -> [(&'static str, &str); 1] {
    [("source", &relay.source)]
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
