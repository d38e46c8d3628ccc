//! A service's refusal: an RFC 9457 problem.

use std::fmt;

use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

/// The most bytes read of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The status and, if the service gave them, the reasons.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    body: Body,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    title: Option<String>,
    detail: Option<String>,
    errors: Value,
}

impl Problem {
    /// Reads the answer's body; if it is not a problem, only the status is kept.
    pub(crate) async fn read(response: Response) -> Self {
        let status = response.status();
        let body = serde_json::from_slice(&read(response).await).unwrap_or_default();
        Self { status, body }
    }
}

/// Reads an answer to its end, so that the connection can be reused, or to the limit.
pub(crate) async fn read(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            break;
        }
    }
    body
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.status)?;
        let detail = self.body.detail.as_ref().or(self.body.title.as_ref());
        if let Some(detail) = detail {
            write!(f, ": {detail}")?;
        }
        let mut errors = fields(&self.body.errors);
        // Our services repeat them in the detail.
        errors.retain(|error| {
            let text = error.trim_start_matches(['#', '/']);
            !detail.is_some_and(|detail| detail.contains(text))
        });
        if !errors.is_empty() {
            write!(f, " ({})", errors.join("; "))?;
        }
        Ok(())
    }
}

/// The field errors: an object of texts, or an array of texts or RFC 9457 objects.
fn fields(errors: &Value) -> Vec<String> {
    match errors {
        Value::Object(fields) => fields
            .iter()
            .map(|(field, what)| format!("{field}: {}", plain(what)))
            .collect(),
        Value::Array(errors) => errors.iter().map(plain).collect(),
        _ => Vec::new(),
    }
}

fn plain(error: &Value) -> String {
    let text = |names: &[&str]| names.iter().find_map(|name| error[*name].as_str());
    match error {
        Value::String(text) => text.clone(),
        Value::Array(errors) => errors.iter().map(plain).collect::<Vec<_>>().join(", "),
        _ => match (
            text(&["pointer", "field", "name"]),
            text(&["detail", "message"]),
        ) {
            (Some(place), Some(what)) => format!("{place}: {what}"),
            _ => error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn field_errors_are_shown_in_every_common_shape() {
        let shapes = [
            (json!({"email": "no at sign"}), "email: no at sign"),
            (
                json!({"email": ["short", "no at sign"]}),
                "email: short, no at sign",
            ),
            (json!(["no at sign"]), "no at sign"),
            (
                json!([{"pointer": "#/email", "detail": "no at sign"}]),
                "#/email: no at sign",
            ),
            (
                json!([{"field": "email", "message": "no at sign"}]),
                "email: no at sign",
            ),
            (json!([{"code": 7}]), r#"{"code":7}"#),
        ];
        for (errors, expected) in shapes {
            assert_eq!(fields(&errors), [expected], "{errors}");
        }
    }
}
