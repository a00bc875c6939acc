//! Logs, metrics and traces: no personal data in any of them.
//!
//! Logs go to standard error, for people or as JSON. Metrics are kept in this process and read at `/metrics`. Traces go
//! to an OpenTelemetry collector if `[telemetry] otlp_endpoint` names one.

use std::{io::IsTerminal, time::Duration};

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{LogFormat, Telemetry as Settings};

const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Upper bounds of every histogram whose name ends in `_seconds`, in seconds.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0];

/// Keeps logs and traces going. Call [`Self::shutdown`] at the end, so that the last spans arrive.
#[must_use]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// How much a command says beside its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// A process that serves: what the settings say.
    Serving,
    /// A command that ends: warnings alone, unless RUST_LOG asks for more.
    Quiet,
}

/// Starts logging, and tracing if a collector is named; `collector` calls it.
///
/// # Errors
/// The filter or the endpoint cannot be read.
pub fn init(settings: &Settings, voice: Voice, collector: Option<reqwest::Client>) -> anyhow::Result<Telemetry> {
    let directives = match (std::env::var("RUST_LOG"), voice) {
        (Ok(directives), _) if !directives.is_empty() => directives,
        (_, Voice::Serving) => settings.filter.clone(),
        (_, Voice::Quiet) => "warn".to_owned(),
    };
    let filter = EnvFilter::try_new(&directives)
        .with_context(|| format!("`telemetry.filter` is `{directives}`: write a level, or `info,sqlx=warn`"))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match settings.format {
        LogFormat::Pretty => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
    };
    let traces = match (&settings.otlp_endpoint, collector) {
        (Some(endpoint), Some(client)) if voice == Voice::Serving => Some(tracer_provider(endpoint, client)?),
        _ => None,
    };
    let spans = traces.as_ref().map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("muneem")));
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(spans)
        .try_init()
        .context("logging was started before: start it once a process")?;
    Ok(Telemetry { traces })
}

impl Telemetry {
    /// Sends what is still waiting to the collector.
    pub async fn shutdown(self) {
        let Some(traces) = self.traces else { return };
        // Flushing blocks until the exporter's thread is done, and that thread needs this runtime.
        let flushed = tokio::task::spawn_blocking(move || traces.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "the last traces did not reach the collector");
        }
    }
}

/// Installs the recorder behind the `metrics` macros, once a process; the handle renders what it holds.
///
/// # Errors
/// Another recorder is installed.
pub fn metrics() -> anyhow::Result<PrometheusHandle> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .context("the list of buckets is not empty")?
        .install_recorder()
        .context("metrics were started before: start them once a process")
}

fn tracer_provider(endpoint: &str, client: reqwest::Client) -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(OnThisRuntime { client, runtime: tokio::runtime::Handle::current() })
        .with_endpoint(endpoint)
        .build()
        .with_context(|| format!("`telemetry.otlp_endpoint` is `{endpoint}`: name the URL of a collector"))?;
    let resource = Resource::builder()
        .with_service_name("muneem")
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// The exporter works on a thread of its own, where reqwest finds no reactor: its calls are carried over here.
#[derive(Debug)]
struct OnThisRuntime {
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

#[async_trait::async_trait]
impl HttpClient for OnThisRuntime {
    async fn send_bytes(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}
