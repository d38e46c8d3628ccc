//! The state before a copy is put in place, and control of the service.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use client::{Nats, complain};
use headwater::backup::{self, Facts, RestoreTarget, Restored};
use headwater::causes;
use tokio::time::Instant;

use super::lost::Lost;
use super::unit::Unit;
use crate::backup::Data;

/// The pause between two status requests.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// The state before the restore.
pub(crate) struct Before {
    service: String,
    /// The path of the copy.
    file: PathBuf,
    pub(crate) database: PathBuf,
    copy: Facts,
    has_digest: bool,
    /// The facts of the present database, or why it cannot be read.
    present: Result<Facts, String>,
    lost: Lost,
    /// The service's unit, if systemd runs the service.
    unit: Option<Unit>,
}

impl Before {
    pub(crate) async fn look(
        nats: &Nats,
        service: &str,
        file: &Path,
        data: &Data,
    ) -> anyhow::Result<Self> {
        let (shown, checked) = (file.display(), file.to_owned());
        let checking =
            move || anyhow::Ok((backup::check_digest(&checked)?, backup::check(&checked)?));
        let (has_digest, copy) = tokio::task::spawn_blocking(checking).await??;
        ensure!(
            copy.owner == service,
            "{shown} belongs to the service {}, not to {service}",
            copy.owner
        );
        ensure!(
            !copy.is_copy(),
            "{service} has no data of its own in {shown}: it is rebuilt from events; \
             run `headwater rebuild {service}`"
        );
        let database = data.database(service);
        copy.check_keys(&database)?;
        let present = Facts::of(&database).map_err(|error| causes(&error));
        if let Ok(present) = &present {
            expect_no_newer(&copy, present)?;
        }
        Ok(Self {
            lost: Lost::of(nats, &copy, file, &database).await?,
            unit: Unit::of(service, &database)?,
            service: service.to_owned(),
            file: file.to_owned(),
            database,
            copy,
            has_digest,
            present,
        })
    }

    pub(crate) fn plan(&self) -> Vec<String> {
        let (service, head) = (&self.service, self.copy.head);
        let digest = if self.has_digest {
            "its digest matches"
        } else {
            "it has no digest file"
        };
        let mut lines = vec![format!(
            "the copy is intact, {digest}; it goes up to {service}:{head}"
        )];
        match &self.present {
            Ok(present) => lines.push(format!(
                "it replaces a database up to {service}:{}{}, which is kept next to it",
                present.head,
                if present.epoch == self.copy.epoch {
                    ""
                } else {
                    ", of another epoch"
                }
            )),
            Err(why) => lines.push(format!("the present database cannot be read: {why}")),
        }
        lines.extend(self.lost.lines(service, head));
        if let Some(unit) = &self.unit {
            lines.push(format!("{unit} is stopped and started again"));
        }
        lines
    }

    /// Stops the service if systemd runs it, and locks the database.
    pub(crate) fn stop(&self) -> anyhow::Result<RestoreTarget> {
        let Some(unit) = &self.unit else {
            return RestoreTarget::take(&self.database).context("nothing was changed");
        };
        unit.stop()?;
        let taken = RestoreTarget::take(&self.database);
        if taken.is_err() {
            // Another process has it open: start the service again.
            unit.start()?;
        }
        taken.context("nothing was changed")
    }

    /// What is lost now that the database is locked. Fails if more is lost, or a new epoch is
    /// needed, than was confirmed.
    pub(crate) async fn lost_now(&self, nats: &Nats) -> anyhow::Result<Lost> {
        match Lost::of(nats, &self.copy, &self.file, &self.database).await {
            Ok(lost) if lost.is_no_more_than(&self.lost) => Ok(lost),
            lost => {
                self.start()?;
                let events = lost?.events();
                bail!(
                    "{events} events would be lost now, nothing was changed; run the command again"
                )
            }
        }
    }

    pub(crate) fn start(&self) -> anyhow::Result<()> {
        if let Some(unit) = &self.unit {
            return unit.start();
        }
        complain(&format!(
            "start {} now; this command waits for it",
            self.service
        ));
        Ok(())
    }

    /// Waits until the service answers with the restored database.
    pub(crate) async fn wait(
        &self,
        nats: &Nats,
        placed: &Restored,
        wait: Duration,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + wait;
        loop {
            let error = match nats.status(&self.service).await {
                Ok(status) if status.epoch != placed.facts.epoch => {
                    bail!("{} runs with a different database", self.service)
                }
                Ok(status) if status.parts.contains_key("relay") => return Ok(()),
                Ok(_) => anyhow!("its relay has not started"),
                Err(error) => error.into(),
            };
            nats.expect_connected()?;
            if let Some(unit) = &self.unit {
                unit.expect_up()?;
            }
            if Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}

/// Fails if a newer program version than the present one wrote the copy.
fn expect_no_newer(copy: &Facts, present: &Facts) -> anyhow::Result<()> {
    let mut missing = copy
        .migrations
        .iter()
        .filter(|it| !present.migrations.contains(it));
    match missing.next() {
        None => Ok(()),
        Some(name) => bail!(
            "the copy was written by a newer version, which has the migration {name}: install that version"
        ),
    }
}
