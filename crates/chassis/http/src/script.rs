//! Scripts of pages: files of the binary.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// Answers the request with `headers` for a script of the binary (`include_str!`). A browser keeps
/// it, and asks each time whether it is still the same, so pages and scripts of one version meet.
///
/// A page that loads it needs `script-src 'self'` in its
/// [policy](crate::content_security_policy).
pub fn script(source: &'static str, headers: &HeaderMap) -> Response {
    let hash = URL_SAFE_NO_PAD.encode(&Sha256::digest(source)[..12]);
    let tag = format!("\"{hash}\"");
    let known = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut known = known.filter_map(|tags| tags.to_str().ok());
    let is_known = known.any(|tags| tags.split(',').any(|known| known.trim().ends_with(&tag)));
    let tag = HeaderValue::try_from(tag).expect("base64 is visible ASCII");
    let validators = [
        (header::ETAG, tag),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    if is_known {
        return (StatusCode::NOT_MODIFIED, validators).into_response();
    }
    let kind = HeaderValue::from_static("text/javascript; charset=utf-8");
    (validators, [(header::CONTENT_TYPE, kind)], source).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_that_has_a_script_gets_no_second_copy() {
        let answer = script("'use strict'", &HeaderMap::new());
        assert_eq!(answer.status(), StatusCode::OK);
        let tag = &answer.headers()[header::ETAG];
        for (known, status) in [
            (tag.to_str().unwrap().to_owned(), StatusCode::NOT_MODIFIED),
            (
                format!("\"other\", W/{}", tag.to_str().unwrap()),
                StatusCode::NOT_MODIFIED,
            ),
            ("\"other\"".to_owned(), StatusCode::OK),
        ] {
            let known = HeaderValue::try_from(known).unwrap();
            let headers = [(header::IF_NONE_MATCH, known)].into_iter().collect();
            assert_eq!(script("'use strict'", &headers).status(), status);
        }
    }
}
