//! Decoded events, in which personal fields are masked unless they were asked for.

use client::schemas::MASK;

use crate::app::App;
use crate::params::Params;

/// A decoded event.
pub(crate) struct Readable {
    /// Its fields, if it could be decoded.
    pub(crate) json: Option<String>,
    /// The value of its key field, which is not for the page if `is_key_masked`.
    pub(crate) key: Option<String>,
    pub(crate) is_key_masked: bool,
    /// Whether a value is masked.
    pub(crate) is_masked: bool,
    /// Why it could not be decoded.
    pub(crate) problem: Option<String>,
}

impl Readable {
    /// `is_shown`: whether personal fields are shown.
    pub(crate) async fn of(app: &App, subject: &str, payload: &[u8], is_shown: bool) -> Self {
        let mut schemas = app.schemas.lock().await;
        match schemas.decode_masked(subject, payload).await {
            Ok(masked) => {
                let json = if is_shown {
                    &masked.whole
                } else {
                    &masked.json
                };
                Self {
                    json: Some(json.get().to_owned()),
                    key: masked.key,
                    is_key_masked: masked.is_key_personal && !is_shown,
                    is_masked: masked.is_masked && !is_shown,
                    problem: None,
                }
            }
            Err(problem) => Self {
                json: None,
                key: None,
                is_key_masked: false,
                is_masked: false,
                problem: Some(problem.to_string()),
            },
        }
    }

    /// The key for the page.
    pub(crate) fn key_text(&self) -> String {
        match &self.key {
            Some(_) if self.is_key_masked => MASK.to_owned(),
            Some(key) => key.clone(),
            None => String::new(),
        }
    }
}

/// Whether the request asks for personal fields.
pub(crate) fn is_shown(params: &Params) -> bool {
    params.get("personal") == "shown"
}

/// Logs that personal fields are shown. If that fails, they may not be shown.
pub(crate) fn log_shown(app: &App, path: &str, params: &Params) -> anyhow::Result<()> {
    if !is_shown(params) {
        return Ok(());
    }
    let what = format!("personal fields at {}", params.link(path));
    app.journal.write(None, &what, "shown")
}
