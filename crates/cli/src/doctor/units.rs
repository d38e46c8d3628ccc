//! The units of systemd, on a machine where Headwater is installed as such.

use std::path::Path;

use tokio::process::Command;

use super::Finding;

const CHECK: &str = "units";

/// There where systemd is the service manager.
const SYSTEMD: &str = "/run/systemd/system";

/// The parts of Headwater that have units.
const PARTS: [&str; 5] = ["nats", "users", "products", "orders", "purchases"];

/// What is asked of each unit.
const PROPERTIES: &str = "--property=Id,LoadState,ActiveState,SubState,Result,NRestarts,Listen";

/// The command that starts everything that does not run, once its cause is mended.
const START: &str = "systemctl start headwater.target";

/// What systemd says of a unit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unit {
    id: String,
    load: String,
    active: String,
    sub: String,
    result: String,
    restarts: u32,
    /// What a socket listens on.
    listen: String,
}

/// Looks at all of them; nothing is found where there are none.
pub(super) async fn look() -> Vec<Finding> {
    if !Path::new(SYSTEMD).is_dir() {
        return Vec::new();
    }
    let sockets = PARTS
        .iter()
        .flat_map(|part| ["", "-admin"].map(|which| format!("headwater-{part}{which}.socket")));
    let services = PARTS.iter().map(|part| format!("headwater-{part}.service"));
    let names: Vec<_> = sockets.chain(services).collect();
    let asked = ["show", PROPERTIES, "--"].map(str::to_owned);
    let Some(shown) = output("systemctl", asked.into_iter().chain(names)).await else {
        return Vec::new();
    };
    let units: Vec<_> = shown.split("\n\n").map(Unit::parse).collect();
    let units: Vec<_> = units.iter().filter(|unit| unit.is_wanted()).collect();
    if !units.is_empty() && units.iter().all(|unit| unit.active == "inactive") {
        return vec![Finding::warn(CHECK, "headwater.target is stopped", START)];
    }
    let mut findings = Vec::new();
    for unit in &units {
        findings.extend(unit.finding().await);
    }
    if findings.is_empty() && !units.is_empty() {
        let what = format!("all {} units of systemd are up", units.len());
        findings.push(Finding::ok(CHECK, what));
    }
    findings
}

impl Unit {
    fn parse(shown: &str) -> Self {
        let mut unit = Self::default();
        for (name, value) in shown.lines().filter_map(|line| line.split_once('=')) {
            let value = value.to_owned();
            match name {
                "Id" => unit.id = value,
                "LoadState" => unit.load = value,
                "ActiveState" => unit.active = value,
                "SubState" => unit.sub = value,
                "Result" => unit.result = value,
                "NRestarts" => unit.restarts = value.parse().unwrap_or_default(),
                "Listen" => unit.listen = value,
                _ => {}
            }
        }
        unit
    }

    /// Whether it is installed, and nobody has masked it.
    fn is_wanted(&self) -> bool {
        !["", "not-found", "masked"].contains(&&*self.load)
    }

    /// What is wrong with it, if anything is.
    async fn finding(&self) -> Option<Finding> {
        let Self { id, load, .. } = self;
        if load != "loaded" {
            let what = format!("{id} cannot be loaded: {load}");
            let fix = format!(
                "`systemd-analyze verify {id}` says what to mend; then `systemctl daemon-reload` and `{START}`"
            );
            return Some(Finding::fail(CHECK, what, fix));
        }
        match &*self.active {
            "active" | "reloading" => None,
            _ if self.is_socket() => Some(self.of_socket().await),
            "activating" if self.is_again() => Some(self.of_restarts().await),
            "activating" | "deactivating" => {
                let what = format!("{id} is {}", self.active);
                Some(Finding::warn(CHECK, what, "look again in a moment"))
            }
            "failed" => {
                let what = format!("{id} failed ({}): {}", self.result, last_words(id).await);
                let fix = format!("mend what it says, then `{START}`");
                Some(Finding::fail(CHECK, what, fix))
            }
            _ => Some(Finding::fail(CHECK, format!("{id} does not run"), START)),
        }
    }

    fn is_socket(&self) -> bool {
        Path::new(&self.id)
            .extension()
            .is_some_and(|kind| kind == "socket")
    }

    /// Whether this start follows one that failed.
    fn is_again(&self) -> bool {
        self.sub == "auto-restart" || self.restarts > 0
    }

    async fn of_restarts(&self) -> Finding {
        let Self { id, restarts, .. } = self;
        let said = last_words(id).await;
        let what = format!("{id} ends and is started again, {restarts} times so far: {said}");
        let fix = "mend what it says; it is started every second, and then stays up";
        Finding::fail(CHECK, what, fix)
    }

    async fn of_socket(&self) -> Finding {
        let Self { id, result, .. } = self;
        let address = self.listen.split_whitespace().next().unwrap_or_default();
        let what = format!("{id} does not listen on {address} ({result})");
        match holder(address).await {
            Some(holder) => Finding::fail(
                CHECK,
                format!("{what}: the port is taken by {holder}"),
                format!("end that, or give one of the two another port; then `{START}`"),
            ),
            None => Finding::fail(CHECK, what, START),
        }
    }
}

/// What its last run said at the end: an error if there is one.
async fn last_words(id: &str) -> String {
    let unit = format!("_SYSTEMD_UNIT={id}");
    for priority in ["err", "debug"] {
        let asked = ["-q", "-b", "-n", "1", "-o", "cat", "-p", priority, &unit];
        let said = output("journalctl", asked.map(str::to_owned)).await;
        if let Some(said) = said.filter(|said| !said.is_empty()) {
            return said;
        }
    }
    format!("`journalctl -u {id}` says why")
}

/// Who listens on a port, where `ss` is there and may see it.
async fn holder(address: &str) -> Option<String> {
    let (_, port) = address.rsplit_once(':')?;
    let asked = ["-Hltnp".to_owned(), format!("sport = :{port}")];
    let shown = output("ss", asked)
        .await
        .filter(|shown| !shown.is_empty())?;
    // users:(("python3",pid=123,fd=3))
    let users = shown.split_once("users:((\"").map(|(_, users)| users);
    let program = users.and_then(|users| {
        let (name, rest) = users.split_once('"')?;
        let pid = rest.split_once("pid=")?.1.split(',').next()?;
        Some(format!("{name} (process {pid})"))
    });
    Some(program.unwrap_or_else(|| "another process".to_owned()))
}

/// What a program prints; nothing if it is not there or fails.
async fn output(program: &str, args: impl IntoIterator<Item = String>) -> Option<String> {
    let done = Command::new(program).args(args).output().await.ok()?;
    let text = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    done.status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(shown: &str) -> Unit {
        Unit::parse(shown)
    }

    #[tokio::test]
    async fn what_is_up_or_not_installed_is_no_finding() {
        let up =
            unit("Id=headwater-users.service\nLoadState=loaded\nActiveState=active\nNRestarts=3");
        assert_eq!(up.restarts, 3);
        assert!(up.is_wanted());
        assert!(up.finding().await.is_none(), "it has come up since");
        assert!(!unit("Id=headwater-nats.service\nLoadState=masked").is_wanted());
        assert!(!unit("Id=headwater-nats.socket\nLoadState=not-found").is_wanted());
    }
}
