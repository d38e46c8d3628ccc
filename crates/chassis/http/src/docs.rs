//! `/docs`: the OpenAPI document as an HTML page, rendered once, without scripts or external
//! sources.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use serde_json::Value;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::policy::content_security_policy;

/// The parts of a schema that are shown with its type, and their wording.
const BOUNDS: [(&str, &str); 9] = [
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} items"),
    ("maxItems", "at most {} items"),
    ("minProperties", "at least {} fields"),
    ("minimum", "at least {}"),
    ("maximum", "at most {}"),
    ("default", "default {}"),
    ("pattern", "pattern {}"),
];

/// The document and its page. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Docs {
    json: Bytes,
    html: Bytes,
    policy: HeaderValue,
}

impl Docs {
    /// # Panics
    /// When the document cannot be written as JSON.
    pub(super) fn of(openapi: &OpenApi) -> Self {
        let json = serde_json::to_value(openapi).expect("a document is plain data");
        let html = Page::of(&json).render().expect("a page is plain text");
        Self {
            json: json.to_string().into(),
            policy: content_security_policy(&html, ""),
            html: html.into(),
        }
    }
}

pub(super) fn routes() -> OpenApiRouter<Docs> {
    OpenApiRouter::new()
        .routes(routes!(document))
        .routes(routes!(page))
        .route("/docs/", get(async || Redirect::permanent("/docs")))
}

/// This API as an OpenAPI document
#[utoipa::path(
    get, path = "/openapi.json", tag = "documentation",
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json")),
)]
async fn document(State(docs): State<Docs>) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], docs.json).into_response()
}

/// This API as an HTML page
#[utoipa::path(
    get, path = "/docs", tag = "documentation",
    responses((status = 200, description = "HTML", body = String, content_type = "text/html")),
)]
async fn page(State(docs): State<Docs>) -> Response {
    let headers = [(header::CONTENT_SECURITY_POLICY, docs.policy)];
    (headers, Html(docs.html)).into_response()
}

#[derive(Template)]
#[template(path = "docs.html")]
struct Page {
    title: String,
    description: String,
    version: String,
    operations: Vec<Operation>,
    schemas: Vec<Schema>,
}

struct Operation {
    method: String,
    path: String,
    summary: String,
    paragraphs: Vec<String>,
    parameters: Vec<Row>,
    body: Option<Body>,
    answers: Vec<Answer>,
}

/// A parameter, or a field of a schema.
struct Row {
    name: String,
    /// The place of a parameter: path, query or header.
    place: String,
    kind: Kind,
    is_required: bool,
    description: String,
}

struct Body {
    /// Media types.
    kinds: Vec<(String, Kind)>,
}

struct Answer {
    status: String,
    description: String,
    body: Body,
    headers: Vec<String>,
}

struct Schema {
    name: String,
    description: String,
    /// Where it has no fields: what it is.
    kind: Kind,
    rows: Vec<Row>,
}

/// A type in words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kind {
    text: String,
    /// The schema that it refers to, on the same page.
    schema: Option<String>,
    bounds: Vec<String>,
}

impl Page {
    fn of(document: &Value) -> Self {
        let info = &document["info"];
        let paths = document["paths"].as_object().into_iter().flatten();
        let operations = paths.flat_map(|(path, item)| {
            let methods = item.as_object().into_iter().flatten();
            methods.map(|(method, operation)| Operation::of(method, path, operation))
        });
        let schemas = document["components"]["schemas"].as_object();
        let schemas = schemas.into_iter().flatten();
        Self {
            title: text(&info["title"]),
            description: text(&info["description"]),
            version: text(&info["version"]),
            operations: operations.collect(),
            schemas: schemas
                .map(|(name, schema)| Schema::of(name, schema))
                .collect(),
        }
    }
}

impl Operation {
    fn of(method: &str, path: &str, operation: &Value) -> Self {
        let responses = operation["responses"].as_object().into_iter().flatten();
        let answers = responses.map(|(status, response)| Answer {
            status: status.clone(),
            description: text(&response["description"]),
            body: Body::of(response),
            headers: keys(&response["headers"]),
        });
        let body = &operation["requestBody"];
        Self {
            method: method.to_uppercase(),
            path: path.to_owned(),
            summary: text(&operation["summary"]),
            paragraphs: text(&operation["description"])
                .split("\n\n")
                .filter(|paragraph| !paragraph.is_empty())
                .map(str::to_owned)
                .collect(),
            parameters: items(&operation["parameters"])
                .map(Row::parameter)
                .collect(),
            body: body.is_object().then(|| Body::of(body)),
            answers: answers.collect(),
        }
    }

