//! Performance data for Nagios: `'name'=value;warning;critical`.

use crate::limits::{Limit, Limits};
use crate::survey::{Survey, Waiting};

pub(crate) fn data(survey: &Survey, limits: &Limits) -> Vec<String> {
    let mut data = Vec::new();
    for projection in &survey.projections {
        for (source, lag) in &projection.sources {
            let name = format!("{} {source}", projection.name);
            let levels = [limits.lag_warning, limits.lag_critical];
            data.extend(waiting("lag", &name, lag.waiting, levels));
        }
    }
    for relay in &survey.relays {
        let levels = [limits.outbox_warning, limits.outbox_critical];
        data.extend(waiting("outbox", &relay.source, relay.depth, levels));
    }
    for projection in &survey.projections {
        // Nagios alerts above the end of a range, these limits count from their number on.
        let levels = [limits.dead_letters_warning, limits.dead_letters_critical];
        let levels = levels.map(|limit| Some(limit.saturating_sub(1).to_string()));
        let letters = Some(projection.dead_letters.to_string());
        let label = format!("dead letters {}", projection.name);
        data.push(datum(&label, letters, levels));
    }
    data
}

fn waiting(kind: &str, name: &str, waiting: Waiting, limits: [Limit; 2]) -> [String; 2] {
    let events = waiting.events.map(|events| events.to_string());
    let age = waiting.seconds.map(|seconds| format!("{seconds:.3}s"));
    [
        datum(
            &format!("{kind} {name}"),
            events,
            limits.map(|limit| limit.events.map(|events| events.to_string())),
        ),
        datum(
            &format!("{kind} age {name}"),
            age,
            limits.map(|limit| limit.age.map(|age| age.as_secs_f64().to_string())),
        ),
    ]
}

fn datum(label: &str, value: Option<String>, levels: [Option<String>; 2]) -> String {
    // A label must contain neither quotes nor equals signs.
    let label = label.replace(['\'', '=', '|'], "_");
    let value = value.unwrap_or_else(|| "U".to_owned());
    let [warning, critical] = levels.map(Option::unwrap_or_default);
    format!("'{label}'={value};{warning};{critical}")
}
