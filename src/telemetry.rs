//! What operators see: log lines and metrics.
//!
//! Every module may record here. Must not know jobs beyond names and numbers, and must never be
//! given a secret.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    r#type: String,
    outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue: String,
    phase: String,
}

/// Depth of a queue in one phase.
pub struct QueueDepth {
    /// Name.
    pub queue: String,
    /// waiting, ready, leased.
    pub phase: &'static str,
    /// Jobs.
    pub jobs: i64,
    /// Age of the oldest.
    pub oldest_seconds: f64,
}

/// What is owed, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwedDepth {
    /// All deliveries.
    pub owed: i64,
    /// Of those, the ones that wait for somebody.
    pub held: i64,
    /// Since the oldest was due that waits for nobody.
    pub oldest_seconds: f64,
    /// Lanes that are closed or on trial.
    pub closed_lanes: i64,
    /// Endpoints that are disabled.
    pub disabled_endpoints: i64,
}

/// All metrics of a process.
pub struct Metrics {
    registry: Registry,
    http_seconds: Family<HttpLabels, Histogram>,
    jobs: Family<JobLabels, Counter>,
    attempts: Family<OutcomeLabels, Counter>,
    attempt_seconds: Family<OutcomeLabels, Histogram>,
    commit_batch: Histogram,
    queue_jobs: Family<QueueLabels, Gauge>,
    queue_oldest: Family<QueueLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    deliveries: Gauge,
    deliveries_held: Gauge,
    lanes_closed: Gauge,
    endpoints_disabled: Gauge,
    deliveries_oldest: Gauge<f64, std::sync::atomic::AtomicU64>,
}

fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("ringback"),
            http_seconds: Family::new_with_constructor(latency),
            jobs: Family::default(),
            attempts: Family::default(),
            attempt_seconds: Family::new_with_constructor(latency),
            commit_batch: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            queue_jobs: Family::default(),
            queue_oldest: Family::default(),
            deliveries: Gauge::default(),
            deliveries_held: Gauge::default(),
            lanes_closed: Gauge::default(),
            endpoints_disabled: Gauge::default(),
            deliveries_oldest: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "http_request_duration_seconds",
            "Time to answer an HTTP request",
            metrics.http_seconds.clone(),
        );
        registry.register("jobs", "Ends of tries by job type and outcome", metrics.jobs.clone());
        registry.register(
            "delivery_attempts",
            "HTTP tries of webhooks by outcome",
            metrics.attempts.clone(),
        );
        registry.register(
            "delivery_attempt_duration_seconds",
            "Time of an HTTP try of a webhook",
            metrics.attempt_seconds.clone(),
        );
        registry.register(
            "commit_batch_size",
            "Operations that shared one commit",
            metrics.commit_batch.clone(),
        );
        registry.register(
            "queue_jobs",
            "Live jobs by queue and phase (waiting for their time, ready, leased)",
            metrics.queue_jobs.clone(),
        );
        registry.register(
            "queue_oldest_age_seconds",
            "Time since the oldest live job of a queue and phase was due",
            metrics.queue_oldest.clone(),
        );
        registry.register(
            "deliveries_owed",
            "Webhook deliveries that are not yet received or given up",
            metrics.deliveries.clone(),
        );
        registry.register(
            "deliveries_held",
            "Of those, the ones that wait for somebody: their endpoint is disabled, or held up",
            metrics.deliveries_held.clone(),
        );
        registry.register(
            "lanes_closed",
            "Lanes on which nothing may be tried, or one delivery to see how it goes",
            metrics.lanes_closed.clone(),
        );
        registry.register(
            "endpoints_disabled",
            "Endpoints that are disabled",
            metrics.endpoints_disabled.clone(),
        );
        registry.register(
            "deliveries_oldest_due_age_seconds",
            "Time since the oldest owed delivery was due that waits for nobody",
            metrics.deliveries_oldest.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// An answered request; `route` is the pattern, never the path.
    pub fn observe_http(&self, method: &str, route: &str, status: u16, time: Duration) {
        let labels = HttpLabels { method: method.to_owned(), route: route.to_owned(), status };
        self.http_seconds.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// The end of a try.
    pub fn count_job(&self, job_type: &str, outcome: &str) {
        let labels = JobLabels { r#type: job_type.to_owned(), outcome: outcome.to_owned() };
        self.jobs.get_or_create(&labels).inc();
    }

    /// An HTTP try of a webhook.
    pub fn observe_attempt(&self, outcome: &str, time: Duration) {
        let labels = OutcomeLabels { outcome: outcome.to_owned() };
        self.attempts.get_or_create(&labels).inc();
        self.attempt_seconds.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// A commit.
    pub fn observe_batch(&self, operations: usize) {
        self.commit_batch.observe(operations as f64);
    }

    /// Depths as just read.
    pub fn set_depths(&self, queues: &[QueueDepth], deliveries: OwedDepth) {
        self.queue_jobs.clear();
        self.queue_oldest.clear();
        for depth in queues {
            let labels = QueueLabels { queue: depth.queue.clone(), phase: depth.phase.to_owned() };
            self.queue_jobs.get_or_create(&labels).set(depth.jobs);
            self.queue_oldest.get_or_create(&labels).set(depth.oldest_seconds);
        }
        self.deliveries.set(deliveries.owed);
        self.deliveries_held.set(deliveries.held);
        self.lanes_closed.set(deliveries.closed_lanes);
        self.endpoints_disabled.set(deliveries.disabled_endpoints);
        self.deliveries_oldest.set(deliveries.oldest_seconds);
    }

    /// The Prometheus text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// One line about work that a loop will try again, with the chain of causes.
pub fn complain(what: &str, error: &(dyn std::error::Error + 'static)) {
    tracing::error!(error, "{what} failed");
}

/// Starts logging to standard error. A filter that does not parse is an error that names it.
pub fn start_logging(format: crate::config::LogFormat, filter: &str) -> Result<(), String> {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| format!("log_filter {filter:?} is not allowed: {error}"))?;
    let people = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(people)
        .with_writer(std::io::stderr)
        // A log that cannot be written is no reason to panic, which complaining about it is.
        .log_internal_errors(false);
    let started = match format {
        crate::config::LogFormat::Text => builder.with_target(false).try_init(),
        crate::config::LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| format!("logging does not start: {error}"))
}