    /// The fragment that links to it.
    fn anchor(&self) -> String {
        let path = self.path.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        format!("{}{path}", self.method)
    }
}

impl Row {
    fn parameter(parameter: &Value) -> Self {
        Self {
            name: text(&parameter["name"]),
            place: text(&parameter["in"]),
            kind: Kind::of(&parameter["schema"]),
            is_required: parameter["required"] == true,
            description: text(&parameter["description"]),
        }
    }
}

impl Body {
    fn of(described: &Value) -> Self {
        let kinds = described["content"].as_object().into_iter().flatten();
        let kinds = kinds.map(|(kind, content)| (kind.clone(), Kind::of(&content["schema"])));
        Self {
            kinds: kinds.collect(),
        }
    }
}

impl Schema {
    fn of(name: &str, schema: &Value) -> Self {
        let required: Vec<&str> = items(&schema["required"])
            .filter_map(Value::as_str)
            .collect();
        let properties = schema["properties"].as_object().into_iter().flatten();
        let rows = properties.map(|(name, property)| Row {
            name: name.clone(),
            place: String::new(),
            kind: Kind::of(property),
            is_required: required.contains(&name.as_str()),
            description: text(&property["description"]),
        });
        Self {
            name: name.to_owned(),
            description: text(&schema["description"]),
            kind: Kind::of(schema),
            rows: rows.collect(),
        }
    }
}

impl Kind {
    fn of(schema: &Value) -> Self {
        let (text, schema_name) = kind(schema);
        let bounds = BOUNDS.iter().filter_map(|(key, words)| {
            let bound = schema.get(key)?;
            let bound = bound
                .as_str()
                .map_or_else(|| bound.to_string(), str::to_owned);
            Some(words.replace("{}", &bound))
        });
        Self {
            text,
            schema: schema_name,
            bounds: bounds.collect(),
        }
    }
}

/// A type in words, and the schema that it refers to.
fn kind(schema: &Value) -> (String, Option<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap_or_default().to_owned();
        return (name.clone(), Some(name));
    }
    let mut several = ["oneOf", "anyOf", "allOf"].iter();
    if let Some(several) = several.find_map(|key| schema[*key].as_array()) {
        let all: Vec<_> = several.iter().map(kind).collect();
        let schema = all.iter().find_map(|(_, schema)| schema.clone());
        let texts: Vec<String> = all.into_iter().map(|(text, _)| text).collect();
        return (texts.join(" or "), schema);
    }
    let own = match &schema["type"] {
        Value::Array(types) => types.iter().map(text).collect::<Vec<_>>().join(" or "),
        one => text(one),
    };
    if own.starts_with("array") {
        let (of, schema) = kind(&schema["items"]);
        return (format!("list of {of}"), schema);
    }
    if schema["additionalProperties"].is_object() {
        let (of, schema) = kind(&schema["additionalProperties"]);
        return (format!("map of {of}"), schema);
    }
    match schema["format"].as_str() {
        Some(format) => (format!("{own} ({format})"), None),
        None => (own, None),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn keys(value: &Value) -> Vec<String> {
    let object = value.as_object().into_iter().flatten();
    object.map(|(key, _)| key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_type_is_told_in_words_with_its_bounds() {
        let title = Kind::of(&json!({"type": ["string", "null"], "maxLength": 200}));
        assert_eq!(title.text, "string or null");
        assert_eq!(title.bounds, ["at most 200 characters"]);
        let page =
            Kind::of(&json!({"type": "array", "items": {"$ref": "#/components/schemas/Product"}}));
        assert_eq!(page.text, "list of Product");
        assert_eq!(page.schema.as_deref(), Some("Product"));
        let id = Kind::of(&json!({"type": "string", "format": "uuid"}));
        assert_eq!(id.text, "string (uuid)");
        let map = Kind::of(&json!({"type": "object", "additionalProperties": {"type": "integer"}}));
        assert_eq!(map.text, "map of integer");
    }

    #[test]
    fn a_document_is_escaped() {
        let page = Page::of(&json!({"info": {"title": "<script>", "description": "\"><img>"}}));
        let html = page.render().unwrap();
        assert!(
            !html.contains("<script>") && !html.contains("<img>"),
            "{html}"
        );
    }
}
