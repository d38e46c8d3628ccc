//! Runs every command of `docs/nats-cli.md` in order on a shop started by `cargo dev`, and compares
//! the page with the output.
//!
//! If `nats` is on the `PATH`, the NATS CLI runs. Otherwise a small client sends the same requests
//! and prints the answers.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use e2e::{PATIENCE, programs};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::dev::Dev;
use document::Entry;

mod client;
mod document;
mod shown;

const DOCUMENT: &str = include_str!("../../docs/nats-cli.md");

/// How long a command's change may take to be visible to another command.
const SETTLES_WITHIN: Duration = Duration::from_secs(20);

/// Commands that the text mentions without running them.
const MENTIONED: [&str; 2] = ["nats context", "nats pub"];

#[tokio::test(flavor = "multi_thread")]
async fn the_nats_clis_page_says_what_a_fresh_shop_says() {
    let entries = document::entries(DOCUMENT);
    assert!(
        entries.len() >= 40,
        "only {} commands were found",
        entries.len()
    );
    let dev = Dev::start().await;
    // Commands that wait for an event run last, because it would change the output of the others.
    let (waiting, others): (Vec<&Entry>, Vec<&Entry>) = entries
        .iter()
        .partition(|entry| entry.line.starts_with("nats sub "));
    let mut wrong = Vec::new();
    for entry in others.into_iter().chain(waiting) {
        wrong.extend(check(&dev, entry).await.err());
    }
    dev.stop().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn commands_in_the_text_are_run_or_known() {
    let entries = document::entries(DOCUMENT);
    let lines: BTreeSet<&str> = entries.iter().map(|entry| &*entry.line).collect();
    for named in document::named(DOCUMENT) {
        let is_run = lines.iter().any(|line| line.contains(named));
        assert!(
            is_run || MENTIONED.contains(&named),
            "no block runs `{named}`"
        );
    }
}

/// Runs a command and compares its output. A read-only command is repeated until it agrees. Returns
/// the difference.
async fn check(dev: &Dev, entry: &Entry) -> Result<(), String> {
    let line = &entry.line;
    let Some(expected) = &entry.shows else {
        let ended = run(dev, line).await;
        return ended
            .map(drop)
            .map_err(|error| format!("`{line}` fails: {error}"));
    };
    let look = async || {
        let printed = match run(dev, line).await {
            Ok(printed) => printed,
            // The page shows a refusal.
            Err(printed) if expected.starts_with("headwater: ") => printed,
            Err(error) => return Err(format!("`{line}` fails: {error}")),
        };
        shown::agrees(expected, &printed)
            .map_err(|why| format!("`{line}`: {why}; it prints:\n{printed}"))
    };
    // The awaited event may be applied a moment later; commands that change something run once.
    let changes = [" publish ", ".retry ", ".discard ", ".events "];
    let mut compared = look().await;
    let end = Instant::now() + SETTLES_WITHIN;
    while compared.is_err()
        && Instant::now() < end
        && !changes.iter().any(|word| line.contains(word))
    {
        compared = look().await;
    }
    compared
}

/// The output of a command, or the error.
async fn run(dev: &Dev, line: &str) -> Result<String, String> {
    let is_real =
        client::is_on_path("nats") && (!line.contains("| jq ") || client::is_on_path("jq"));
    if line.starts_with("nats ") && !is_real {
        return client::run(dev, line).await;
    }
    if line.starts_with("nats sub ") {
        let once = format!("{line} --count 1");
        let mut heard = std::pin::pin!(shell(dev, &once, false));
        let subject = line.split('\'').nth(1).unwrap();
        loop {
            tokio::select! {
                heard = &mut heard => return heard,
                () = dev.cause(subject) => {}
            }
        }
    }
    let ends = ["--no-follow", "--count"];
    let is_endless =
        line.starts_with("headwater tail") && !ends.iter().any(|flag| line.contains(flag));
    shell(dev, line, is_endless).await
}

/// Runs a line in a shell; for an endless command, returns its first output.
async fn shell(dev: &Dev, line: &str, is_endless: bool) -> Result<String, String> {
    let mut path = programs().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let exec = if is_endless { "exec " } else { "" };
    let mut child = tokio::process::Command::new("sh")
        .arg("-c")
        .arg(format!("exec 2>&1; {exec}{line}"))
        .current_dir(dev.folder())
        .env("PATH", path)
        .env("HOME", dev.folder())
        .env("XDG_CACHE_HOME", dev.folder())
        .env("XDG_CONFIG_HOME", dev.folder())
        .env("NATS_URL", dev.nats_url())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut printed = String::new();
    let reading = async {
        if is_endless {
            stdout.read_line(&mut printed).await.unwrap();
            return !printed.is_empty();
        }
        stdout.read_to_string(&mut printed).await.unwrap();
        child.wait().await.unwrap().success()
    };
    let ended = tokio::time::timeout(PATIENCE, reading).await;
    match ended {
        Ok(true) => Ok(printed),
        Ok(false) => Err(printed),
        Err(_) => Err(format!("`{line}` does not end; it printed:\n{printed}")),
    }
}
