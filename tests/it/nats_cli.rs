//! `docs/nats-cli.md`: every command is run, in its order, on a shop that `cargo dev` has started,
//! and what is shown of it is compared with what it prints.
//!
//! Where `nats` is on the `PATH` it is the NATS CLI that runs; elsewhere a client of our own sends
//! the requests that it sends, and gives what is answered.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use e2e::{PATIENCE, programs};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use dev::Dev;
use document::Entry;

mod client;
mod dev;
mod document;
mod shown;

const DOCUMENT: &str = include_str!("../../docs/nats-cli.md");

/// How long it may take until what a command has changed is seen by another one.
const SETTLES_WITHIN: Duration = Duration::from_secs(20);

/// What the text names without running it.
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
    // What waits for an event is run last: it would change what the others show.
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
            "nobody runs `{named}`"
        );
    }
}

/// Runs a command and compares; one that only looks is run until it shows what it should. Says what
/// is wrong.
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
            // It shall be refused.
            Err(printed) if expected.starts_with("headwater: ") => printed,
            Err(error) => return Err(format!("`{line}` fails: {error}")),
        };
        shown::agrees(expected, &printed)
            .map_err(|why| format!("`{line}`: {why}; it prints:\n{printed}"))
    };
    // What it was waited for may be applied a moment later; what changes something is run once.
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

/// What a command prints; an error where it fails.
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

/// Runs a line in a shell; of one that does not end, what it says first.
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
