//! The systemd units, on a machine where Headwater is installed with systemd.

use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

use crate::finding::Finding;

const CHECK: &str = "units";

/// Exists if systemd is the service manager.
const SYSTEMD: &str = "/run/systemd/system";

/// The properties read of each unit.
const PROPERTIES: &str =
    "--property=Id,Type,LoadState,ActiveState,SubState,Result,NRestarts,Listen";

/// Starts every stopped unit, once the cause is fixed.
const START: &str = "systemctl start headwater.target";

/// The properties of a unit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unit {
    id: String,
    kind: String,
    load: String,
    active: String,
    sub: String,
    result: String,
    restarts: u32,
    /// The address that a socket listens on.
    listen: String,
}

/// Checks all units; without any, there are no findings.
pub(crate) async fn look() -> Vec<Finding> {
    if !Path::new(SYSTEMD).is_dir() {
        return Vec::new();
    }
    let installed = [
        "list-unit-files",
        "--no-legend",
        "headwater-*.socket",
        "headwater-*.service",
    ];
    let installed = output("systemctl", installed.map(str::to_owned)).await;
    // Without a name, systemctl shows the manager itself.
    let Some(installed) = installed.filter(|units| !units.is_empty()) else {
        return Vec::new();
    };
    let names = installed.lines().filter_map(|line| line.split(' ').next());
    let asked = ["show", PROPERTIES, "--"].into_iter().chain(names);
    let Some(shown) = output("systemctl", asked.map(str::to_owned)).await else {
        return Vec::new();
    };
    let units: Vec<_> = shown.split("\n\n").map(Unit::parse).collect();
    let wanted = units.iter().filter(|unit| unit.is_wanted());
    let (jobs, units): (Vec<_>, Vec<_>) = wanted.partition(|unit| unit.is_job());
    if !units.is_empty() && units.iter().all(|unit| unit.active == "inactive") {
        return vec![Finding::warn(CHECK, "headwater.target is stopped", START)];
    }
    let mut findings = Vec::new();
    for unit in units.iter().chain(&jobs) {
        findings.extend(unit.finding().await);
    }
    if findings.is_empty() && !units.is_empty() {
        let what = format!("all {} systemd units are up", units.len());
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
                "Type" => unit.kind = value,
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

    /// Whether the unit is installed and not masked.
    fn is_wanted(&self) -> bool {
        !["", "not-found", "masked"].contains(&&*self.load)
    }

    /// What is wrong with the unit, if anything.
    async fn finding(&self) -> Option<Finding> {
        let Self { id, load, .. } = self;
        if load != "loaded" {
            let what = format!("{id} cannot be loaded: {load}");
            let fix = format!(
                "`systemd-analyze verify {id}` shows what to fix; then `systemctl daemon-reload` and `{START}`"
            );
            return Some(Finding::fail(CHECK, what, fix));
        }
        match &*self.active {
            "active" | "reloading" => None,
            "failed" if self.is_job() => Some(self.of_job().await),
            "activating" if self.is_job() && !self.is_again() => None,
            "inactive" | "deactivating" if self.is_job() => None,
            _ if self.is_socket() => Some(self.of_socket().await),
            "activating" if self.is_again() => Some(self.of_restarts().await),
            "activating" | "deactivating" => {
                let what = format!("{id} is {}", self.active);
                Some(Finding::warn(CHECK, what, "check again in a moment"))
            }
            "failed" => {
                let what = format!("{id} failed ({}): {}", self.result, last_words(id).await);
                let fix = format!("fix the cause, then `{START}`");
                Some(Finding::fail(CHECK, what, fix))
            }
            _ => Some(Finding::fail(CHECK, format!("{id} is not running"), START)),
        }
    }

    /// Whether the unit runs a job and ends.
    fn is_job(&self) -> bool {
        self.kind == "oneshot"
    }

    async fn of_job(&self) -> Finding {
        let Self { id, result, .. } = self;
        let what = format!("{id} failed ({result}): {}", last_words(id).await);
        let fix = format!(
            "`journalctl -u {id}` has the whole log; fix the cause, then `systemctl start {id}`"
        );
        Finding::fail(CHECK, what, fix)
    }

    fn is_socket(&self) -> bool {
        Path::new(&self.id)
            .extension()
            .is_some_and(|kind| kind == "socket")
    }

    /// Whether this start follows a failed one.
    fn is_again(&self) -> bool {
        self.sub == "auto-restart" || self.restarts > 0
    }

    async fn of_restarts(&self) -> Finding {
        let Self { id, restarts, .. } = self;
        let error = last_words(id).await;
        let what =
            format!("{id} keeps exiting and being restarted, {restarts} times so far: {error}");
        let fix = "fix the cause; systemd restarts the unit every second, so it then stays up";
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
                format!("stop that process, or change one of the two ports; then `{START}`"),
            ),
            None => Finding::fail(CHECK, what, START),
        }
    }
}

