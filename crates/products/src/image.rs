//! Uploaded images: which are taken, and what they are called.

use axum::body::Bytes;
use axum::http::StatusCode;
use headwater::http::Problem;
use sha2::{Digest as _, Sha256};

/// The largest image, in bytes.
pub(crate) const BYTES_MAX: usize = 2 * 1024 * 1024;

/// The path that images are served under.
pub(crate) const PATH: &str = "/images/";

/// The name of an image: SHA-256 of its bytes, in hex. The same bytes have the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageId(String);

impl ImageId {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let digest = Bytes::copy_from_slice(&Sha256::digest(bytes));
        Self(format!("{digest:x}"))
    }

    /// The id in a path such as `/images/<id>`, if it is one.
    pub(crate) fn from_path(path: &str) -> Option<Self> {
        Self::parse(path.strip_prefix(PATH)?)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 64 && text.bytes().all(is_hex)).then(|| Self(text.to_owned()))
    }

    pub(crate) fn path(&self) -> String {
        format!("{PATH}{}", self.0)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks that `bytes` are what `content_type` says; gives the type as it is kept.
///
/// A browser that is told a type believes it, so what is stored under a type must be of it.
pub(crate) fn check(content_type: &str, bytes: &[u8]) -> Result<&'static str, Problem> {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let (kept, is_of_it) = match essence {
        "image/png" => ("image/png", bytes.starts_with(b"\x89PNG\r\n\x1a\n")),
        "image/jpeg" => ("image/jpeg", bytes.starts_with(b"\xff\xd8\xff")),
        "image/gif" => ("image/gif", bytes.starts_with(b"GIF8")),
        "image/webp" => (
            "image/webp",
            bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP".as_slice()),
        ),
        "image/svg+xml" => ("image/svg+xml", is_svg(bytes)),
        _ => {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-content-type",
                "send an image with Content-Type image/png, image/jpeg, image/gif, image/webp or image/svg+xml",
            ));
        }
    };
    if is_of_it {
        return Ok(kept);
    }
    Err(Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "not-an-image",
        format!("the body is not {kept}; send the image's own bytes, and its own type"),
    ))
}

fn is_svg(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes)
        .is_ok_and(|text| text.trim_start().starts_with('<') && text.contains("<svg"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_what_its_type_says() {
        assert_eq!(
            check("image/svg+xml; charset=utf-8", b"<svg/>").unwrap(),
            "image/svg+xml"
        );
        assert_eq!(check("image/gif", b"GIF89a..").unwrap(), "image/gif");
        assert!(check("image/png", b"<svg/>").is_err());
        assert!(check("text/html", b"<html>").is_err());
        assert!(check("image/webp", b"RIFF").is_err());
    }

    #[test]
    fn an_image_is_found_again_by_its_path() {
        let id = ImageId::of(b"<svg/>");
        assert_eq!(ImageId::from_path(&id.path()), Some(id));
        assert_eq!(ImageId::parse("../../etc/passwd"), None);
    }
}
