//! A page of the browser: what it shows, and what is wrong with it.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::protocol::Protocol;
use super::{Colours, Options};
use crate::eventually;

/// The elements that are wider than the viewport, from the outside to the inside.
const OVERFLOW: &str = "document.scrollingElement.scrollWidth <= document.documentElement.clientWidth ? [] : \
    [...document.querySelectorAll('body, body *')] \
    .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth || e === document.body) \
    .map(e => e.cloneNode(false).outerHTML)";

/// A page in a context of its own: no cookies, no cache. It closes when it is dropped.
#[derive(Debug)]
pub struct Page {
    protocol: Arc<Protocol>,
    axe: Arc<str>,
    context: String,
    session: String,
    frame: String,
    scripts: bool,
}

impl Page {
    pub(super) async fn new(protocol: Arc<Protocol>, axe: Arc<str>, options: Options) -> Self {
        let context = json!({ "disposeOnDetach": true });
        let context = call(&protocol, "Target.createBrowserContext", context).await;
        let context = text(&context["browserContextId"]);
        let blank = json!({ "url": "about:blank", "browserContextId": context });
        let target = call(&protocol, "Target.createTarget", blank).await;
        let frame = text(&target["targetId"]);
        let attach = json!({ "targetId": frame, "flatten": true });
        let session = call(&protocol, "Target.attachToTarget", attach).await;
        let session = text(&session["sessionId"]);
        let page = Self {
            protocol,
            axe,
            context,
            session,
            frame,
            scripts: options.scripts,
        };
        for domain in ["Page", "Runtime", "Log", "Network", "Audits"] {
            page.call(&format!("{domain}.enable"), json!({})).await;
        }
        let colours = match options.colours {
            Colours::Light => "light",
            Colours::Dark => "dark",
        };
        let motion = if options.reduced_motion {
            "reduce"
        } else {
            "no-preference"
        };
        let features = json!({ "features": [
            { "name": "prefers-color-scheme", "value": colours },
            { "name": "prefers-reduced-motion", "value": motion },
        ] });
        page.call("Emulation.setEmulatedMedia", features).await;
        page.allow_scripts(options.scripts).await;
        page.resize(options.width, options.height).await;
        page
    }

    /// Goes to `url`, and waits until it is loaded with its images.
    pub async fn goto(&self, url: &str) {
        let gone = self.call("Page.navigate", json!({ "url": url })).await;
        let error = gone["errorText"].as_str();
        assert_eq!(error, None, "{url}");
        self.wait_until("document.readyState === 'complete'").await;
    }

    /// Hides the page behind another tab.
    pub async fn hide(&self) {
        let blank = json!({ "url": "about:blank", "browserContextId": self.context });
        call(&self.protocol, "Target.createTarget", blank).await;
        self.wait_until("document.visibilityState === 'hidden'")
            .await;
    }

    /// Brings the page to the front.
    pub async fn show(&self) {
        self.call("Page.bringToFront", json!({})).await;
        self.wait_until("document.visibilityState === 'visible'")
            .await;
    }

