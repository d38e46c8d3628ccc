//! Converts a line of a file to the request that creates the record.

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::ids::{ForeignId, Kind};

/// The request for one line. The same line always gives the same request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The id in the file.
    pub(crate) id: ForeignId,
    pub(crate) body: Bytes,
    /// Kind, id and a short hash of the body. A changed line gets another key, so that the service
    /// reports the id as taken (409) and not the key (422).
    pub(crate) idempotency_key: String,
}

/// Why a line is not a valid record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("not JSON: {}", on_one_line(.0))]
    NotJson(serde_json::Error),
    #[error("not a JSON object")]
    NotAnObject,
    #[error("{}", on_one_line(.0))]
    Fields(serde_json::Error),
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct User<Id> {
    id: Id,
    name: String,
    email: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Product<Id> {
    id: Id,
    title: String,
    image: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Order<Id> {
    id: Id,
    user_id: Id,
    product_ids: Vec<Id>,
}

/// Parses a line as a record of `kind` and maps its ids.
pub(crate) fn request(kind: Kind, line: &str) -> Result<Request, Malformed> {
    match kind {
        Kind::Users => {
            let User { id, name, email } = parse::<User<ForeignId>>(line)?;
            Ok(create(kind, id, |id| User { id, name, email }))
        }
        Kind::Products => {
            let Product { id, title, image } = parse::<Product<ForeignId>>(line)?;
            Ok(create(kind, id, |id| Product { id, title, image }))
        }
        Kind::Orders => {
            let order = parse::<Order<ForeignId>>(line)?;
            let user_id = order.user_id.mapped(Kind::Users);
            let product_ids = order
                .product_ids
                .iter()
                .map(|id| id.mapped(Kind::Products))
                .collect();
            Ok(create(kind, order.id, |id| Order {
                id,
                user_id,
                product_ids,
            }))
        }
    }
}

fn create<R: Serialize>(kind: Kind, foreign: ForeignId, record: impl FnOnce(Uuid) -> R) -> Request {
    const HASH_BYTES: usize = 8;
    let id = foreign.mapped(kind);
    let body = serde_json::to_vec(&record(id)).expect("texts and ids always encode");
    let hash = Sha256::digest(&body);
    let hash = hash[..HASH_BYTES]
        .iter()
        .fold(0, |hash, byte| hash << 8 | u64::from(*byte));
    let idempotency_key = format!("{}-{id}-{hash:016x}", kind.name());
    Request {
        id: foreign,
        body: body.into(),
        idempotency_key,
    }
}

fn parse<'de, T: Deserialize<'de>>(line: &'de str) -> Result<T, Malformed> {
    // Serde would accept an array for a struct.
    if !line.trim_ascii_start().starts_with('{') {
        serde_json::from_str::<IgnoredAny>(line).map_err(Malformed::NotJson)?;
        return Err(Malformed::NotAnObject);
    }
    serde_json::from_str(line).map_err(|error| match error.classify() {
        Category::Data => Malformed::Fields(error),
        Category::Syntax | Category::Eof | Category::Io => Malformed::NotJson(error),
    })
}

/// Removes "at line 1", which would be mistaken for the line of the file.
fn on_one_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(what) => format!("{what} (column {})", error.column()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::ids::mapped;

    fn body(kind: Kind, line: &str) -> Value {
        let request = request(kind, line).expect(line);
        serde_json::from_slice(&request.body).expect("JSON")
    }

    fn key(line: &str) -> String {
        request(Kind::Users, line).expect(line).idempotency_key
    }

    #[test]
    fn references_are_mapped_as_the_ids_they_refer_to() {
        let order = body(
            Kind::Orders,
            r#"{"id": 7, "user_id": "1", "product_ids": [2, "2"]}"#,
        );
        let product = mapped(Kind::Products, "2");
        assert_eq!(
            order,
            json!({
                "id": mapped(Kind::Orders, "7"),
                "user_id": mapped(Kind::Users, "1"),
                "product_ids": [product, product],
            })
        );
    }

    #[test]
    fn the_key_depends_on_the_content_and_not_on_its_spelling() {
        let ann = key(r#"{"id": 1, "name": "Ann", "email": "a@b.c"}"#);
        assert_eq!(ann, key(r#"{"email":"a@b.c","name":"\u0041nn","id":"1"}"#));
        assert_ne!(ann, key(r#"{"id": 1, "name": "Anne", "email": "a@b.c"}"#));
        assert_ne!(ann, key(r#"{"id": 2, "name": "Ann", "email": "a@b.c"}"#));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_named() {
        let cases = [
            ("nonsense", "not JSON: expected ident (column 2)"),
            (
                r#"{"id": 1,"#,
                "not JSON: EOF while parsing a value (column 9)",
            ),
            (
                r#"{"id":1,"name":"a","email":"b"} x"#,
                "not JSON: trailing characters (column 33)",
            ),
            (r#"[1, "Ann", "a@b.c"]"#, "not a JSON object"),
            ("42", "not a JSON object"),
            (
                r#"{"id": 1, "name": "Ann"}"#,
                "missing field `email` (column 24)",
            ),
            (r#"{"id":1,"id":2}"#, "duplicate field `id` (column 12)"),
            (
                r#"{"id": 1, "age": 3}"#,
                "unknown field `age`, expected one of `id`, `name`, `email` (column 15)",
            ),
            (
                r#"{"id": 1, "name": 5}"#,
                "invalid type: integer `5`, expected a string (column 19)",
            ),
            (
                r#"{"id": 1.5}"#,
                "invalid type: floating point `1.5`, expected an id (a text, or a whole number of \
                 up to 64 bits) (column 10)",
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(
                request(Kind::Users, line).expect_err(line).to_string(),
                expected,
                "{line}"
            );
        }
    }
}
