//! How an endpoint does: its last attempts, its backlog, its lane.

use serde::Serialize;
use uuid::Uuid;

use super::view;
use crate::engine::Engine;
use crate::engine::callers::Caller;
use crate::engine::error::EngineResult;
use crate::ids::Timestamp;
use crate::store::deliveries::{TriedRow, phase};
use crate::store::{deliveries, lanes};

/// Attempts that are looked at.
const LOOKED_AT: i64 = 1_000;
/// How far back they may be.
const WINDOW_MILLIS: i64 = 24 * 60 * 60 * 1_000;

/// See the module.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStats {
    /// enabled, disabled or blocked.
    pub state: &'static str,
    /// Why disabled.
    pub disabled_reason: Option<String>,
    /// The attempts since then are counted: of the last day, and the newest 1,000.
    pub window_start: Timestamp,
    /// That ended.
    pub attempts: usize,
    /// That were received.
    pub delivered: usize,
    /// 0..1; null when there were none.
    pub success_rate: Option<f64>,
    /// Of those that were answered.
    pub latency_ms: Option<Latency>,
    /// What is owed.
    pub backlog: BacklogView,
    /// When the first of it was due.
    pub oldest_due: Option<Timestamp>,
    /// The first failure since the last success.
    pub failing_since: Option<Timestamp>,
    /// Whether anything may be tried.
    pub lane: LaneView,
}

/// Percentiles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Half are as fast.
    pub p50: i64,
    /// 95 of a hundred are as fast.
    pub p95: i64,
    /// 99 of a hundred are as fast.
    pub p99: i64,
}

/// Deliveries by how they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BacklogView {
    /// Wait for their time.
    pub pending: i64,
    /// Are being sent.
    pub sending: i64,
    /// Wait for the endpoint to be enabled, or for what holds it up.
    pub held: i64,
    /// Wait for others in the order.
    pub queued: i64,
}

/// How a lane stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LaneView {
    /// Nothing is tried before.
    pub closed_until: Option<Timestamp>,
    /// retry_after or failures.
    pub reason: Option<String>,
    /// How often in a row it was closed for failures.
    pub closings: i64,
}

impl Engine {
    /// How the caller's endpoint does.
    pub async fn endpoint_stats(&self, caller: &Caller, id: Uuid) -> EngineResult<EndpointStats> {
        let row = self.endpoint_row(caller, id).await?;
        let now = self.now();
        let (key, lane) = (row.id, row.lane);
        let since = now.plus_millis(-WINDOW_MILLIS);
        let (attempts, phases, trouble) = self
            .store
            .read(move |connection| {
                Ok((
                    deliveries::tried(connection, key, since.0, LOOKED_AT)?,
                    deliveries::phases(connection, key)?,
                    lanes::troubles_of(connection, vec![lane])?.pop(),
                ))
            })
            .await?;
        let count = |wanted: i64| {
            let found = phases.iter().find(|row| row.phase == wanted);
            found.map_or(0, |row| row.count)
        };
        let is_blocked = row.blocked_by.is_some();
        let behind = count(phase::FRESH) + count(phase::BEHIND);
        // All that began since then are among them.
        let is_full = i64::try_from(attempts.len()).is_ok_and(|count| count >= LOOKED_AT);
        let oldest_try = attempts.last().filter(|_| is_full).map(|row| Timestamp(row.started_at));
        let delivered = attempts.iter().filter(|row| row.outcome == "delivered").count();
        let oldest = phases.iter().filter(|row| row.phase != phase::BLOCKING);
        Ok(EndpointStats {
            state: view::state(&row),
            disabled_reason: row.disabled_reason.clone(),
            window_start: oldest_try.unwrap_or(since),
            attempts: attempts.len(),
            delivered,
            success_rate: (!attempts.is_empty()).then(|| delivered as f64 / attempts.len() as f64),
            latency_ms: latency(&attempts),
            backlog: BacklogView {
                pending: count(phase::WAITING),
                sending: count(phase::LEASED),
                held: count(phase::HELD)
                    + count(phase::BLOCKING)
                    + if is_blocked { behind } else { 0 },
                queued: if is_blocked { 0 } else { behind },
            },
            oldest_due: oldest.filter_map(|row| row.oldest.map(Timestamp)).min(),
            failing_since: row.failing_since.map(Timestamp),
            lane: match trouble {
                Some(trouble) => LaneView {
                    closed_until: Some(Timestamp(trouble.not_before)),
                    reason: Some(trouble.reason),
                    closings: trouble.closings,
                },
                None => LaneView::default(),
            },
        })
    }
}

/// Percentiles by the nearest rank.
fn latency(tried: &[TriedRow]) -> Option<Latency> {
    let answered = tried.iter().filter(|row| row.response_status.is_some());
    let mut times: Vec<i64> = answered.filter_map(|row| row.duration_ms).collect();
    times.sort_unstable();
    let at = |hundredth: usize| {
        let place = (times.len() * hundredth).div_ceil(100).saturating_sub(1);
        times.get(place).copied()
    };
    Some(Latency { p50: at(50)?, p95: at(95)?, p99: at(99)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(duration_ms: i64) -> TriedRow {
        TriedRow {
            started_at: 0,
            outcome: "delivered".to_owned(),
            duration_ms: Some(duration_ms),
            response_status: Some(204),
        }
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        assert_eq!(latency(&[]), None);
        let one = [tried(7)];
        assert_eq!(latency(&one), Some(Latency { p50: 7, p95: 7, p99: 7 }));
        let hundred: Vec<TriedRow> = (1..=100).rev().map(tried).collect();
        assert_eq!(latency(&hundred), Some(Latency { p50: 50, p95: 95, p99: 99 }));
    }
}
