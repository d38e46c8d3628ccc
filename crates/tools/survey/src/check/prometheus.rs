//! The form of Prometheus: text exposition. The names are not those of what services export.

use std::fmt::{Display, Write as _};

use headwater::health::State;

use crate::survey::Survey;

/// A metric while it is written.
struct Metric<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Metric<'_> {
    fn value(&mut self, labels: &[(&str, &str)], value: impl Display + Copy) {
        let labels = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
        let labels: Vec<String> = labels.collect();
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        let name = self.name;
        writeln!(self.text, "headwater_check_{name}{labels} {value}").expect("a String takes all");
    }
}

fn metric<'a>(text: &'a mut String, name: &'static str, help: &str) -> Metric<'a> {
    writeln!(
        text,
        "# HELP headwater_check_{name} {help}\n# TYPE headwater_check_{name} gauge"
    )
    .expect("a String takes all");
    Metric { text, name }
}

/// All that was seen; without a survey, that nothing was.
pub(super) fn exposition(survey: Option<&Survey>) -> String {
    let mut text = String::new();
    let up = u8::from(survey.is_some());
    metric(&mut text, "up", "Whether the broker could be asked.").value(&[], up);
    if let Some(survey) = survey {
        brokers(&mut text, survey);
        services(&mut text, survey);
        outboxes(&mut text, survey);
        projections(&mut text, survey);
    }
    text
}

fn brokers(text: &mut String, survey: &Survey) {
    let brokers = &survey.brokers;
    metric(text, "brokers", "Brokers that are there.").value(&[], brokers.there.len());
    let help = "How many brokers there should be, as far as that is known.";
    metric(text, "brokers_expected", help).value(&[], brokers.expected);
    let help = "Whether JetStream can be asked: enough brokers are there.";
    metric(text, "jetstream_up", help).value(&[], u8::from(brokers.is_usable()));
    if let Some((storage, _)) = brokers.storage() {
        let help = "What JetStream has stored, where it is nearest to its limit.";
        metric(text, "jetstream_storage_bytes", help).value(&[], storage.used);
        let help = "That limit.";
        metric(text, "jetstream_storage_limit_bytes", help).value(&[], storage.limit);
    }
    let replicas = || {
        let streams = survey.streams.iter();
        let streams = streams.map(|stream| (&stream.name, &stream.replicas));
        let groups = survey.groups.iter();
        streams.chain(groups.map(|group| (&group.name, &group.replicas)))
    };
    let mut of = metric(text, "replicas", "Copies that brokers should keep of it.");
    for (name, replicas) in replicas() {
        of.value(&[("name", name)], replicas.configured);
    }
    let help = "Copies that are up to date; 0 without a leader.";
    let mut of = metric(text, "replicas_current", help);
    for (name, replicas) in replicas() {
        of.value(&[("name", name)], replicas.current);
    }
}

fn services(text: &mut String, survey: &Survey) {
    #[expect(clippy::cast_precision_loss, reason = "a time")]
    let at = survey.at_ms as f64 / 1000.0;
    metric(text, "time_seconds", "When it was looked, since 1970.").value(&[], at);
    let help =
        "Services, or projections with their service, that should be there and do not answer.";
    metric(text, "missing", help).value(&[], survey.missing.len());
    let mut of = metric(text, "service_instances", "Processes that answer.");
    for service in &survey.services {
        of.value(&[("service", &service.name)], service.instances.len());
    }
    let help = "How a part of a service is doing: 0 ok, 1 degraded, 2 failed.";
    let mut of = metric(text, "part_state", help);
    for service in &survey.services {
        for (part, state) in &service.parts {
            let state = match state {
                State::Ok(_) => 0,
                State::Degraded(_) => 1,
                State::Failed(_) => 2,
            };
            of.value(&[("service", &service.name), ("part", part)], state);
        }
    }
}

fn outboxes(text: &mut String, survey: &Survey) {
    let mut of = metric(
        text,
        "outbox_events",
        "Events of an outbox that are not in its stream.",
    );
    for relay in &survey.relays {
        if let Some(events) = relay.depth.events {
            of.value(&[("source", &relay.source)], events);
        }
    }
    let mut of = metric(
        text,
        "outbox_oldest_seconds",
        "How old the oldest of them is.",
    );
    for relay in &survey.relays {
        if let Some(seconds) = relay.depth.seconds {
            of.value(&[("source", &relay.source)], seconds);
        }
    }
}

fn projections(text: &mut String, survey: &Survey) {
    let all = &survey.projections;
    let mut of = metric(
        text,
        "lag_events",
        "Events of a source that a projection has not applied.",
    );
    for projection in all {
        for (source, lag) in &projection.sources {
            if let Some(events) = lag.waiting.events {
                of.value(
                    &[("projection", &projection.name), ("source", source)],
                    events,
                );
            }
        }
    }
    let mut of = metric(text, "lag_seconds", "How old the oldest of them is.");
    for projection in all {
        for (source, lag) in &projection.sources {
            if let Some(seconds) = lag.waiting.seconds {
                of.value(
                    &[("projection", &projection.name), ("source", source)],
                    seconds,
                );
            }
        }
    }
    let mut of = metric(
        text,
        "dead_letters",
        "Events that a projection could not apply, and those behind.",
    );
    for projection in all {
        of.value(&[("projection", &projection.name)], projection.dead_letters);
    }
    let mut of = metric(text, "paused", "Whether an operator holds a projection.");
    for projection in all {
        let is_paused = u8::from(projection.paused.is_some());
        of.value(&[("projection", &projection.name)], is_paused);
    }
    let mut of = metric(text, "complete", "Whether a projection's tables are whole.");
    for projection in all {
        let is_complete = u8::from(projection.is_complete);
        of.value(&[("projection", &projection.name)], is_complete);
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