/// The last output of the unit's last run: an error if there is one, otherwise some lines.
async fn last_words(id: &str) -> String {
    let unit = format!("_SYSTEMD_UNIT={id}");
    for (lines, priority) in [("1", "err"), ("3", "debug")] {
        let asked = ["-q", "-b", "-n", lines, "-o", "json", "-p", priority, &unit];
        let entries = output("journalctl", asked.map(str::to_owned)).await;
        let words = entries
            .map(|entries| words_of_last(&entries))
            .unwrap_or_default();
        if !words.is_empty() {
            return words;
        }
    }
    format!("`journalctl -u {id}` has the reason")
}

/// The messages of the last process in these journal entries.
fn words_of_last(entries: &str) -> String {
    let entries = entries.lines().map(serde_json::from_str);
    let entries: Vec<Value> = entries.filter_map(Result::ok).collect();
    let pid = entries.last().map(|last| &last["_PID"]);
    let of_last = entries.iter().filter(|entry| Some(&entry["_PID"]) == pid);
    let words: Vec<&str> = of_last
        .filter_map(|entry| entry["MESSAGE"].as_str())
        .collect();
    words.join(" ")
}

/// The process that listens on a port, if `ss` is installed and may see it.
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

/// The output of a program; `None` if it is missing or fails.
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

    #[test]
    fn an_error_of_two_lines_is_told_whole_and_alone() {
        let entry = |pid, words| format!(r#"{{"_PID":"{pid}","MESSAGE":"{words}"}}"#);
        let entries = [
            entry(1, "' instead."),
            entry(2, "Parse error on line 9: found '"),
            entry(2, "' instead."),
        ];
        let words = words_of_last(&entries.join("\n"));
        assert_eq!(words, "Parse error on line 9: found ' ' instead.");
        assert_eq!(words_of_last(""), "");
    }

    #[tokio::test]
    async fn a_job_that_has_ended_well_or_runs_is_no_finding_and_one_that_failed_is() {
        let job = |state: &str| {
            let job = "Id=headwater-no-such.service\nType=oneshot\nLoadState=loaded";
            unit(&format!("{job}\nActiveState={state}"))
        };
        for well in ["inactive", "activating\nSubState=start"] {
            assert!(job(well).finding().await.is_none(), "{well}");
        }
        let failed = job("failed\nSubState=failed\nResult=exit-code")
            .finding()
            .await;
        let Finding { what, fix, .. } = failed.expect("a finding");
        assert!(
            what.starts_with("headwater-no-such.service failed (exit-code): "),
            "{what}"
        );
        let fix = fix.expect("a remedy");
        assert!(fix.contains("systemctl start headwater-no-such"), "{fix}");
        let again = job("activating\nSubState=auto-restart\nNRestarts=2")
            .finding()
            .await;
        assert!(again.expect("a finding").what.contains("2 times so far"));
    }

    #[tokio::test]
    async fn what_is_up_or_not_installed_is_no_finding() {
        let up =
            unit("Id=headwater-users.service\nLoadState=loaded\nActiveState=active\nNRestarts=3");
        assert_eq!(up.restarts, 3);
        assert!(up.is_wanted());
        assert!(up.finding().await.is_none(), "it is up now");
        assert!(!unit("Id=headwater-nats.service\nLoadState=masked").is_wanted());
        assert!(!unit("Id=headwater-nats.socket\nLoadState=not-found").is_wanted());
    }
}
