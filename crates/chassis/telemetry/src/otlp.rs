//! Sending spans: OTLP over HTTP, from a thread of its own.
//!
//! Whoever ends a span puts it into a bounded queue and goes on. Where the endpoint is slow or
//! away, the queue fills up and what does not fit is dropped and counted; nobody waits.

use std::pin::pin;
use std::sync::mpsc as blocking;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use axum::body::Body;
use axum::http::{Request, Uri, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{self as sdk, SdkTracerProvider, SpanData, SpanProcessor};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// Spans that may wait to be sent; further ones are dropped.
const QUEUE: usize = 2048;

/// Spans that are sent at once, and how long one waits for others.
const BATCH_MAX: usize = 512;
const GATHER: Duration = Duration::from_secs(1);

/// How often a batch is sent before it is given up, and the pause in between.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// How long the process stays for what waits when it stops.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Whether and where traces are sent; the variables are OpenTelemetry's own.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Traces")]
pub struct Config {
    /// Where an OpenTelemetry collector takes OTLP over HTTP, as in `http://127.0.0.1:4318`;
    /// without it there are no traces
    #[arg(
        long = "otlp-endpoint",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        value_name = "URL"
    )]
    pub endpoint: Option<String>,
    /// Milliseconds that sending spans may take
    #[arg(
        long = "otlp-timeout-ms",
        env = "OTEL_EXPORTER_OTLP_TIMEOUT",
        default_value_t = 10_000
    )]
    pub timeout_ms: u64,
    /// Which requests are traced
    #[arg(
        long = "traces-sampler",
        env = "OTEL_TRACES_SAMPLER",
        value_enum,
        default_value = "parentbased_always_on"
    )]
    pub sampler: Sampler,
    /// The share of the requests that a sampler with `traceidratio` in its name takes, 0 to 1
    #[arg(long = "traces-sampler-arg", env = "OTEL_TRACES_SAMPLER_ARG", value_parser = share)]
    pub share: Option<f64>,
    /// What the service is called in traces, instead of its own name
    #[arg(long = "traces-service-name", env = "OTEL_SERVICE_NAME")]
    pub service_name: Option<String>,
}

/// Which requests are traced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Sampler {
    /// All.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// A share of them, whatever the client says.
    #[value(name = "traceidratio")]
    Ratio,
    /// What the client says, all of those that say nothing.
    #[default]
    #[value(name = "parentbased_always_on")]
    ParentBasedAlwaysOn,
    /// What the client says, none of those that say nothing.
    #[value(name = "parentbased_always_off")]
    ParentBasedAlwaysOff,
    /// What the client says, a share of those that say nothing.
    #[value(name = "parentbased_traceidratio")]
    ParentBasedRatio,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("give a number from 0 to 1, as in 0.05".to_owned()),
    }
}

impl Config {
    fn sampler(&self) -> sdk::Sampler {
        use sdk::Sampler::{AlwaysOff, AlwaysOn, ParentBased, TraceIdRatioBased};
        let ratio = TraceIdRatioBased(self.share.unwrap_or(1.0));
        match self.sampler {
            Sampler::AlwaysOn => AlwaysOn,
            Sampler::AlwaysOff => AlwaysOff,
            Sampler::Ratio => ratio,
            Sampler::ParentBasedAlwaysOn => ParentBased(Box::new(AlwaysOn)),
            Sampler::ParentBasedAlwaysOff => ParentBased(Box::new(AlwaysOff)),
            Sampler::ParentBasedRatio => ParentBased(Box::new(ratio)),
        }
    }

    /// Whether the endpoint is one.
    pub fn check(&self) -> anyhow::Result<()> {
        self.target().map(drop)
    }

    /// Where spans are posted to, if they are.
    fn target(&self) -> anyhow::Result<Option<Target>> {
        // An empty variable is one that is not set.
        let endpoint = self.endpoint.as_deref().filter(|text| !text.is_empty());
        endpoint
            .map(|text| {
                Target::parse(text)
                    .with_context(|| format!("read the OTLP endpoint `{text}` (--otlp-endpoint)"))
            })
            .transpose()
    }
}

/// Begins to send what is traced, where there is an endpoint. What waits is sent when the guard
/// is dropped.
pub(super) fn start(service: &str, config: &Config) -> anyhow::Result<Option<Sending>> {
    let Some(target) = config.target()? else {
        return Ok(None);
    };
    let name = config.service_name.as_deref().unwrap_or(service).to_owned();
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder()
        .with_service_name(name)
        .with_attribute(version)
        .build();
    for outcome in [EXPORTED, DROPPED, FAILED] {
        count(outcome, 0);
    }
    let (sender, spans) = mpsc::channel(QUEUE);
    let (stop, within) = (
        CancellationToken::new(),
        Duration::from_millis(config.timeout_ms),
    );
    let (ended_sender, ended) = blocking::channel();
    let mut exporter = Exporter {
        target,
        within,
        resource: (&resource).into(),
        is_away: false,
    };
    let until = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime for traces")?;
    std::thread::Builder::new()
        .name("traces".to_owned())
        .spawn(move || {
            runtime.block_on(exporter.run(spans, until));
            drop(ended_sender);
        })
        .context("start a thread for traces")?;
    let provider = SdkTracerProvider::builder()
        .with_sampler(config.sampler())
        .with_resource(resource)
        .with_span_processor(Queue(sender))
        .build();
    crate::trace::begin_with(provider.tracer("headwater"));
    Ok(Some(Sending { stop, ended }))
}

/// Spans are sent until it is dropped, and then what waits, for as long as that may take.
#[derive(Debug)]
pub(super) struct Sending {
    stop: CancellationToken,
    ended: blocking::Receiver<()>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.stop.cancel();
        // Either the thread has ended or it has taken too long.
        let _ = self.ended.recv_timeout(FLUSH_MAX);
    }
}

