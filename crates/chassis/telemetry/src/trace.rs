//! Traces: OpenTelemetry spans from a client's request through database, outbox, stream and
//! projection to the answer.
//!
//! # What
//!
//! Tracing is off, at no cost, until an OTLP endpoint is configured
//! ([`Config`](crate::otlp::Config)). Then a trace is
//!
//! ```text
//! POST /orders                         the request; its parent is the client's `traceparent`
//! └─ write                             until it is on the disk
//!    └─ publish orders.v1.placed       the relay, until the stream has it
//!       ├─ apply orders.v1.placed      each projection, until it is on the disk there
//!       └─ apply orders.v1.placed
//! ```
//!
//! The reads, waits and requests that a request causes are also below it.
//!
//! # How the context is passed on
//!
//! Within a task, OpenTelemetry's [`Context`] carries it. It reaches the writer thread with the
//! closure, where `outbox::append` stores it in the event's row. The relay sends it in the event's
//! W3C header `traceparent`. Unsampled requests leave no trace context in outbox or stream.
//!
//! # Why not `tracing`'s spans
//!
//! Those exist for log lines. Here, spans are explicit values. Only these are sent, whatever
//! libraries do, and no span is created while tracing is off.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::OnceLock;

use opentelemetry::context::FutureExt as _;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{SpanBuilder, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracer;

pub use opentelemetry::trace::SpanKind;

/// The W3C header of a trace context.
pub const TRACEPARENT: &str = "traceparent";

/// One per process, like the recorder of metrics; unset while tracing is off.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Starts tracing with `tracer`.
pub(crate) fn begin_with(tracer: SdkTracer) {
    // `init` runs once per process, so there is no second tracer.
    let _ = TRACER.set(tracer);
}

/// A span; it ends when dropped. Empty while tracing is off.
#[derive(Debug, Default)]
pub struct Span(Option<Context>);

/// Begins a span with `traceparent` as its parent; without one, a new trace.
pub fn caused<N: Into<Cow<'static, str>>>(
    traceparent: Option<&str>,
    kind: SpanKind,
    name: impl FnOnce() -> N,
) -> Span {
    let Some(tracer) = TRACER.get() else {
        return Span::default();
    };
    let parent = traceparent.map_or_else(Context::new, extracted);
    begun(tracer, &parent, kind, name().into())
}

/// Begins a child of the current task's span. Empty if the task has none.
pub fn part<N: Into<Cow<'static, str>>>(kind: SpanKind, name: impl FnOnce() -> N) -> Span {
    let Some(tracer) = TRACER.get() else {
        return Span::default();
    };
    let parent = Context::current();
    if !parent.has_active_span() {
        return Span::default();
    }
    begun(tracer, &parent, kind, name().into())
}

fn begun(tracer: &SdkTracer, parent: &Context, kind: SpanKind, name: Cow<'static, str>) -> Span {
    let span = SpanBuilder::from_name(name).with_kind(kind);
    Span(Some(
        parent.with_span(tracer.build_with_context(span, parent)),
    ))
}

/// Whether tracing is on.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// Marks all `spans` as failed.
pub fn fail_all(spans: &[Span], why: &impl Display) {
    for span in spans {
        span.fail(why);
    }
}

impl Span {
    /// Whether the span is recorded. If not, the caller can skip computing costly attributes.
    pub fn is_recording(&self) -> bool {
        self.recording().is_some()
    }

    /// Adds an attribute.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(context) = self.recording() {
            context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Adds a numeric attribute.
    pub fn set_number(&self, key: &'static str, number: u64) {
        self.set(key, i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Marks the span as failed.
    pub fn fail(&self, why: &impl Display) {
        if let Some(context) = self.recording() {
            context.span().set_status(Status::error(why.to_string()));
        }
    }

    /// Runs `work` in this span: spans that begin meanwhile are its children.
    pub async fn around<F: Future>(&self, work: F) -> F::Output {
        match &self.0 {
            Some(context) => work.with_context(context.clone()).await,
            None => work.await,
        }
    }

    /// The trace context to send to other services, whose spans become children.
    pub fn traceparent(&self) -> Option<String> {
        self.0.as_ref().and_then(injected)
    }

    /// The trace context to store for work that outlives the request; `None` if not sampled.
    pub fn kept_traceparent(&self) -> Option<String> {
        self.recording().and_then(injected)
    }

    fn recording(&self) -> Option<&Context> {
        let context = self.0.as_ref();
        context.filter(|context| context.span().is_recording())
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

/// A carrier with a single header.
struct Header(Option<String>);

impl Extractor for Header {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.as_deref().filter(|_| key == TRACEPARENT)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

impl Injector for Header {
    fn set(&mut self, key: &str, value: String) {
        if key == TRACEPARENT {
            self.0 = Some(value);
        }
    }
}

fn extracted(traceparent: &str) -> Context {
    let carrier = Header(Some(traceparent.to_owned()));
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}

fn injected(context: &Context) -> Option<String> {
    let mut carrier = Header(None);
    TraceContextPropagator::new().inject_context(context, &mut carrier);
    carrier.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_told_on_as_it_came() {
        let sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(injected(&extracted(sent)).as_deref(), Some(sent));
        for wrong in ["", "00", "00-0-0-01", &sent.to_uppercase(), &sent[..50]] {
            assert_eq!(injected(&extracted(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn without_an_endpoint_nothing_is_made() {
        let sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let never = || -> &str { unreachable!("not even a name") };
        let span = caused(Some(sent), SpanKind::Server, never);
        assert!(span.0.is_none());
        assert_eq!(span.traceparent(), None);
        assert!(part(SpanKind::Internal, never).0.is_none());
    }
}
