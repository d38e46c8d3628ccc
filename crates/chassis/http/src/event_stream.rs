//! Streams of server-sent events: pages that follow.
//!
//! A handler that takes `Option<EventStream>` answers both kinds of request:
//!
//! ```ignore
//! async fn readings(stream: Option<EventStream>) -> Result<Response, Problem> {
//!     let Some(stream) = stream else { return Ok(axum::Json(now).into_response()) };
//!     let seen = stream.seen.clone(); // the client has everything up to here
//!     Ok(stream.respond(changes(seen)))
//! }
//! ```
//!
//! The stream is within limits (`--http-streams`), says every now and then that it is alive, and
//! ends when the service stops: browsers reconnect by themselves and send the id of the last event.
//! So give each event an id: the positions that it includes. A client that does not take its events
//! is disconnected after `--http-write-timeout`, as any other, and what it has not taken counts
//! towards `--http-buffer-mib`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts as _, OptionalFromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, StreamExt as _, stream};
use headwater_event::Positions;
use headwater_store::fair;
use metrics::Gauge;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use crate::clients::UnderWay;
use crate::config::Config;
use crate::extract::{Query, network};
use crate::problem::Problem;

/// How often a stream without events says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// When a client reconnects: between this and three times this, so that the clients of a service
/// that was restarted do not all come at once.
const RECONNECT: Duration = Duration::from_secs(1);

/// When to try again if there are too many streams.
const FULL_RETRY: Duration = Duration::from_secs(10);

/// A request for server-sent events: one with `Accept: text/event-stream`.
#[derive(Debug)]
pub struct EventStream {
    /// The positions that the client has seen: the header `Last-Event-ID` of a browser that
    /// reconnects, or else `?seen=orders:4711` of the first request.
    pub seen: Option<Positions>,
    place: Option<Place>,
    under_way: Option<UnderWay>,
}

impl EventStream {
    /// The answer with `events`, until they or the service end.
    pub fn respond(self, events: impl Stream<Item = sse::Event> + Send + 'static) -> Response {
        let Self {
            place, under_way, ..
        } = self;
        let (stop, number) = match &place {
            Some(place) => (place.streams.0.stop.clone(), place.number),
            None => (CancellationToken::new(), 0),
        };
        let address = place.as_ref().map(|place| place.address);
        let events = stream::unfold(Box::pin(events), move |mut events| async move {
            let event = match address {
                Some(address) => fair::on_behalf_of(address, events.next()).await,
                None => events.next().await,
            };
            Some((event?, events))
        });
        let first = sse::Event::default().retry(reconnect(number));
        let events = stream::once(std::future::ready(first)).chain(events);
        let events = events.take_until(stop.cancelled_owned()).map(move |event| {
            // Taken until the answer ends.
            let _ = &place;
            Ok::<_, Infallible>(event)
        });
        let heartbeat = KeepAlive::new().interval(HEARTBEAT);
        let answer = Sse::new(events).keep_alive(heartbeat).into_response();
        let (mut head, body) = answer.into_parts();
        let no_store = HeaderValue::from_static("no-store");
        head.headers.insert(header::CACHE_CONTROL, no_store);
        // nginx would collect events before it passes them on.
        let no = HeaderValue::from_static("no");
        head.headers.insert("x-accel-buffering", no);
        let counted = body.into_data_stream().then(move |event| {
            let under_way = under_way.clone();
            async move {
                let Some(under_way) = under_way else {
                    return event;
                };
                let counted = under_way.buffer(event?).await;
                // The client reconnects.
                counted.ok_or_else(|| axum::Error::new("there is no memory for the event"))
            }
        });
        Response::from_parts(head, Body::from_stream(counted))
    }
}

fn reconnect(number: u64) -> Duration {
    let spread = u32::try_from(number.wrapping_mul(0x9e37_79b9) % 2_000).unwrap_or(0);
    RECONNECT + RECONNECT * spread / 1_000
}

/// As `params` of a route, it documents both ways to say what the client has seen.
impl IntoParams for EventStream {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let (query, header) = (
            SeenQuery::into_params(|| None),
            SeenHeader::into_params(|| None),
        );
        query.into_iter().chain(header).collect()
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SeenQuery {
    /// For a stream: the positions that the client has seen. The stream begins with what has changed
    /// since.
    #[param(
        pattern = r"^[^:,\s]+:[0-9]{1,19}(,[^:,\s]+:[0-9]{1,19})*$",
        example = "orders:4711,users:12"
    )]
    seen: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documents the header")]
