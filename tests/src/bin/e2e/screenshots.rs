//! Takes the screenshots of the README: a whole system with the demo data, in a browser.

use std::path::Path;

use anyhow::Context as _;
use e2e::browser::{Browser, Options, Page};
use e2e::program;
use headwater_testkit::Tool;
use serde_json::Value;

/// The folder of the images, from the root of the repository.
const FOLDER: &str = "docs/images";

/// The size of the screenshots, in pixels.
const SIZE: Options = Options {
    scripts: true,
    colours: e2e::browser::Colours::Light,
    reduced_motion: false,
    width: 1280,
    height: 860,
};

/// # Errors
/// The browser or the system cannot be started, or an image cannot be written.
pub(crate) async fn run() -> anyhow::Result<()> {
    let browser = Browser::find().context("needs chromium, and axe-core: see CONTRIBUTING.md")?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(FOLDER);
    std::fs::create_dir_all(&folder)?;
    let state = tempfile::tempdir()?;
    let data = state.path().join("dev");
    let data = data
        .to_str()
        .context("the folder of the data is not UTF-8")?;

    let flags = [
        "--http-port=0",
        "--nats-port=0",
        "--output=json",
        "--data",
        data,
    ];
    let mut dev = start("dev", &flags, &[]);
    let summary: Value = serde_json::from_str(&dev.says().await)?;
    let text = |value: &Value| {
        value
            .as_str()
            .map(str::to_owned)
            .context("the summary of cargo dev")
    };

    let user = browser.open(&text(&summary["page"]["url"])?, SIZE).await;
    user.wait_for_text("Live: ").await;
    save(&user, &folder.join("user.png")).await?;

    let room = browser.open(&text(&summary["room"])?, SIZE).await;
    // Some seconds of answers, before and after.
    let answers = |count: usize| {
        format!("document.querySelector('.tooks').getAttribute('d').split(/[ML]/).length > {count}")
    };
    room.wait_until(&answers(40)).await;
    room.click("[formaction='/orders/100']").await;
    room.wait_for_text("Placed 100 orders").await;
    room.click("[formaction='/processes/orders/kill']").await;
    room.wait_for("[data-bind='data-is:style.composition.state'][data-is=bad]")
        .await;
    room.wait_until(&answers(70)).await;
    room.evaluate("scrollTo(0, 0)").await;
    save(&room, &folder.join("control-room.png")).await?;

    let nats = text(&summary["nats"]["url"])?;
    let log = state.path().join("console.log");
    let log = log.to_str().context("the folder of the log is not UTF-8")?;
    let environment = [("NATS_URL", &*nats)];
    let flags = ["console", "--no-context", "--every=300ms", "--log", log];
    let mut console = start("headwater", &flags, &environment);
    let url = console.says().await;
    let overview = browser.open(url.trim(), SIZE).await;
    // It reports that orders is away.
    overview
        .wait_until("!document.body.innerText.includes('All is well')")
        .await;
    overview.wait_for("svg polyline").await;
    save(&overview, &folder.join("console.png")).await
}

fn start(name: &str, flags: &[&str], more: &[(&str, &str)]) -> Tool {
    let own: Vec<(String, String)> = std::env::vars().collect();
    let own = own.iter().map(|(name, value)| (&**name, &**value));
    let environment: Vec<_> = own.chain(more.iter().copied()).collect();
    let program = program(name);
    Tool::start(&program.to_string_lossy(), flags, &environment)
}

async fn save(page: &Page, file: &Path) -> anyhow::Result<()> {
    let image = page.screenshot().await;
    std::fs::write(file, image).with_context(|| format!("write {}", file.display()))
}