const EXPORTED: &str = "exported";
const DROPPED: &str = "dropped";
const FAILED: &str = "failed";

fn count(outcome: &'static str, spans: usize) {
    metrics::counter!("headwater_trace_spans_total", "outcome" => outcome).increment(spans as u64);
}

/// Where spans wait.
#[derive(Debug)]
struct Queue(mpsc::Sender<SpanData>);

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut sdk::Span, _context: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if self.0.try_send(span).is_err() {
            count(DROPPED, 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _within: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The address of a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    authority: String,
    address: String,
    path: String,
}

impl Target {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let uri: Uri = text.parse().context("it is no URL")?;
        ensure!(
            uri.scheme_str() == Some("http"),
            "it has to begin with http://: let a collector beside the service carry the spans \
             over TLS"
        );
        let authority = uri.authority().context("it names no host")?;
        let port = uri.port_u16().unwrap_or(80);
        Ok(Self {
            authority: authority.to_string(),
            address: format!("{}:{port}", authority.host()),
            path: format!("{}/v1/traces", uri.path().trim_end_matches('/')),
        })
    }
}

/// Takes spans from the queue and sends them.
struct Exporter {
    target: Target,
    within: Duration,
    resource: ResourceAttributesWithSchema,
    /// Whether the last batch was not delivered.
    is_away: bool,
}

impl Exporter {
    /// Sends what comes until `stop`, then what waits, for [`FLUSH_MAX`] at most.
    async fn run(&mut self, mut spans: mpsc::Receiver<SpanData>, stop: CancellationToken) {
        let too_late = async {
            stop.cancelled().await;
            sleep(FLUSH_MAX).await;
        };
        let mut too_late = pin!(too_late);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                () = gather(&mut spans, &mut batch) => {}
                () = stop.cancelled() => {
                    while batch.len() < BATCH_MAX && let Ok(span) = spans.try_recv() {
                        batch.push(span);
                    }
                    if batch.is_empty() {
                        return;
                    }
                }
            }
            tokio::select! {
                () = self.export(std::mem::take(&mut batch)) => {}
                () = &mut too_late => return,
            }
        }
    }

    async fn export(&mut self, batch: Vec<SpanData>) {
        let spans = batch.len();
        let request = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(batch, &self.resource),
        };
        let body = request.encode_to_vec();
        let sent = self.send(&body).await;
        count(if sent.is_ok() { EXPORTED } else { FAILED }, spans);
        self.tell(sent.err());
    }

    async fn send(&self, body: &[u8]) -> anyhow::Result<()> {
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS {
            if self.post(body).await.is_ok() {
                return Ok(());
            }
            sleep(pause).await;
            pause *= 2;
        }
        self.post(body).await
    }

    /// One request, on a connection of its own: there is one a second at most.
    async fn post(&self, body: &[u8]) -> anyhow::Result<()> {
        let Target {
            authority,
            address,
            path,
        } = &self.target;
        let request = Request::post(path)
            .header(header::HOST, authority)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::CONNECTION, "close")
            .body(Body::from(body.to_vec()))
            .context("make a request")?;
        let posting = async {
            let stream = TcpStream::connect(address).await.context("connect")?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            let mut answered = pin!(sender.send_request(request));
            let answer = tokio::select! {
                biased;
                answer = &mut answered => answer,
                // With the answer, or with why there is none.
                _ = connection => answered.await,
            };
            let status = answer.context("send")?.status();
            if !status.is_success() {
                bail!("the answer is {status}");
            }
            Ok(())
        };
        timeout(self.within, posting)
            .await
            .context("it took too long")?
    }

    /// Says once that the endpoint is away, and once that it is back.
    fn tell(&mut self, failure: Option<anyhow::Error>) {
        let endpoint = &self.target.authority;
        let was_away = std::mem::replace(&mut self.is_away, failure.is_some());
        match failure {
            Some(error) if !was_away => tracing::warn!(
                endpoint,
                error = format!("{error:#}"),
                "traces cannot be delivered: spans are lost until they can"
            ),
            None if was_away => tracing::info!(endpoint, "traces are delivered again"),
            _ => {}
        }
    }
}

/// Puts the next span into `batch`, and what comes soon after it. What is in there stays if it is
/// not waited for.
async fn gather(spans: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>) {
    let Some(first) = spans.recv().await else {
        // Nobody is left who could end a span.
        return std::future::pending().await;
    };
    batch.push(first);
    let deadline = Instant::now() + GATHER;
    while batch.len() < BATCH_MAX
        && let Ok(Some(span)) = timeout_at(deadline, spans.recv()).await
    {
        batch.push(span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_where_its_path_says() {
        let target = Target::parse("http://collector:4318/tenant/").unwrap();
        assert_eq!(target.address, "collector:4318");
        assert_eq!(target.path, "/tenant/v1/traces");
        assert_eq!(
            Target::parse("http://collector").unwrap().path,
            "/v1/traces"
        );
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_the_flag_that_gave_it() {
        for wrong in ["https://collector:4318", "collector:4318", "http://", "/v1"] {
            let endpoint = Some(wrong.to_owned());
            let config = Config {
                endpoint,
                ..Config::default()
            };
            let refused = config.target().expect_err(wrong);
            assert!(
                format!("{refused:#}").contains("--otlp-endpoint"),
                "{refused:#}"
            );
        }
        let empty = Config {
            endpoint: Some(String::new()),
            ..Config::default()
        };
        assert_eq!(
            empty.target().unwrap(),
            None,
            "an empty variable is not set"
        );
    }
}