struct SeenHeader {
    /// For a stream: the same as `seen`, and takes precedence. Browsers send it when they reconnect.
    #[param(
        value_type = String,
        required = false,
        rename = "Last-Event-ID",
        pattern = "^([!-+.-9;-~]+:[0-9]{1,19}(,[!-+.-9;-~]+:[0-9]{1,19})*)?$",
        example = "orders:4711,users:12"
    )]
    last: Option<String>,
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for EventStream {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Problem> {
        let Query(SeenQuery { seen }) = Query::from_request_parts(parts, state).await?;
        let last = parts.headers.get("last-event-id").map(HeaderValue::to_str);
        let last = last.transpose().map_err(|_| {
            Problem::bad_request("Last-Event-ID contains something other than visible ASCII")
        })?;
        let seen = last.filter(|last| !last.is_empty()).or(seen.as_deref());
        let seen = seen.map(str::parse).transpose()?;
        if !is_asked_for(&parts.headers) {
            return Ok(None);
        }
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        // A router in a test has no server around it, and no limits.
        let place = match (parts.extensions.get::<Streams>(), peer) {
            (Some(streams), Some(ConnectInfo(peer))) => Some(streams.take(peer.ip())?),
            _ => None,
        };
        let under_way = parts.extensions.get().cloned();
        Ok(Some(Self {
            seen,
            place,
            under_way,
        }))
    }
}

fn is_asked_for(headers: &HeaderMap) -> bool {
    let kinds = headers.get_all(header::ACCEPT).iter();
    let mut kinds = kinds.filter_map(|kinds| kinds.to_str().ok());
    kinds.any(|kinds| {
        let mut kinds = kinds.split(',').filter_map(|kind| kind.split(';').next());
        kinds.any(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
    })
}

/// The streams of a listener. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Streams(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    /// No limit if `None`.
    per_address: Option<usize>,
    stop: CancellationToken,
    open: Mutex<Open>,
    gauge: Gauge,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    count: usize,
    per_address: HashMap<IpAddr, usize>,
}

impl Streams {
    /// Their limits, and what ends them.
    pub(crate) fn new(config: &Config, stop: CancellationToken) -> Self {
        // A quarter of the connections stay for requests: a stream is never closed for another.
        let most = (config.connections - config.connections / 4).max(1);
        let per_address = config.streams_per_address;
        let of_address = per_address.min((most / 2).max(1));
        let gauge = metrics::gauge!("headwater_http_streams");
        gauge.increment(0);
        Self(Arc::new(Shared {
            max: config.streams.min(most),
            per_address: (per_address > 0).then_some(of_address),
            stop,
            open: Mutex::default(),
            gauge,
        }))
    }

