//! Backups that services make of their own databases, started over NATS.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use anyhow::bail;
use client::{Nats, Unreachable};
use headwater::operator::{BackupRequest, BackupState, BackupStatus, Endpoint};
use serde::Serialize;
use terminal::table::bytes;
use terminal::{Exit, Screen, printable};
use tokio::time::Instant;

/// The pause between two status requests.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// How long a service may be silent before this is an error.
const SILENCE: Duration = Duration::from_mins(1);

/// The state of a service's backup.
#[derive(Debug, Serialize)]
pub struct Report {
    service: String,
    #[serde(flatten)]
    status: BackupStatus,
}

/// What a backup of `service` does.
pub async fn consequence(nats: &Nats, service: &str) -> anyhow::Result<Vec<String>> {
    let status = ask(nats, service, Endpoint::BackupStatus).await?;
    let BackupStatus { folder, keep, .. } = &status;
    let mut lines = vec![
        format!(
            "{service} copies its database while it runs: a snapshot of one moment, which gets its \
             name once it is checked and on the disk."
        ),
        format!(
            "The copy goes to the folder {folder} on the machine of {service}, with a digest for \
             `sha256sum -c`. Ship it to another machine: a copy on the same disk is lost with it."
        ),
        format!("The newest {keep} copies in this folder are kept; older ones are removed."),
    ];
    lines.extend(key_file(&status));
    Ok(lines)
}

fn key_file(status: &BackupStatus) -> Option<String> {
    let file = status.key_file.as_ref()?;
    Some(format!(
        "The key file {file} is not copied, and without it the personal data in the copy cannot be \
         read: keep one copy of it elsewhere, and overwrite that copy."
    ))
}

/// Starts a backup of `service`, and waits for it, with its progress on the screen.
///
/// Returns an error if the service refuses, does not answer, or was restarted meanwhile.
pub async fn make(nats: &Nats, service: &str, screen: &Screen) -> anyhow::Result<Report> {
    let mut status = ask(nats, service, Endpoint::Backup).await?;
    let bar = screen.bar_of_bytes(service, status.total);
    let mut heard = Instant::now();
    loop {
        bar.ends_at(status.total);
        bar.at(status.copied);
        bar.says(word(status.state));
        match status.state {
            BackupState::Done | BackupState::Failed => {
                let service = service.to_owned();
                return Ok(Report { service, status });
            }
            BackupState::Idle => bail!(
                "{service} was restarted, which ended the backup: start another; nothing of a \
                 partial copy has the name of a copy"
            ),
            BackupState::Waiting | BackupState::Copying | BackupState::Checking => {}
        }
        tokio::time::sleep(LOOK_PAUSE).await;
        match ask(nats, service, Endpoint::BackupStatus).await {
            Ok(now) => (status, heard) = (now, Instant::now()),
            Err(error) if error.is::<Unreachable>() && heard.elapsed() < SILENCE => {}
            Err(error) => return Err(error),
        }
    }
}

/// Stops the backup of `service`.
pub async fn stop(nats: &Nats, service: &str) -> anyhow::Result<()> {
    ask(nats, service, Endpoint::BackupStop).await.map(drop)
}

async fn ask(nats: &Nats, service: &str, endpoint: Endpoint) -> anyhow::Result<BackupStatus> {
    Ok(nats.ask(service, endpoint, &BackupRequest {}).await?)
}

fn word(state: BackupState) -> &'static str {
    match state {
        BackupState::Idle => "idle",
        BackupState::Waiting => "waits for another backup",
        BackupState::Copying => "copied",
        BackupState::Checking => "copied, checking",
        BackupState::Done => "done",
        BackupState::Failed => "failed",
    }
}

impl Report {
    pub fn exit(&self) -> Exit {
        match self.status.state {
            BackupState::Failed => Exit::Failed,
            _ if self.status.message.is_some() => Exit::Different,
            _ => Exit::Done,
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (service, status) = (&self.service, &self.status);
        let mut lines = Vec::new();
        if let Some(copy) = &status.copy {
            let (file, size) = (&copy.file, bytes(copy.bytes));
            let (at, epoch) = (copy.position, &copy.epoch);
            lines.push(format!(
                "{service}: {file}, {size}, up to {at} of epoch {epoch}"
            ));
            lines.push(format!("sha256: {}", copy.sha256));
            let removed = copy.removed.iter();
            lines.extend(removed.map(|old| format!("removed {old}")));
            lines.extend(key_file(status));
            lines.extend(status.message.clone());
        } else {
            let why = status
                .message
                .as_deref()
                .unwrap_or("the backup has not ended");
            lines.push(format!("NOT COPIED: {service}: {why}"));
        }
        let lines: Vec<String> = lines.iter().map(|line| printable(line)).collect();
        f.write_str(&lines.join("\n"))
    }
}