    /// Changes the viewport.
    pub async fn resize(&self, width: u32, height: u32) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// The value of a JavaScript expression, as JSON.
    pub async fn evaluate(&self, expression: &str) -> Value {
        let value = self.try_evaluate(expression).await;
        value.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    async fn try_evaluate(&self, expression: &str) -> Result<Value, String> {
        self.run(json!({ "expression": expression })).await
    }

    async fn run(&self, mut params: Value) -> Result<Value, String> {
        params["returnByValue"] = true.into();
        let mut result = self.try_call("Runtime.evaluate", params).await?;
        match result.get("exceptionDetails") {
            Some(exception) => Err(exception.to_string()),
            None => Ok(result["result"]["value"].take()),
        }
    }

    /// Waits until a JavaScript expression is true.
    pub async fn wait_until(&self, expression: &str) {
        eventually(expression, async || {
            // A page that is just being replaced cannot answer.
            let value = self.try_evaluate(expression).await?;
            if value == true {
                return Ok(());
            }
            let shown = self.try_evaluate("document.body?.innerText").await?;
            Err(format!("{value}; the page: {shown}"))
        })
        .await;
    }

    /// Waits until an element for a CSS selector exists.
    pub async fn wait_for(&self, selector: &str) {
        let selector = Value::from(selector);
        self.wait_until(&format!("document.querySelector({selector}) !== null"))
            .await;
    }

    /// Waits until the page shows this text.
    pub async fn wait_for_text(&self, text: &str) {
        let text = Value::from(text);
        let shown = "document.body?.innerText";
        self.wait_until(&format!("{shown}.includes({text}) ?? false"))
            .await;
    }

    /// The path and the query of the page's address.
    pub async fn path(&self) -> String {
        text(&self.evaluate("location.pathname + location.search").await)
    }

    /// The text of each visible element for a CSS selector.
    pub async fn texts(&self, selector: &str) -> Vec<String> {
        let texts = all(selector, "e.checkVisibility() ? [e.innerText.trim()] : []");
        strings(&self.evaluate(&format!("{texts}.flat()")).await)
    }

    /// An attribute of each element for a CSS selector that has it.
    pub async fn attributes(&self, selector: &str, name: &str) -> Vec<String> {
        let name = Value::from(name);
        let values = all(selector, &format!("e.getAttribute({name})"));
        let values = self.evaluate(&values).await;
        let values = values.as_array().expect("an array");
        values
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    }

    /// The violations that axe finds in the page as it is now, one line each.
    pub async fn axe(&self) -> Vec<String> {
        // In a world of its own: the page's policy and scripts do not see axe.
        let world = json!({ "frameId": self.frame, "worldName": "axe" });
        let world = self.call("Page.createIsolatedWorld", world).await;
        let run =
            "axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)";
        // Without scripts no promise is ever kept; those of the page have had their chance to run.
        self.allow_scripts(true).await;
        let found = self.run(json!({
            "expression": format!("{};\n{run}", self.axe),
            "contextId": world["executionContextId"],
            "awaitPromise": true,
        }));
        let found = found.await.unwrap_or_else(|error| panic!("axe: {error}"));
        self.allow_scripts(self.scripts).await;
        let found = found.as_array().expect("violations");
        found.iter().map(violation).collect()
    }

    async fn allow_scripts(&self, allowed: bool) {
        let disabled = json!({ "value": !allowed });
        self.call("Emulation.setScriptExecutionDisabled", disabled)
            .await;
    }

    /// The elements that stick out to the right, if the page scrolls sideways; a tag each.
    pub async fn overflow(&self) -> Vec<String> {
        strings(&self.evaluate(OVERFLOW).await)
    }

    /// What went wrong so far, one line each: errors of the console, exceptions, violations of the
    /// content security policy, failed requests, dialogs.
    pub fn errors(&self) -> Vec<String> {
        self.protocol.events(&self.session, error)
    }

    /// Asserts that axe finds nothing, that the page does not scroll sideways, and that nothing went
    /// wrong except [errors](Self::errors) that contain one of `expected`.
    pub async fn assert_sound(&self, what: &str, expected: &[&str]) {
        let mut wrong = self.axe().await;
        let overflow = self.overflow().await;
        wrong.extend(overflow.iter().map(|tag| format!("overflow: {tag}")));
        let is_expected = |error: &String| expected.iter().any(|part| error.contains(part));
        wrong.extend(
            self.errors()
                .into_iter()
                .filter(|error| !is_expected(error)),
        );
        assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
    }

    /// A PNG image of the viewport.
    pub async fn screenshot(&self) -> Vec<u8> {
        let image = json!({ "format": "png" });
        let image = self.call("Page.captureScreenshot", image).await;
        let image = image["data"].as_str().expect("an image");
        BASE64_STANDARD.decode(image).expect("base64")
    }

    /// How many bytes of a resource type (`Document`, `Script`, `Stylesheet`, `Image`) came over
    /// the network: headers and compressed bodies of requests that are finished.
    pub fn transferred(&self, resource_type: &str) -> f64 {
        let requests: Vec<String> = self.protocol.events(&self.session, |event| {
            let is_response = event["method"] == "Network.responseReceived";
            let is_meant = is_response && event["params"]["type"] == resource_type;
            is_meant.then(|| text(&event["params"]["requestId"]))
        });
        let bytes = self.protocol.events(&self.session, |event| {
            let is_end = event["method"] == "Network.loadingFinished";
            let id = event["params"]["requestId"].as_str().filter(|_| is_end)?;
            let is_meant = requests.iter().any(|request| request == id);
            is_meant.then(|| event["params"]["encodedDataLength"].as_f64())?
        });
        bytes.iter().sum()
    }

    pub(super) async fn call(&self, method: &str, params: Value) -> Value {
        let result = self.try_call(method, params).await;
        result.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn try_call(&self, method: &str, params: Value) -> Result<Value, String> {
        self.protocol
            .call(Some(&self.session), method, params)
            .await
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let context = json!({ "browserContextId": self.context });
        self.protocol
            .send(None, "Target.disposeBrowserContext", &context);
    }
}

async fn call(protocol: &Protocol, method: &str, params: Value) -> Value {
    let result = protocol.call(None, method, params).await;
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// An expression: `of` each element `e`.
fn all(selector: &str, of: &str) -> String {
    let selector = Value::from(selector);
    format!("[...document.querySelectorAll({selector})].map(e => {of})")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

fn strings(values: &Value) -> Vec<String> {
    values
        .as_array()
        .expect("an array")
        .iter()
        .map(text)
        .collect()
}

/// The line for an event that reports something wrong.
fn error(event: &Value) -> Option<String> {
    let params = &event["params"];
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" => Some(format!("exception: {}", params["exceptionDetails"])),
        "Runtime.consoleAPICalled" if params["type"] == "error" => {
            Some(format!("console: {}", params["args"]))
        }
        "Log.entryAdded" if params["entry"]["level"] == "error" => {
            let entry = &params["entry"];
            // The browser asks for it, not the page.
            let is_icon = text(&entry["url"]).ends_with("/favicon.ico");
            (!is_icon).then(|| format!("{}: {} {}", entry["source"], entry["text"], entry["url"]))
        }
        "Audits.issueAdded" if params["issue"]["code"] == "ContentSecurityPolicyIssue" => {
            Some(format!("policy: {}", params["issue"]["details"]))
        }
        "Page.javascriptDialogOpening" => Some(format!("dialog: {}", params["message"])),
        _ => None,
    }
}

fn violation(violation: &Value) -> String {
    let mut line = format!(
        "{} {}: {}",
        violation["impact"], violation["id"], violation["help"]
    );
    for node in violation["nodes"].as_array().into_iter().flatten() {
        let _ = write!(line, "; {} ({})", node["html"], node["failureSummary"]);
    }
    line
}
