//! Sends spans to a collector: OTLP over HTTP, as protobuf, in batches, from one task beside everything else.
//!
//! A rejected batch is retried a few times, for some seconds at most; then it is dropped and counted. Meanwhile spans
//! wait in the tracer's queue, which drops the excess.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, StatusCode, Url, redirect};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::otlp::{ExportTraceServiceResponse, Sender};
use super::record::SpanRecord;
use super::tracer::{Counts, Tracer};

/// Maximum number of spans per request.
const BATCH_MAX: usize = 512;
/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_millis(500);
/// One request, from the connection to the end of its response.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// Attempts per batch, and the pause before the second one, which doubles.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(250);
/// Maximum size of a response.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

/// The destination of spans.
#[derive(Debug)]
pub struct ExportSettings {
    /// The collector's URL, without `/v1/traces`.
    pub endpoint: Url,
    pub headers: HeaderMap,
    pub sample: f64,
    /// The name of the server for the collector.
    pub service_name: String,
    /// The node among those that share a log; empty if it has no name.
    pub node: String,
}

/// The exporter of this process.
#[derive(Debug)]
pub struct Exporter {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Starts it, and makes its tracer that of the process.
    pub fn start(settings: ExportSettings) -> Result<Exporter, String> {
        let counts = Arc::<Counts>::default();
        let (tracer, queue) = Tracer::new(settings.sample, Arc::clone(&counts));
        let exporter = Exporter::spawn(settings, queue, counts)?;
        tracer.install();
        Ok(exporter)
    }

    fn spawn(
        settings: ExportSettings,
        queue: mpsc::Receiver<SpanRecord>,
        counts: Arc<Counts>,
    ) -> Result<Exporter, String> {
        let ExportSettings { endpoint, headers, service_name, node, .. } = settings;
        let mut about = vec![("service.name", service_name.as_str()), ("service.version", env!("CARGO_PKG_VERSION"))];
        if !node.is_empty() {
            about.push(("service.instance.id", &node));
        }
        let collector = Collector {
            client: client(headers)?,
            url: traces_of(&endpoint),
            sender: Sender::new(&about),
            counts,
            is_silent: false,
        };
        let (stop, stopped) = oneshot::channel();
        Ok(Exporter { stop, task: tokio::spawn(run(queue, collector, stopped)) })
    }

    /// Sends what waits, within a time; what is left then is lost.
    pub async fn close(self, within: Duration) {
        let Exporter { stop, mut task } = self;
        let _ = stop.send(());
        if timeout(within, &mut task).await.is_err() {
            task.abort();
            tracing::warn!("the collector of traces did not accept the last spans within {within:?}");
        }
    }
}

/// `/v1/traces` below the endpoint, as OTLP has it.
fn traces_of(endpoint: &Url) -> Url {
    let mut url = endpoint.clone();
    let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

fn client(mut headers: HeaderMap) -> Result<Client, String> {
    // An error means that a provider is there already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    let builder = |headers| {
        Client::builder()
            .default_headers(headers)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .timeout(REQUEST_MAX)
            .user_agent(concat!("snaphook/", env!("CARGO_PKG_VERSION")))
    };
    // A machine without any certificate can still speak plain HTTP; TLS then trusts nobody.
    let built = builder(headers.clone()).build().or_else(|_| builder(headers).tls_certs_only([]).build());
    built.map_err(|error| format!("the HTTP client cannot start: {error}"))
}

async fn run(mut queue: mpsc::Receiver<SpanRecord>, mut collector: Collector, mut stopped: oneshot::Receiver<()>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut is_stopping = false;
    loop {
        tokio::select! {
            count = queue.recv_many(&mut batch, BATCH_MAX) => if count == 0 { return },
            _ = &mut stopped, if !is_stopping => {
                is_stopping = true;
                // What is there still comes; then the queue is at its end.
                queue.close();
                continue;
            }
        }
        let until = Instant::now() + GATHER;
        while batch.len() < BATCH_MAX && !is_stopping {
            let room = BATCH_MAX - batch.len();
            tokio::select! {
                count = queue.recv_many(&mut batch, room) => if count == 0 { break },
                () = sleep_until(until) => break,
                _ = &mut stopped => {
                    is_stopping = true;
                    queue.close();
                }
            }
        }
        collector.send(&batch).await;
        batch.clear();
    }
}

/// What takes the spans.
struct Collector {
    client: Client,
    url: Url,
    sender: Sender,
    counts: Arc<Counts>,
    /// The last batch was not taken, which was logged.
    is_silent: bool,
}

/// Why a batch was not taken.
struct Refusal {
    reason: String,
    may_pass: bool,
}

impl Collector {
    async fn send(&mut self, batch: &[SpanRecord]) {
        let body = bytes::Bytes::from(self.sender.request(batch));
        let mut pause = PAUSE;
        for attempt in 1.. {
            match self.try_send(body.clone()).await {
                Ok(rejected) => {
                    let rejected = rejected.min(batch.len() as u64);
                    self.counts.exported.fetch_add(batch.len() as u64 - rejected, Ordering::Relaxed);
                    self.counts.not_taken.fetch_add(rejected, Ordering::Relaxed);
                    if std::mem::take(&mut self.is_silent) {
                        tracing::info!("the collector of traces accepts spans again");
                    }
                    return;
                }
                Err(refusal) if refusal.may_pass && attempt < TRIES => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(refusal) => {
                    self.counts.not_taken.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    if !std::mem::replace(&mut self.is_silent, true) {
                        tracing::warn!(
                            "the collector of traces accepts no spans, they are dropped: {}",
                            refusal.reason
                        );
                    }
                    return;
                }
            }
        }
    }

    /// Returns how many spans of the batch the collector rejected.
    async fn try_send(&self, body: bytes::Bytes) -> Result<u64, Refusal> {
        let failed = |error: reqwest::Error| {
            // Its address may hold a password.
            let error = error.without_url();
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Refusal { reason: format!("{error}{cause}"), may_pass: true }
        };
        let mut response = self.client.post(self.url.clone()).body(body).send().await.map_err(failed)?;
        let status = response.status();
        if !status.is_success() {
            let may_pass = matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            );
            return Err(Refusal { reason: format!("it returned {status}"), may_pass });
        }
        let mut answer = Vec::new();
        // Once it has said that it took them, sending them again would only make doubles.
        while let Ok(Some(chunk)) = response.chunk().await {
            if answer.len() + chunk.len() > RESPONSE_BYTES_MAX {
                return Ok(0);
            }
            answer.extend_from_slice(&chunk);
        }
        // One that says something else took them all the same.
        let answer = ExportTraceServiceResponse::decode(&answer[..]).unwrap_or_default();
        Ok(answer.partial_success.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0)))
    }
}
