//! Uploaded images: accepted types, and names.

use std::borrow::Cow;

use axum::body::Bytes;
use sha2::{Digest as _, Sha256};

/// The largest image, in bytes.
pub(crate) const BYTES_MAX: usize = 2 * 1024 * 1024;

/// The path prefix of images.
pub(crate) const PATH: &str = "/images/";

/// The name of an image: SHA-256 of its bytes, in hex. The same bytes have the same name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

/// Why an upload is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error(
        "send an image with Content-Type image/png, image/jpeg, image/gif, image/webp or image/svg+xml"
    )]
    UnknownType,
    #[error("the body is not {0}; send the bytes of the image, and its type")]
    OfAnotherType(&'static str),
}

/// Checks that `bytes` are of `content_type`; returns the type to store.
///
/// Browsers trust the type, so the stored bytes must be of that type.
pub(crate) fn check(content_type: &str, bytes: &[u8]) -> Result<&'static str, Unfit> {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let (kept, is_of_it) = match essence.to_ascii_lowercase().as_str() {
        "image/png" => ("image/png", bytes.starts_with(b"\x89PNG\r\n\x1a\n")),
        "image/jpeg" => ("image/jpeg", bytes.starts_with(b"\xff\xd8\xff")),
        "image/gif" => ("image/gif", bytes.starts_with(b"GIF8")),
        "image/webp" => (
            "image/webp",
            bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP".as_slice()),
        ),
        "image/svg+xml" => ("image/svg+xml", is_svg(bytes)),
        _ => return Err(Unfit::UnknownType),
    };
    is_of_it.then_some(kept).ok_or(Unfit::OfAnotherType(kept))
}

/// Whether the first element of an XML document is `svg`, with or without a namespace prefix.
fn is_svg(bytes: &[u8]) -> bool {
    let Some(text) = xml_text(bytes) else {
        return false;
    };
    let Some(element) = after_prolog(&text).strip_prefix('<') else {
        return false;
    };
    let name = element.split(|c: char| c.is_whitespace() || matches!(c, '>' | '/'));
    let name = name.into_iter().next().unwrap_or_default();
    name.rsplit(':').next() == Some("svg")
}

/// An XML document as text: UTF-8, or UTF-16 with a byte order mark.
fn xml_text(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let utf16 = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = rest.chunks_exact(2).map(|two| unit([two[0], two[1]]));
        let text: Result<String, _> = char::decode_utf16(units).collect();
        text.ok().map(Cow::Owned)
    };
    match bytes {
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => str::from_utf8(rest).ok().map(Cow::Borrowed),
    }
}

/// What follows the XML declaration, comments and the document type.
fn after_prolog(text: &str) -> &str {
    let mut rest = text.trim_start();
    loop {
        let end = if rest.starts_with("<?") {
            rest.split_once("?>")
        } else if rest.starts_with("<!--") {
            rest.split_once("-->")
        } else if rest.starts_with("<!") {
            // A document type may declare things, in brackets.
            match (rest.find('['), rest.find('>')) {
                (Some(open), Some(close)) if open < close => rest
                    .split_once(']')
                    .and_then(|(_, after)| after.split_once('>')),
                _ => rest.split_once('>'),
            }
        } else {
            return rest;
        };
        match end {
            Some((_, after)) => rest = after.trim_start(),
            None => return "",
        }
    }
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
        assert_eq!(check("IMAGE/GIF ; x=1", b"GIF89a..").unwrap(), "image/gif");
        assert!(check("image/png", b"<svg/>").is_err());
        assert!(check("text/html", b"<html>").is_err());
        assert!(check("image/webp", b"RIFF").is_err());
    }

    #[test]
    fn an_svg_may_have_a_byte_order_mark_and_a_prolog() {
        let utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            text.encode_utf16().flat_map(bytes).collect()
        };
        for right in [
            b"\xef\xbb\xbf<svg/>".to_vec(),
            b" \r\n<svg xmlns='x'>".to_vec(),
            b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- <svg> -->\n<!DOCTYPE svg [<!ENTITY a '>'>]>\n<s:svg>".to_vec(),
            b"<!DOCTYPE svg PUBLIC 'x' 'y'><svg>".to_vec(),
            utf16("\u{feff}<?xml version='1.0'?><svg/>", u16::to_be_bytes),
            utf16("\u{feff}<svg/>", u16::to_le_bytes),
        ] {
            let text = String::from_utf8_lossy(&right);
            assert!(check("image/svg+xml", &right).is_ok(), "{text}");
        }
        for wrong in [
            "",
            "svg",
            "<svgx/>",
            "<!-- <svg/>",
            "<?xml version='1.0'?><html><svg/></html>",
            "<!DOCTYPE svg [",
        ] {
            assert!(check("image/svg+xml", wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_image_is_found_again_by_its_path() {
        let id = ImageId::of(b"<svg/>");
        assert_eq!(ImageId::from_path(&id.path()), Some(id));
        assert_eq!(ImageId::parse("../../etc/passwd"), None);
    }
}
