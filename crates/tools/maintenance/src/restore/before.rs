//! What there is before a copy is put in place, and the service around that.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use client::{Nats, complain};
use headwater::backup::{self, Facts, RestoreTarget, Restored};
use tokio::time::Instant;

use super::lost::Lost;
use super::unit::Unit;
use crate::backup::Data;

/// How often the service is asked whether it is there.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// What there is before anything is done.
pub(crate) struct Before {
    service: String,
    /// The copy.
    file: PathBuf,
    pub(crate) database: PathBuf,
    copy: Facts,
    has_digest: bool,
    /// What the database says of itself that is there, if it says anything.
    present: Result<Facts, String>,
    lost: Lost,
    /// Where systemd runs the service.
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
            "{shown} is of the service {}, not of {service}",
            copy.owner
        );
        ensure!(
            !copy.is_copy(),
            "{service} has nothing of its own in {shown}: it is folded from events; \
             `headwater rebuild {service}`"
        );
        let database = data.database(service);
        copy.check_keys(&database)?;
        let present = Facts::of(&database).map_err(|error| format!("{error:#}"));
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
            "its digest is right"
        } else {
            "there is no digest beside it"
        };
        let mut lines = vec![format!(
            "the copy is whole, {digest}; it goes up to {service}:{head}"
        )];
        match &self.present {
            Ok(present) => lines.push(format!(
                "it replaces a database up to {service}:{}{}, which is kept beside it",
                present.head,
                if present.epoch == self.copy.epoch {
                    ""
                } else {
                    ", of another life"
                }
            )),
            Err(why) => lines.push(format!("what is there now cannot be read: {why}")),
        }
        lines.extend(self.lost.lines(service, head));
        if let Some(unit) = &self.unit {
            lines.push(format!("{unit} is stopped for it, and started"));
        }
        lines
    }

    /// Stops the service, where systemd runs it, and keeps everybody away from the database.
    pub(crate) fn stop(&self) -> anyhow::Result<RestoreTarget> {
        let Some(unit) = &self.unit else {
            return RestoreTarget::take(&self.database).context("nothing was changed");
        };
        unit.stop()?;
        let taken = RestoreTarget::take(&self.database);
        if taken.is_err() {
            // Somebody else has it open, and what was stopped serves on.
            unit.start()?;
        }
        taken.context("nothing was changed")
    }

    /// What is lost now that nobody writes any more.
    ///
    /// # Errors
    /// A loss, or a new life, that was not spoken of before.
    pub(crate) async fn lost_now(&self, nats: &Nats) -> anyhow::Result<Lost> {
        match Lost::of(nats, &self.copy, &self.file, &self.database).await {
            Ok(lost) if lost.is_no_more_than(&self.lost) => Ok(lost),
            lost => {
                self.start()?;
                let events = lost?.events();
                bail!("{events} events would be lost now, nothing was changed; run it again")
            }
        }
    }

    pub(crate) fn start(&self) -> anyhow::Result<()> {
        if let Some(unit) = &self.unit {
            return unit.start();
        }
        complain(&format!("start {} now; this waits for it", self.service));
        Ok(())
    }

    /// Waits until the service answers from the database that was put in place.
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
                    bail!("{} runs with another database", self.service)
                }
                Ok(status) if status.parts.contains_key("relay") => return Ok(()),
                Ok(_) => anyhow!("its relay has not begun"),
                Err(error) => error,
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

/// Whether the copy was written by a newer program than the one that wrote the database.
fn expect_no_newer(copy: &Facts, present: &Facts) -> anyhow::Result<()> {
    let mut missing = copy
        .migrations
        .iter()
        .filter(|it| !present.migrations.contains(it));
    match missing.next() {
        None => Ok(()),
        Some(name) => bail!(
            "the copy was written by a newer version, which has the migration {name}: install that"
        ),
    }
}
