//! The form of Nagios: `OK - what was seen|'name'=value;warning;critical`.

use std::time::Duration;

use super::limits::{Limits, Values};
use super::verdict::Verdict;

pub(super) fn line(verdict: &Verdict, values: Option<&Values>, limits: &Limits) -> String {
    // The bar ends the text.
    let text = verdict.to_string().replace('|', "/");
    let Some(values) = values else { return text };
    let mut data = Vec::new();
    let mut add = |label: String, value: Option<String>, limits: [Option<String>; 2]| {
        let [warning, critical] = limits.map(Option::unwrap_or_default);
        let value = value.unwrap_or_else(|| "U".to_owned());
        data.push(format!("'{}'={value};{warning};{critical}", plain(&label)));
    };
    let levels = [
        (
            "lag",
            &values.lags,
            [limits.lag_warning, limits.lag_critical],
        ),
        (
            "outbox",
            &values.outboxes,
            [limits.outbox_warning, limits.outbox_critical],
        ),
    ];
    for (kind, waiting, limits) in levels {
        for (name, waiting) in waiting {
            add(
                format!("{kind} {name}"),
                waiting.events.map(|events| events.to_string()),
                limits.map(|limit| limit.events.map(|events| events.to_string())),
            );
            add(
                format!("{kind} age {name}"),
                waiting.seconds.map(|seconds| format!("{seconds:.3}s")),
                limits.map(|limit| limit.age.map(seconds)),
            );
        }
    }
    for (name, letters) in &values.dead_letters {
        // A range of Nagios alerts above its end, these from their number on.
        let from = |limit: u64| Some(limit.saturating_sub(1).to_string());
        add(
            format!("dead letters {name}"),
            Some(letters.to_string()),
            [limits.dead_letters_warning, limits.dead_letters_critical].map(from),
        );
    }
    if data.is_empty() {
        return text;
    }
    format!("{text}|{}", data.join(" "))
}

fn seconds(duration: Duration) -> String {
    duration.as_secs_f64().to_string()
}

/// Neither quote nor equals sign may be in a label.
fn plain(label: &str) -> String {
    label.replace(['\'', '=', '|'], "_")
}
