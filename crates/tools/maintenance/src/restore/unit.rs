//! The systemd unit of a service.

use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// The unit's variable with the path of the database.
const VARIABLE: &str = "HEADWATER_DATABASE=";

/// A service's unit, and the sockets that would start it again.
pub(crate) struct Unit {
    name: String,
    sockets: Vec<String>,
}

impl Unit {
    /// The unit of `service`, if this machine has one that runs with `database`.
    pub(crate) fn of(service: &str, database: &Path) -> anyhow::Result<Option<Self>> {
        if !Path::new("/run/systemd/system").is_dir() {
            return Ok(None);
        }
        let name = format!("headwater-{service}.service");
        if property(&name, "LoadState")? != "loaded" {
            return Ok(None);
        }
        let environment = property(&name, "Environment")?;
        let mut own = environment
            .split_whitespace()
            .filter_map(|set| set.strip_prefix(VARIABLE));
        if !own.any(|own| Path::new(own) == database) {
            return Ok(None);
        }
        let sockets = property(&name, "TriggeredBy")?;
        let sockets = sockets.split_whitespace().map(ToOwned::to_owned).collect();
        Ok(Some(Self { name, sockets }))
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        self.sockets.iter().chain([&self.name]).map(String::as_str)
    }

    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        systemctl(["stop"].into_iter().chain(self.all())).map(drop)
    }

    /// Starts it even after too many failures.
    pub(crate) fn start(&self) -> anyhow::Result<()> {
        // Fails for units that have not failed or are not loaded, which is fine.
        let _ = systemctl(["reset-failed"].into_iter().chain(self.all()));
        let started = systemctl(["start"].into_iter().chain(self.all()));
        started.map(drop).with_context(|| self.advice())
    }

    /// Returns an error if the unit has stopped.
    pub(crate) fn expect_up(&self) -> anyhow::Result<()> {
        match &*property(&self.name, "ActiveState")? {
            "failed" | "inactive" => bail!(self.advice()),
            _ => Ok(()),
        }
    }

    fn advice(&self) -> String {
        format!(
            "{} did not start: `journalctl -u {} -n 20` has the reason",
            self.name, self.name
        )
    }
}

impl Display for Unit {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn property(unit: &str, property: &str) -> anyhow::Result<String> {
    systemctl(["show", "--value", "-p", property, unit])
}

fn systemctl<'a>(args: impl IntoIterator<Item = &'a str>) -> anyhow::Result<String> {
    let args: Vec<_> = args.into_iter().collect();
    let output = Command::new("systemctl")
        .args(&args)
        .stdin(Stdio::null())
        .output()
        .context("run systemctl")?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    bail!("systemctl {}: {}", args.join(" "), why.trim())
}
