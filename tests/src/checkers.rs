//! External programs that check what the services return: schemathesis for the OpenAPI documents,
//! axe in a browser for the pages. `.ci/run` installs and requires them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use tokio::process::Command;

use crate::faults::can_or_must;

/// If 1, a test fails when its checker is missing.
const REQUIRED: &str = "HEADWATER_REQUIRE_CHECKERS";

/// How long a browser may take for a page.
const WITHIN: Duration = Duration::from_mins(1);

/// Runs as root, without any network access.
const FLAGS: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--virtual-time-budget=20000",
];

/// The program `schemathesis`: `HEADWATER_SCHEMATHESIS`, or the one on `PATH`.
pub fn schemathesis() -> Option<PathBuf> {
    let program =
        PathBuf::from(variable("HEADWATER_SCHEMATHESIS").unwrap_or("schemathesis".into()));
    let found = succeeds(&program, &["--version"]);
    can_or_must(REQUIRED, "schemathesis (package of PyPI)", found).then_some(program)
}

/// A browser with axe-core.
#[derive(Debug)]
pub struct Axe {
    script: String,
    folder: tempfile::TempDir,
}

/// The colour scheme of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// `prefers-color-scheme: light`.
    Light,
    /// `prefers-color-scheme: dark`.
    Dark,
}

impl Axe {
    /// Finds `chromium` and the file `axe.min.js` that `HEADWATER_AXE` names.
    pub fn find() -> Option<Self> {
        let script = variable("HEADWATER_AXE").ok_or_else(|| "HEADWATER_AXE is not set".to_owned());
        let script = script.and_then(|file| {
            let read = std::fs::read_to_string(&file);
            read.map_err(|error| format!("{file}: {error}"))
        });
        let browser = succeeds(Path::new("chromium"), &["--version"]);
        let found = browser.and(script.clone().map(drop));
        can_or_must(REQUIRED, "chromium, and axe-core (package of npm)", found).then(|| Self {
            script: script.expect("it was found"),
            folder: tempfile::tempdir().expect("a folder"),
        })
    }

    /// The violations that axe finds in a page: one line each.
    pub async fn violations(&self, html: &str, colours: Colours) -> Vec<String> {
        let dark = match colours {
            Colours::Light => "@media not all",
            Colours::Dark => "@media all",
        };
        let html = html.replace("@media (prefers-color-scheme: dark)", dark);
        let run = "axe.run({resultTypes: ['violations']}).then(found => \
                   document.body.innerHTML = 'axe:' + btoa(unescape(encodeURIComponent(\
                   JSON.stringify(found.violations)))) + ':axe')";
        let page = format!(
            "{html}\n<script>{}</script>\n<script>{run}</script>\n",
            self.script
        );
        let file = self.folder.path().join("page.html");
        std::fs::write(&file, page).expect("write the page");
        let browser = Command::new("chromium")
            .args(FLAGS)
            .arg(format!(
                "--user-data-dir={}",
                self.folder.path().join("user").display()
            ))
            .arg("--dump-dom")
            .arg(format!("file://{}", file.display()))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let shown = tokio::time::timeout(WITHIN, browser).await;
        let shown = shown.expect("the browser ends").expect("run chromium");
        let dom = String::from_utf8_lossy(&shown.stdout).into_owned();
        let result = dom
            .split_once("axe:")
            .and_then(|(_, rest)| rest.split_once(":axe"));
        let Some((result, _)) = result else {
            let errors = String::from_utf8_lossy(&shown.stderr);
            panic!("axe did not run: {dom}\n{errors}");
        };
        let json = BASE64_STANDARD.decode(result).expect("base64");
        let found: Value = serde_json::from_slice(&json).expect("JSON");
        let found = found.as_array().expect("violations");
        found.iter().map(line).collect()
    }
}

fn line(violation: &Value) -> String {
    let nodes = violation["nodes"].as_array();
    let places: Vec<String> = nodes
        .into_iter()
        .flatten()
        .map(|node| format!("{} ({})", node["html"], node["failureSummary"]))
        .collect();
    let places = places.join("; ");
    format!(
        "{} {}: {} at {places}",
        violation["impact"], violation["id"], violation["help"]
    )
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn succeeds(program: &Path, args: &[&str]) -> Result<(), String> {
    let run = std::process::Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    if run.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", program.display(), run.status))
}
