//! What tests of faults share: the dose, what a service says of itself, and what needs root.

use serde_json::Value;

use crate::client::Client;
use crate::eventually;
use crate::process::lines;
use crate::world::{Service, World};

/// `count`, as many times as `HEADWATER_DOSE` says: 1 in CI, more for long runs.
///
/// # Panics
/// When the variable is not a number.
pub fn dose(count: usize) -> usize {
    let times = std::env::var("HEADWATER_DOSE").unwrap_or_else(|_| "1".to_owned());
    count * times.parse::<usize>().expect("HEADWATER_DOSE is a number")
}

/// The value of a metric in the exposition of a service; 0 when it is not there.
pub async fn metric(client: &Client, name: &str) -> f64 {
    let text = client.get("/metrics").await.text;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0.0, |value| value.trim().parse().expect("a number"))
}

/// The lines at `level` that a service logged, whose text has `words` in it.
pub fn logged(world: &World, service: Service, level: &str, words: &str) -> Vec<Value> {
    lines(&world.log(service))
        .filter(|line| line["level"] == level)
        .filter(|line| line.to_string().contains(words))
        .collect()
}

/// Waits until the part `part` of a service is in the state `state`; what it says then.
///
/// # Panics
/// When it does not get there.
pub async fn says(client: &Client, part: &str, state: &str, words: &str) -> String {
    eventually(&format!("{part} to be {state}: {words}"), || async {
        let parts = client.get("/readyz?verbose").await.json;
        let said = parts[part]["detail"].as_str().unwrap_or_default();
        if parts[part]["state"] == state && said.contains(words) {
            Ok(said.to_owned())
        } else {
            Err(parts.to_string())
        }
    })
    .await
}
