//! A real browser: Chromium, driven by its own protocol. `.ci/run` installs and requires it.
//!
//! ```no_run
//! # async fn example(address: &str) {
//! use e2e::browser::{Browser, Colours, Options};
//!
//! let Some(browser) = Browser::find() else { return };
//! let dark = Options { colours: Colours::Dark, width: 360, ..Options::default() };
//! let page = browser.open(address, dark).await;
//! page.click("a[rel=next]").await;
//! page.wait_for_text("Mug").await;
//! page.assert_sound("the second page", &[]).await;
//! # }
//! ```
//!
//! The browser reaches this machine only. It ends with its [`Browser`], and with the process of the
//! test however that ends: its pipes close.

mod input;
mod page;
mod protocol;

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::checkers::{REQUIRED, succeeds, variable};
use crate::faults::can_or_must;
use protocol::Protocol;

pub use page::Page;

/// A running Chromium with axe-core.
#[derive(Debug)]
pub struct Browser {
    protocol: Arc<Protocol>,
    axe: Arc<str>,
}

/// How a page is shown.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether the page may run scripts. The test always may.
    pub scripts: bool,
    /// `prefers-color-scheme`.
    pub colours: Colours,
    /// `prefers-reduced-motion: reduce`.
    pub reduced_motion: bool,
    /// The viewport in CSS pixels.
    pub width: u32,
    /// The viewport in CSS pixels.
    pub height: u32,
}

/// The colour scheme of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// `prefers-color-scheme: light`.
    Light,
    /// `prefers-color-scheme: dark`.
    Dark,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scripts: true,
            colours: Colours::Light,
            reduced_motion: false,
            width: 1280,
            height: 800,
        }
    }
}

impl Browser {
    /// Starts `chromium`, and reads the file `axe.min.js` that `HEADWATER_AXE` names.
    pub fn find() -> Option<Self> {
        let axe = variable("HEADWATER_AXE").ok_or_else(|| "HEADWATER_AXE is not set".to_owned());
        let axe = axe.and_then(|file| {
            let read = std::fs::read_to_string(&file);
            read.map_err(|error| format!("{file}: {error}"))
        });
        let browser = succeeds(Path::new("chromium"), &["--version"]);
        let found = browser.and(axe.clone().map(drop));
        can_or_must(REQUIRED, "chromium, and axe-core (package of npm)", found).then(|| Self {
            protocol: Arc::new(Protocol::start()),
            axe: axe.expect("it was found").into(),
        })
    }

    /// Opens the page at `url`, without cookies and cache, and waits until it is loaded.
    pub async fn open(&self, url: &str, options: Options) -> Page {
        let page = Page::new(Arc::clone(&self.protocol), Arc::clone(&self.axe), options).await;
        page.goto(url).await;
        page
    }

    /// Opens a page with this content.
    pub async fn open_html(&self, html: &str, options: Options) -> Page {
        let url = format!("data:text/html;base64,{}", BASE64_STANDARD.encode(html));
        self.open(&url, options).await
    }
}
