//! Completes a service's OpenAPI document with what all operations share, and refuses query
//! parameters that are not in it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use utoipa::PartialSchema as _;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::response::{Response as Documented, ResponseBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{ComponentsBuilder, ContentBuilder, OpenApi, Ref, RefOr};

use crate::problem::{FieldError, Problem};

/// Errors of any request.
const ANY: [(StatusCode, &str); 4] = [
    (
        StatusCode::BAD_REQUEST,
        "The path, a query parameter, a header or the JSON text is wrong",
    ),
    (
        StatusCode::MISDIRECTED_REQUEST,
        "The service does not answer for the `Host` of the request",
    ),
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        "The service made a mistake; it is in its log",
    ),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "Unavailable now, for the reason in `detail`; try again after `Retry-After` seconds",
    ),
];

/// Errors of a request with a body.
const WITH_BODY: [(StatusCode, &str); 3] = [
    (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
    (
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "The `Content-Type` is not supported here",
    ),
    (StatusCode::UNPROCESSABLE_ENTITY, "A field is wrong"),
];

/// Errors with a `Retry-After` header.
const WITH_RETRY_AFTER: [StatusCode; 2] = [
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::TOO_MANY_REQUESTS,
];

/// Refused before the request is read, and without a body.
const HEAD_TOO_LARGE: [(StatusCode, &str); 2] = [
    (StatusCode::URI_TOO_LONG, "The address is too long"),
    (
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "The headers are too large, or too many",
    ),
];

/// Adds to each operation the errors that all operations share, and to each error its answer. An
/// operation's own description of a status stays.
pub(super) fn complete(openapi: &mut OpenApi) {
    let components = openapi
        .components
        .take()
        .map_or_else(ComponentsBuilder::new, Into::into)
        .schema("Problem", Problem::schema())
        .schema("FieldError", FieldError::schema());
    openapi.components = Some(components.build());
    for item in openapi.paths.paths.values_mut() {
        for operation in operations_mut(item) {
            complete_operation(operation);
        }
    }
}

fn complete_operation(operation: &mut Operation) {
    let with_body: &[_] = if operation.request_body.is_some() {
        &WITH_BODY
    } else {
        &[]
    };
    let responses = &mut operation.responses.responses;
    for (status, description) in ANY.iter().chain(with_body).chain(&HEAD_TOO_LARGE) {
        responses
            .entry(status.as_str().to_owned())
            .or_insert_with(|| {
                let response = ResponseBuilder::new().description(*description);
                response.build().into()
            });
    }
    for (status, response) in responses {
        let is_error = status.starts_with(['4', '5']);
        let has_body = HEAD_TOO_LARGE.iter().all(|(one, _)| one.as_str() != status);
        if let RefOr::T(response) = response
            && is_error
            && has_body
        {
            describe_problem(status, response);
        }
    }
}

fn describe_problem(status: &str, response: &mut Documented) {
    if response.content.is_empty() {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem")));
        let kind = "application/problem+json".to_owned();
        response.content.insert(kind, problem.build().into());
    }
    if WITH_RETRY_AFTER.iter().any(|one| one.as_str() == status) {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer);
        let header = HeaderBuilder::new()
            .schema(Some(seconds.minimum(Some(1)).build()))
            .description(Some("Seconds after which to try again"));
        let name = "Retry-After".to_owned();
        response.headers.insert(name, header.build().into());
    }
}

fn operations_mut(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let (get, put, post) = (&mut item.get, &mut item.put, &mut item.post);
    [get, put, post, &mut item.delete, &mut item.patch]
        .into_iter()
        .flatten()
}

/// The names of the query parameters of each address and method in a document.
#[derive(Debug, Clone)]
pub(super) struct Parameters(Arc<HashMap<String, Vec<Taken>>>);

/// A method of an address, and the names of the parameters that it takes.
type Taken = (Method, Vec<String>);

impl Parameters {
    pub(super) fn of(openapi: &OpenApi) -> Self {
        let paths = openapi.paths.paths.iter();
        let all = paths.map(|(path, item)| (path.clone(), of_item(item)));
        Self(Arc::new(all.collect()))
    }

    /// The parameters that `path` takes. `None` if it does not support `method`: then the router
    /// answers.
    fn taken(&self, path: &str, method: &Method) -> Option<&[String]> {
        let Some(methods) = self.0.get(path) else {
            return Some(&[]);
        };
        let method = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let found = methods.iter().find(|(one, _)| one == method);
        found.map(|(_, names)| names.as_slice())
    }
}

fn of_item(item: &PathItem) -> Vec<Taken> {
    [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
        (Method::PATCH, &item.patch),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, names(operation.as_ref()?))))
    .collect()
}

fn names(operation: &Operation) -> Vec<String> {
    let parameters = operation.parameters.iter().flatten();
    let query = parameters.filter_map(|parameter| match parameter {
        RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => {
            Some(parameter.name.clone())
        }
        _ => None,
    });
    query.collect()
}

/// Refuses a query parameter that the address does not take: a misspelt one would otherwise be
/// ignored silently.
pub(super) async fn refuse_unknown(
    State(parameters): State<Parameters>,
    request: Request,
    next: Next,
) -> Response {
    match unknown(&parameters, &request) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

fn unknown(parameters: &Parameters, request: &Request) -> Option<Problem> {
    request.uri().query().filter(|query| !query.is_empty())?;
    let path = request.extensions().get::<MatchedPath>()?;
    let taken = parameters.taken(path.as_str(), request.method())?;
    let asked: Query<Vec<(String, String)>> = Query::try_from_uri(request.uri()).ok()?;
    let (unknown, _) = asked.iter().find(|(name, _)| !taken.contains(name))?;
    let taken = match taken {
        [] => "this address takes none".to_owned(),
        taken => format!("this address takes {}", taken.join(", ")),
    };
    Some(Problem::new(
        StatusCode::BAD_REQUEST,
        "unknown-parameter",
        format!("there is no query parameter `{unknown}`; {taken}"),
    ))
}
