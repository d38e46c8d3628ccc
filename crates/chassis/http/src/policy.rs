//! The look of HTML pages, and their content security policy.

use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// The style sheet of every HTML page, for its `<style>` element: type, cards, tables, badges, forms
/// and buttons, in light and dark colours, from 360 px to 4K, and on paper.
///
/// Its colours are the custom properties `--ink`, `--soft`, `--paper`, `--card`, `--well`, `--line`,
/// `--accent`, `--tint`, `--good`, `--warn` and `--bad`; a page needs no others. Its body has a
/// `<header>`, a `<main>` and a `<footer>`.
pub const STYLE: &str = include_str!("style.css");

/// The `Content-Security-Policy` of a page whose only style is its first `<style>` element, allowed
/// by its hash. The policy allows no script and no framing, and loads nothing else except what
/// `more` allows (`img-src https:; form-action 'self'`).
///
/// The `<style>` element in `html` must not contain anything that a client sent.
///
/// # Panics
/// When `more` is not valid text for a header.
pub fn content_security_policy(html: &str, more: &str) -> HeaderValue {
    let style = html.split_once("<style>");
    let style = style.and_then(|(_, rest)| rest.split_once("</style>"));
    let style = style.map_or("", |(style, _)| style);
    let hash = STANDARD.encode(Sha256::digest(style));
    let form = if more.contains("form-action") {
        ""
    } else {
        "form-action 'none'; "
    };
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; {form}\
         frame-ancestors 'none'; {more}"
    );
    HeaderValue::try_from(policy.trim_end_matches("; ")).expect("directives are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_of_a_page_is_allowed_by_its_hash() {
        let policy = content_security_policy("<head><style>a</style></head><style>b</style>", "");
        let hash = "'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs='";
        let expected = format!(
            "default-src 'none'; style-src {hash}; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'"
        );
        assert_eq!(policy, expected);
        let policy = content_security_policy("", "img-src https:; form-action 'self'");
        let policy = policy.to_str().unwrap();
        assert_eq!(policy.matches("form-action").count(), 1, "{policy}");
        assert!(
            policy.ends_with("img-src https:; form-action 'self'"),
            "{policy}"
        );
    }
}
