//! What the services' logs tell: situations that were met, and errors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::Value;

use super::tally::{Situation, Tally};
use crate::process;

/// `ERROR` lines that a fault explains: the beginning of each, and the fault.
const EXPLAINED: [(&str, &str); 0] = [];

/// Reads logs from where it read them last.
#[derive(Debug, Default)]
pub(super) struct Logs {
    read: BTreeMap<PathBuf, usize>,
}

impl Logs {
    /// Reads what all processes with a log in `folder` have logged since, and counts situations.
    ///
    /// # Errors
    /// An `ERROR` that no fault explains.
    pub(super) fn read(&mut self, folder: &Path, tally: &mut Tally) -> anyhow::Result<()> {
        for name in ["users", "products", "orders", "purchases", "rival"] {
            let path = folder.join(format!("{name}.log"));
            let bytes = std::fs::read(&path).unwrap_or_default();
            let from = self.read.insert(path, bytes.len()).unwrap_or(0);
            let text = String::from_utf8_lossy(&bytes[from..]);
            for line in process::lines(&text) {
                if let Some((situation, times)) = situation(&line) {
                    tally.meet(situation, times);
                }
                if line["level"] == "ERROR" && !is_explained(&line) {
                    bail!("{name} logged an error: {line}");
                }
            }
        }
        Ok(())
    }
}

fn is_explained(line: &Value) -> bool {
    let message = line["message"].as_str().unwrap_or_default();
    EXPLAINED
        .iter()
        .any(|(beginning, _)| message.starts_with(beginning))
}

fn situation(line: &Value) -> Option<(Situation, u64)> {
    let reason = line["reason"].as_str().unwrap_or_default();
    match line["message"].as_str()? {
        "relay takes its place again" if reason.contains("wrong last") => {
            Some((Situation::Rival, 1))
        }
        "the stream misses events: fetched from the outbox" => {
            Some((Situation::Gap, line["events"].as_u64()?))
        }
        "the new store serves" => Some((Situation::Swap, 1)),
        "applied" => match line["skipped"].as_u64()? {
            0 => None,
            skipped => Some((Situation::Redelivery, skipped)),
        },
        message if message.starts_with("the stream lost events") => Some((Situation::Behind, 1)),
        _ => None,
    }
}