    fn take(&self, peer: IpAddr) -> Result<Place, Problem> {
        let address = network(peer);
        let mut open = self.open();
        let of_address = open.per_address.get(&address).copied().unwrap_or(0);
        if self.0.per_address.is_some_and(|most| of_address >= most) {
            return Err(Problem::too_many_requests(
                format!("your address already has {of_address} streams; end one, or try again"),
                FULL_RETRY,
            ));
        }
        if open.count >= self.0.max {
            return Err(Problem::unavailable(
                "too many clients follow already; try again, or read without a stream",
                FULL_RETRY,
            ));
        }
        open.count += 1;
        open.next += 1;
        *open.per_address.entry(address).or_default() += 1;
        self.0.gauge.increment(1);
        Ok(Place {
            streams: self.clone(),
            address,
            number: open.next,
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place for one stream, freed when dropped.
#[derive(Debug)]
struct Place {
    streams: Streams,
    address: IpAddr,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.open();
        open.count -= 1;
        if let Some(count) = open.per_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.per_address.remove(&self.address);
            }
        }
        drop(open);
        self.streams.0.gauge.decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Request, StatusCode};

    use super::*;

    fn streams(all: usize, per_address: usize) -> Streams {
        let config = Config {
            streams: all,
            streams_per_address: per_address,
            ..Config::default()
        };
        Streams::new(&config, CancellationToken::new())
    }

    #[test]
    fn streams_are_bounded_per_address_and_in_all() {
        let (one, other, third) = ([192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 3]);
        let bounded = streams(3, 2);
        let take = |address: [u8; 4]| bounded.take(address.into());
        let first = take(one).unwrap();
        let _second = take(one).unwrap();
        let refused = take(one).unwrap_err();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        let _third = take(other).unwrap();
        let refused = take(third).unwrap_err();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        let _again = take(one).unwrap();
        let unbounded = streams(3, 0);
        let all = [one; 3].map(|address| unbounded.take(address.into()).unwrap());
        drop(all);
        assert!(unbounded.open().per_address.is_empty());
    }

    #[test]
    fn streams_leave_connections_for_requests_and_for_other_addresses() {
        let (one, other) = ([192, 0, 2, 1], [192, 0, 2, 2]);
        for (connections, of_address, of_all) in [(8, 3, 6), (100, 37, 75), (1, 1, 1)] {
            let bounded = Streams::new(
                &Config {
                    connections,
                    streams: 1_000,
                    streams_per_address: 1_000,
                    ..Config::default()
                },
                CancellationToken::new(),
            );
            let take = |address: [u8; 4]| bounded.take(address.into()).ok();
            let ones: Vec<Place> = std::iter::from_fn(|| take(one)).take(1_000).collect();
            let others: Vec<Place> = std::iter::from_fn(|| take(other)).take(1_000).collect();
            assert_eq!(ones.len(), of_address, "of {connections} connections");
            assert_eq!(ones.len() + others.len(), of_all.min(2 * of_address));
        }
    }

    #[tokio::test]
    async fn the_reads_of_a_stream_take_turns_with_those_of_other_addresses() {
        let address = IpAddr::from([192, 0, 2, 1]);
        let stream = EventStream {
            seen: None,
            place: Some(streams(1, 0).take(address).unwrap()),
            under_way: None,
        };
        // What is read for an event is read on behalf of the stream's client.
        let reads = stream::once(async { sse::Event::default().data(fair::client().to_string()) });
        let body = stream.respond(reads).into_body();
        let body = axum::body::to_bytes(body, 1_000).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains("data: 192.0.2.1\n"), "{body}");
    }

    #[tokio::test]
    async fn a_client_that_reconnects_says_what_it_has_seen() {
        let asked = async |uri: &str, headers: &[(&str, &str)]| {
            let mut request = Request::builder().uri(uri);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            let stream: Result<Option<EventStream>, Problem> =
                <EventStream as OptionalFromRequestParts<()>>::from_request_parts(&mut parts, &())
                    .await;
            stream.map(|stream| stream.map(|stream| stream.seen.unwrap_or_default().to_string()))
        };
        let accept = ("accept", "text/html;q=0.1, Text/Event-Stream;q=1");
        let last = |id| ("last-event-id", id);
        for (uri, headers, seen) in [
            ("/", &[][..], None),
            ("/", &[("accept", "text/html")], None),
            ("/", &[accept], Some("")),
            ("/?seen=orders:7", &[accept], Some("orders:7")),
            ("/?seen=orders:7", &[accept, last("")], Some("orders:7")),
            (
                "/?seen=orders:7",
                &[accept, last("orders:9")],
                Some("orders:9"),
            ),
        ] {
            let seen = seen.map(str::to_owned);
            assert_eq!(asked(uri, headers).await, Ok(seen), "{uri} {headers:?}");
        }
        for (uri, headers) in [
            ("/?seen=7", &[accept][..]),
            ("/", &[accept, last("nonsense")]),
            ("/", &[last("nonsense")]),
        ] {
            let refused = asked(uri, headers).await.unwrap_err();
            assert_eq!(
                refused.status(),
                StatusCode::BAD_REQUEST,
                "{uri} {headers:?}"
            );
        }
    }

    #[test]
    fn clients_reconnect_at_different_times() {
        let times: Vec<Duration> = (0..100).map(reconnect).collect();
        let late = times.iter().filter(|time| **time > 2 * RECONNECT).count();
        assert!((30..70).contains(&late), "{late} of 100");
        assert!(
            times
                .iter()
                .all(|time| (RECONNECT..3 * RECONNECT).contains(time))
        );
    }
}
