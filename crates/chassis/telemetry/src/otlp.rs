//! Sends spans with OTLP over HTTP, on a separate thread.
//!
//! A span that ends is put into a bounded queue. If the endpoint is slow or unreachable, the queue
//! fills up, and further spans are dropped and counted; no caller waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    self as sdk, BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter,
    SpanProcessor,
};
use prost::Message as _;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use crate::error::Error;

/// The maximum number of waiting spans; further ones are dropped.
const QUEUE: usize = 2048;

/// The maximum number of spans in a batch, and how long a span waits for others.
const BATCH_MAX: usize = 512;
const GATHER: Duration = Duration::from_secs(1);

/// The pauses between the attempts to send a batch; after the last attempt it is dropped.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(400)];

/// How long a stopping process waits to send the remaining spans.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Whether and where traces are sent. The environment variables are those of OpenTelemetry.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Traces")]
pub struct Config {
    /// URL of an OpenTelemetry collector that takes OTLP over HTTP, such as
    /// `http://127.0.0.1:4318`; without it, tracing is off
    #[arg(
        long = "otlp-endpoint",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        value_name = "URL"
    )]
    pub endpoint: Option<String>,
    /// Timeout for sending spans, in milliseconds
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
    /// Share of the requests that a sampler with `traceidratio` in its name traces, 0 to 1
    #[arg(long = "traces-sampler-arg", env = "OTEL_TRACES_SAMPLER_ARG", value_parser = share)]
    pub share: Option<f64>,
    /// Name of the service in traces, instead of its usual name
    #[arg(long = "traces-service-name", env = "OTEL_SERVICE_NAME")]
    pub service_name: Option<String>,
}

/// Which requests are traced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Sampler {
    /// All.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// A share of the requests, whatever the client decided.
    #[value(name = "traceidratio")]
    Ratio,
    /// As the client decided; all requests without a decision.
    #[default]
    #[value(name = "parentbased_always_on")]
    ParentBasedAlwaysOn,
    /// As the client decided; none of the requests without a decision.
    #[value(name = "parentbased_always_off")]
    ParentBasedAlwaysOff,
    /// As the client decided; a share of the requests without a decision.
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

    /// Checks that the endpoint is valid.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self) -> Result<(), Error> {
        let target = self.target().map(drop);
        target.map_err(|error| Error::Setting(error.into()))
    }

    /// The URL to which spans are posted, if tracing is on.
    fn target(&self) -> anyhow::Result<Option<Uri>> {
        // An empty variable counts as unset.
        let endpoint = self.endpoint.as_deref().filter(|text| !text.is_empty());
        endpoint
            .map(|text| {
                parse(text)
                    .with_context(|| format!("read the OTLP endpoint `{text}` (--otlp-endpoint)"))
            })
            .transpose()
    }
}

fn parse(endpoint: &str) -> anyhow::Result<Uri> {
    let target: Uri = format!("{}/v1/traces", endpoint.trim_end_matches('/'))
        .parse()
        .context("it is not a URL")?;
    ensure!(
        target.scheme_str() == Some("http"),
        "it must begin with http://; for TLS, run a collector next to the service"
    );
    Ok(target)
}

/// Starts sending spans if there is an endpoint. Dropping the guard sends the remaining spans.
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
    let waiting = Arc::new(AtomicUsize::new(0));
    let exporter = Exporter {
        target,
        within: Duration::from_millis(config.timeout_ms),
        resource: (&resource).into(),
        client: Client::builder(TokioExecutor::new())
            // The runtime does not run between batches, so no connection can stay open.
            .pool_max_idle_per_host(0)
            .build_http(),
        runtime: Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start a runtime for traces")?,
        waiting: Arc::clone(&waiting),
        is_away: AtomicBool::new(false),
    };
    let provider = SdkTracerProvider::builder()
        .with_sampler(config.sampler())
        .with_resource(resource)
        .with_span_processor(Queue {
            waiting,
            batches: batches(exporter),
        })
        .build();
    crate::trace::begin_with(provider.tracer("headwater"));
    Ok(Some(Sending(provider)))
}

/// Gathers spans and passes them to `exporter`, on a separate thread.
fn batches(exporter: Exporter) -> BatchSpanProcessor {
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH_MAX)
        .with_scheduled_delay(GATHER)
        .build();
    BatchSpanProcessor::builder(exporter)
        .with_batch_config(config)
        .build()
}

/// Sends spans until it is dropped. The drop sends the remaining spans, within `FLUSH_MAX`.
#[derive(Debug)]
pub(super) struct Sending(SdkTracerProvider);

impl Drop for Sending {
    fn drop(&mut self) {
        // The thread has ended, or it took too long.
        let _ = self.0.shutdown_with_timeout(FLUSH_MAX);
    }
}

const EXPORTED: &str = "exported";
const DROPPED: &str = "dropped";
const FAILED: &str = "failed";

fn count(outcome: &'static str, spans: usize) {
    metrics::counter!("headwater_trace_spans_total", "outcome" => outcome).increment(spans as u64);
}

/// Limits the number of waiting spans, because [`BatchSpanProcessor`] drops spans without counting
/// them.
#[derive(Debug)]
struct Queue {
    waiting: Arc<AtomicUsize>,
    batches: BatchSpanProcessor,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut sdk::Span, _context: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < QUEUE {
            self.batches.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            count(DROPPED, 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, within: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(within)
    }
}

/// Sends spans, on the thread of [`BatchSpanProcessor`].
#[derive(Debug)]
struct Exporter {
    target: Uri,
    within: Duration,
    resource: ResourceAttributesWithSchema,
    client: Client<HttpConnector, Full<Bytes>>,
    runtime: Runtime,
    /// The number of spans in the queue.
    waiting: Arc<AtomicUsize>,
    /// Whether the last batch was not delivered.
    is_away: AtomicBool,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        // The thread belongs to no runtime, so the exporter has its own.
        let sent = self.runtime.block_on(self.send(batch));
        count(if sent.is_ok() { EXPORTED } else { FAILED }, spans);
        self.log_change(sent.err());
        Ok(())
    }
}

impl Exporter {
    async fn send(&self, batch: Vec<SpanData>) -> anyhow::Result<()> {
        let spans = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(batch, &self.resource),
        };
        let request = Request::post(&self.target)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .body(Full::from(spans.encode_to_vec()))
            .context("build the request")?;
        for pause in PAUSES {
            if self.post(request.clone()).await.is_ok() {
                return Ok(());
            }
            sleep(pause).await;
        }
        self.post(request).await
    }

    async fn post(&self, request: Request<Full<Bytes>>) -> anyhow::Result<()> {
        let answer = timeout(self.within, self.client.request(request)).await;
        let status = answer.context("it timed out")??.status();
        ensure!(status.is_success(), "the endpoint answered {status}");
        Ok(())
    }

    /// Logs once that the endpoint is unreachable, and once that it is back.
    fn log_change(&self, failure: Option<anyhow::Error>) {
        let endpoint = self.target.authority().map(tracing::field::display);
        let was_away = self.is_away.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) if !was_away => tracing::warn!(
                endpoint,
                error = crate::causes(error.as_ref()),
                "traces cannot be delivered: spans are lost until the endpoint is back"
            ),
            None if was_away => tracing::info!(endpoint, "traces are delivered again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_where_its_path_says() {
        for (endpoint, target) in [
            ("http://collector", "http://collector/v1/traces"),
            (
                "http://collector:4318/tenant/",
                "http://collector:4318/tenant/v1/traces",
            ),
        ] {
            assert_eq!(parse(endpoint).unwrap(), target);
        }
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
