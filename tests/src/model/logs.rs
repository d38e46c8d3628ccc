//! Finds situations and errors in the logs of the services.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::ensure;
use serde_json::Value;

use super::tally::{Situation, Tally};
use crate::process;

/// Reads each log from where the last read ended.
#[derive(Debug, Default)]
pub(super) struct Logs {
    read: BTreeMap<&'static str, u64>,
}

impl Logs {
    /// Reads the new lines of all logs in `folder` and counts situations.
    ///
    /// # Errors
    /// A service has logged an `ERROR`.
    pub(super) fn read(&mut self, folder: &Path, tally: &mut Tally) -> anyhow::Result<()> {
        for name in ["users", "products", "orders", "purchases", "rival"] {
            let read = self.read.entry(name).or_default();
            let new = read_from(&folder.join(format!("{name}.log")), *read).unwrap_or_default();
            *read += new.len() as u64;
            for line in process::lines(&String::from_utf8_lossy(&new)) {
                if let Some((situation, times)) = situation(&line) {
                    tally.meet(situation, times);
                }
                // No fault here needs an operator.
                ensure!(line["level"] != "ERROR", "{name} logged an error: {line}");
            }
        }
        Ok(())
    }
}

fn read_from(file: &Path, place: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(file)?;
    file.seek(SeekFrom::Start(place))?;
    let mut new = Vec::new();
    file.read_to_end(&mut new)?;
    Ok(new)
}

fn situation(line: &Value) -> Option<(Situation, u64)> {
    let reason = line["reason"].as_str().unwrap_or_default();
    match line["message"].as_str()? {
        "relay reads the stream's tail again" if reason.contains("wrong last") => {
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
