//! What operators ask: is it alive, can it work, how much is there.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::Data;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::answer;
use super::problem::{Code, Problem};
use super::state::State;
use crate::engine::EngineResult;
use crate::ids::Timestamp;
use crate::telemetry::{OwedDepth, QueueDepth};

/// Depths are read from the database so often at most, however often metrics are asked for.
const SCRAPE_PERIOD: Duration = Duration::from_secs(1);
/// Longer than this nobody who probes would wait.
const CHECK_TIME: Duration = Duration::from_secs(5);

/// When depths were read.
#[derive(Default)]
pub struct Scrape {
    last: Mutex<Option<Instant>>,
}

impl Scrape {
    /// Reads depths when they are due. Counters are worth having without them, and just then.
    async fn refresh(&self, limit: Duration, read: impl Future<Output = EngineResult<()>>) {
        let mut last = self.last.lock().await;
        if last.is_none_or(|last| last.elapsed() >= SCRAPE_PERIOD) {
            match timeout(limit, read).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "depths could not be read for metrics");
                }
                Err(_) => tracing::warn!(?limit, "depths were not read in time for metrics"),
            }
            *last = Some(Instant::now());
        }
    }
}

/// The process answers.
pub async fn alive() -> HttpResponse {
    answer::text(StatusCode::OK, r#"{"status":"ok"}"#.to_owned())
}

/// The server can do its work.
pub async fn ready(state: Data<State>) -> Result<HttpResponse, Problem> {
    let checked = timeout(CHECK_TIME, state.engine.check()).await;
    let (database, migrations) = match checked {
        Ok(Ok(true)) => ("ok", "ok"),
        Ok(Ok(false)) => ("ok", "failed"),
        Ok(Err(_)) | Err(_) => ("failed", "unknown"),
    };
    let silent = state.ready.silent();
    let loops = match silent.is_empty() {
        true => "ok".to_owned(),
        false => format!("silent: {}", silent.join(", ")),
    };
    let is_ready = database == "ok" && migrations == "ok" && silent.is_empty();
    let checks = json!({ "database": database, "migrations": migrations, "loops": loops });
    if is_ready {
        return answer::json(StatusCode::OK, &json!({ "status": "ready", "checks": checks }));
    }
    let detail = format!("database {database}, migrations {migrations}, loops {loops}");
    Err(Problem::new(Code::Unavailable, detail).with_extension("checks", checks))
}

/// Metrics for Prometheus.
pub async fn metrics(state: Data<State>) -> HttpResponse {
    state.scrape.refresh(CHECK_TIME, refresh(&state)).await;
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8"))
        .body(state.metrics.render())
}

async fn refresh(state: &State) -> EngineResult<()> {
    let rows = state.engine.queue_depths().await?;
    let owed = state.engine.delivery_depth().await?;
    let now = state.engine.now();
    let age = |micros: i64| now.millis_since(Timestamp(micros)).max(0) as f64 / 1_000.0;
    let phase = |number| match number {
        0 => "waiting",
        1 => "ready",
        _ => "leased",
    };
    let depths: Vec<QueueDepth> = rows
        .into_iter()
        .map(|row| QueueDepth {
            queue: row.queue,
            phase: phase(row.phase),
            jobs: row.jobs,
            oldest_seconds: age(row.oldest),
        })
        .collect();
    state.metrics.set_depths(
        &depths,
        OwedDepth {
            owed: owed.owed,
            held: owed.held,
            oldest_seconds: owed.oldest.map_or(0.0, age),
            closed_lanes: owed.closed_lanes,
            disabled_endpoints: owed.disabled_endpoints,
        },
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn a_database_that_hangs_holds_up_metrics_for_a_while_only() {
        let scrape = Scrape::default();
        let refresh = || scrape.refresh(Duration::from_millis(20), pending());
        let crowd = async { tokio::join!(refresh(), refresh()) };
        let waited = timeout(Duration::from_secs(10), crowd).await;
        assert!(waited.is_ok(), "it went on without depths");
    }
}
