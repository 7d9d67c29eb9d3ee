//! `urn:job:webhook.replay`: owes events of the past to an endpoint once more.
//!
//! The engine owes a page and writes down how far it came in one transaction; this only drives it,
//! waits while the endpoint's window is full or the database is not there, and looks at the wish to
//! stop between pages.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::work::{self, unless_stopped};
use super::{Context, Ending, Handler, Product};
use crate::engine::{
    Checked, EngineError, EngineResult, JobType, MadeBy, REPLAY_TYPE, ReplayOrder, ReplayProgress,
    ReplayStep, SourceName,
};
use crate::lifecycle::{MAX_PATTERNS, is_pattern, known_patterns};

/// See the module.
pub struct ReplayWebhooks;

/// How long to wait for room in the window, at first …
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// … and when there has been none for a while.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

fn read(specification: &Value) -> Result<ReplayOrder, String> {
    let order: ReplayOrder = serde_json::from_value(specification.clone()).map_err(|error| {
        format!(
            "specification: {error}; allowed: endpointId, since, until (RFC 3339), events \
             (patterns), onlyFailed"
        )
    })?;
    if order.until <= order.since {
        return Err(format!(
            "specification.until {} is not after specification.since {}",
            order.until, order.since
        ));
    }
    if let Some(patterns) = &order.events {
        check_patterns(patterns)?;
    }
    Ok(order)
}

fn check_patterns(patterns: &[String]) -> Result<(), String> {
    let count = patterns.len();
    if !(1..=MAX_PATTERNS).contains(&count) {
        let allowed = format!("allowed: 1 to {MAX_PATTERNS}");
        return Err(format!("specification.events has {count} items; {allowed}"));
    }
    match patterns.iter().find(|pattern| !is_pattern(pattern)) {
        Some(pattern) => {
            let allowed = known_patterns();
            Err(format!("specification.events: {pattern:?} is no event; allowed: {allowed}"))
        }
        None => Ok(()),
    }
}

impl JobType for ReplayWebhooks {
    fn name(&self) -> &'static str {
        REPLAY_TYPE
    }

    fn made_by(&self) -> MadeBy {
        MadeBy::Replay
    }

    fn check(&self, specification: &Value, sources: &[SourceName]) -> Result<Checked, String> {
        if !sources.is_empty() {
            return Err(format!(
                "sources has {} entries; allowed with {REPLAY_TYPE}: none",
                sources.len()
            ));
        }
        let order = read(specification)?;
        Ok(Checked {
            specification: serde_json::to_value(&order).map_err(|error| error.to_string())?,
            secrets: Value::Null,
            sources: Vec::new(),
            outside_url: None,
        })
    }
}

impl Handler for ReplayWebhooks {
    fn run(self: Arc<Self>, context: Context) -> BoxFuture<'static, Ending> {
        Box::pin(async move { replay(&context).await.map_or_else(|ending| ending, Ending::Done) })
    }
}

async fn replay(context: &Context) -> Result<Product, Ending> {
    let order = read(&work::specification(context))
        .map_err(|why| Ending::permanent("specification_invalid", why))?;
    let mut pause = SHORTEST_PAUSE;
    loop {
        if context.stop.requested() {
            return Err(Ending::Stopped);
        }
        let (step, progress) = match page(context, &order).await {
            Ok(done) => done,
            // The place it has come to is stored, so no try need be lost.
            Err(error) if error.is_passing() => {
                tell(&error);
                wait(context, &mut pause).await?;
                continue;
            }
            Err(error) => {
                tell(&error);
                return Err(Ending::transient("storage_failed", "the database failed"));
            }
        };
        context.progress.set(progress.fraction());
        match step {
            ReplayStep::More => pause = SHORTEST_PAUSE,
            ReplayStep::Wait => wait_for_room(context, &order, &mut pause).await?,
            ReplayStep::Done => {
                return Ok(Product::of(work::payload(&json!({
                    "endpointId": order.endpoint_id,
                    "owed": progress.owed,
                    "skipped": progress.skipped,
                }))));
            }
            ReplayStep::Disabled => {
                let text = format!("the endpoint was disabled after {} deliveries", progress.owed);
                return Err(Ending::permanent("endpoint_disabled", text));
            }
            ReplayStep::Gone => {
                let text = format!("endpoint {} is not known", order.endpoint_id);
                return Err(Ending::permanent("endpoint_not_found", text));
            }
        }
    }
}

async fn page(
    context: &Context,
    order: &ReplayOrder,
) -> EngineResult<(ReplayStep, ReplayProgress)> {
    context.services.engine.replay_page(&context.job, order).await
}

fn tell(error: &EngineError) {
    let error: &dyn std::error::Error = error;
    tracing::warn!(error, "a page of a replay failed");
}

/// Waits, and longer the next time.
async fn wait(context: &Context, pause: &mut Duration) -> Result<(), Ending> {
    unless_stopped(&context.stop, tokio::time::sleep(*pause)).await?;
    *pause = (*pause * 2).min(LONGEST_PAUSE);
    Ok(())
}

/// Waits until the window is not full. Whatever goes wrong meanwhile, the next page tells.
async fn wait_for_room(
    context: &Context,
    order: &ReplayOrder,
    pause: &mut Duration,
) -> Result<(), Ending> {
    loop {
        wait(context, pause).await?;
        let engine = &context.services.engine;
        if !engine.is_replay_full(&context.job, order).await.unwrap_or(false) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specification() -> Value {
        json!({
            "endpointId": "0197c0de-0000-7000-8000-000000000001",
            "since": "2026-01-01T00:00:00.000Z",
            "until": "2026-01-02T00:00:00.000Z",
        })
    }

    fn refusal(member: &str, value: Value) -> String {
        let mut specification = specification();
        specification[member] = value;
        ReplayWebhooks.check(&specification, &[]).map(|_| ()).unwrap_err()
    }

    #[test]
    fn an_order_is_checked() {
        let checked = ReplayWebhooks.check(&specification(), &[]).unwrap();
        assert_eq!(checked.specification["onlyFailed"], false);
        assert!(refusal("until", json!("2026-01-01T00:00:00.000Z")).contains("is not after"));
        assert!(refusal("since", json!("yesterday")).contains("yesterday"));
        for bad in ["job.nothing", "job.f*", "j*"] {
            assert!(refusal("events", json!([bad])).contains(bad), "{bad}");
        }
        assert!(refusal("events", json!([])).contains("0 items"));
        assert!(refusal("events", json!(vec!["*"; 33])).contains("33 items; allowed: 1 to 32"));
        assert!(refusal("rate", json!(1)).contains("rate"));
    }
}
