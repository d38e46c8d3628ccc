//! Traces: spans from a client's request over database, outbox, stream and projection to the
//! answer, in the words and on the wire of OpenTelemetry.
//!
//! # What
//!
//! Off, and at no cost, until there is an OTLP endpoint ([`Config`](crate::otlp::Config)). Then a trace is
//!
//! ```text
//! POST /orders                         the request; its parent is the client's `traceparent`
//! └─ write                             until it is on the disk
//!    └─ publish orders.v1.placed       the relay, until the stream has it
//!       ├─ apply orders.v1.placed      each projection, until it is on the disk there
//!       └─ apply orders.v1.placed
//! ```
//!
//! and whatever a request reads, waits for or asks of others lies below it likewise.
//!
//! # How it goes from one to the other
//!
//! Within a task by OpenTelemetry's own [`Context`]; to the writer thread with the closure, which
//! `outbox::append` takes it from into the event's row; from there into
//! the header `traceparent` of the event, as W3C has it. What is not sampled leaves no trace in
//! outbox or stream.
//!
//! # Why without `tracing`'s spans
//!
//! Those exist for log lines. Here a span is an argument that is seen being made, only these are
//! sent, whatever libraries do, and where nothing is sent nothing is made.

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

/// The header of a trace, as W3C names it.
pub const TRACEPARENT: &str = "traceparent";

/// One a process, as the recorder of metrics is; nothing while traces are off.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// From now on spans are sent.
pub(crate) fn begin_with(tracer: SdkTracer) {
    // A second one is not taken: `init` runs once a process.
    let _ = TRACER.set(tracer);
}

/// Something that takes time, until it is dropped. Nothing where traces are off.
#[derive(Debug, Default)]
pub struct Span(Option<Context>);

/// Begins what `traceparent` has caused, or, without one, what begins here.
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

/// Begins a part of what is under way in this task. Nothing where that is not traced.
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

/// Whether spans are sent.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// All of `spans` went wrong.
pub fn fail_all(spans: &[Span], why: &impl Display) {
    for span in spans {
        span.fail(why);
    }
}

impl Span {
    /// Whether anybody will see it: what it costs something to say can be left out otherwise.
    pub fn is_recording(&self) -> bool {
        self.recording().is_some()
    }

    /// Adds a fact.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(context) = self.recording() {
            context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Adds a number.
    pub fn set_number(&self, key: &'static str, number: u64) {
        self.set(key, i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Notes that it went wrong.
    pub fn fail(&self, why: &impl Display) {
        if let Some(context) = self.recording() {
            context.span().set_status(Status::error(why.to_string()));
        }
    }

    /// Does `work` in it: what is traced meanwhile is a part of it.
    pub async fn around<F: Future>(&self, work: F) -> F::Output {
        match &self.0 {
            Some(context) => work.with_context(context.clone()).await,
            None => work.await,
        }
    }

    /// What others are told, so that what they do for it is a part of it.
    pub fn traceparent(&self) -> Option<String> {
        self.0.as_ref().and_then(injected)
    }

    /// The same for what outlives the request: nothing of what is not sampled.
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

/// The one header of a carrier.
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
        let told = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(injected(&extracted(told)).as_deref(), Some(told));
        for wrong in ["", "00", "00-0-0-01", &told.to_uppercase(), &told[..50]] {
            assert_eq!(injected(&extracted(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn without_an_endpoint_nothing_is_made() {
        let told = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let never = || -> &str { unreachable!("not even a name") };
        let span = caused(Some(told), SpanKind::Server, never);
        assert!(span.0.is_none());
        assert_eq!(span.traceparent(), None);
        assert!(part(SpanKind::Internal, never).0.is_none());
    }
}
