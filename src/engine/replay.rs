//! Replays: events of the past owed to an endpoint once more, a window at a time.
//!
//! A page and the place it ends at are one transaction, so a replay goes on after a crash where it
//! was and owes nothing twice. What is in the window has to be tried before more is owed: new
//! events find the endpoint's lane short, and a replay that is stopped leaves little behind.

mod run;

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Engine;
use super::callers::Caller;
use super::error::{EngineError, EngineResult};
use super::feed::{Spot, spots_after};
use super::intake::NewJob;
use super::operation::{Idempotency, subject};
use super::receivers::{RateLimit, Receiver};
use super::stored::StoredJob;
use crate::ids::{Key, Timestamp};
use crate::lifecycle::{EventType, pattern_matches};
use crate::store::deliveries::{RouteRow, status};
use crate::store::events::FeedRow;
use crate::store::{
    Connection, StoreError, StoreResult, deliveries, events, feed, jobs, receivers,
};
use run::{Run, window};

/// The type of the job that does it.
pub const REPLAY_TYPE: &str = "urn:job:webhook.replay";
/// What a key needs that has it done.
pub const REPLAY_SCOPE: &str = "deliveries:write";
/// The queue of all such jobs: one may wait for its receiver for days, and must not take the place
/// of work that waits for nobody.
pub const REPLAY_QUEUE: &str = "replay";

/// Events that a count looks at.
const COUNTED: i64 = 100_000;
/// Clocks of nodes differ a little; what happened that long before is looked at as well.
const SKEW_MILLIS: i64 = 60_000;
/// A replay may have to wait for a slow receiver.
const LONGEST_SECONDS: i64 = 7 * 24 * 60 * 60;

/// What is replayed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplayOrder {
    /// To which endpoint.
    pub endpoint_id: Uuid,
    /// Events at or after.
    pub since: Timestamp,
    /// Events before.
    pub until: Timestamp,
    /// Patterns; `None` for all that the endpoint wants.
    #[serde(default)]
    pub events: Option<Vec<String>>,
    /// Only what was owed and not received.
    #[serde(default)]
    pub only_failed: bool,
}

/// How much a replay would owe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ReplayCount {
    /// Deliveries.
    pub matched: i64,
    /// Whether all were counted; there are at least as many otherwise.
    pub exact: bool,
}

/// How far a replay is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayProgress {
    /// Place in the feed before its first event.
    start: i64,
    /// Place of its last event.
    end: i64,
    /// Place it has come to.
    position: i64,
    /// Deliveries owed again.
    pub owed: i64,
    /// Events that were still owed, or that only failures were wanted of.
    pub skipped: i64,
}

impl ReplayProgress {
    /// 0..1.
    pub fn fraction(&self) -> f64 {
        let whole = (self.end - self.start).max(1) as f64;
        ((self.position - self.start) as f64 / whole).clamp(0.0, 1.0)
    }
}

/// What follows a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayStep {
    /// There is more to owe.
    More,
    /// The window is full, another replay to the endpoint is at it, or retention is at its events.
    Wait,
    /// All is owed.
    Done,
    /// The endpoint is disabled.
    Disabled,
    /// There is no such endpoint, or no more.
    Gone,
}

impl Engine {
    /// Makes the job that replays events to the caller's endpoint.
    pub async fn submit_replay(
        &self,
        caller: &Caller,
        order: ReplayOrder,
        idempotency: Option<Idempotency>,
        request_id: &str,
    ) -> EngineResult<StoredJob> {
        self.endpoint_row(caller, order.endpoint_id).await?;
        let specification = serde_json::to_value(&order)
            .map_err(|error| EngineError::Store(StoreError::Corrupt(error.to_string())))?;
        let job = NewJob {
            job_type: REPLAY_TYPE.to_owned(),
            specification,
            sources: Vec::new(),
            group_id: None,
            callback: None,
            metadata: None,
            priority: 0,
            queue: REPLAY_QUEUE.to_owned(),
            run_at: None,
            expires_at: None,
            max_attempts: None,
            timeout_seconds: Some(LONGEST_SECONDS),
        };
        self.submit(caller, job, idempotency, request_id).await
    }

    /// How much a replay to the caller's endpoint would owe now.
    pub async fn count_replay(
        &self,
        caller: &Caller,
        order: &ReplayOrder,
    ) -> EngineResult<ReplayCount> {
        let row = self.endpoint_row(caller, order.endpoint_id).await?;
        let endpoint = Arc::new(Receiver::open(row, &self.core.sealer, &self.core.formats)?);
        let application = caller.application;
        let since = order.since.plus_millis(-SKEW_MILLIS);
        let (mut position, end) = self
            .store
            .read(move |connection| {
                let start = feed::before_time(connection, application, since.0)?;
                Ok((start, feed::head(connection, application)?))
            })
            .await?;
        let mut count = ReplayCount { matched: 0, exact: true };
        let last = position.saturating_add(COUNTED);
        while position < end && position < last {
            let (endpoint, order) = (Arc::clone(&endpoint), order.clone());
            let (matched, next) = self
                .store
                .read(move |connection| {
                    let page = page(connection, &endpoint, &order, position, end, 500)?;
                    let mut matched = 0;
                    for (spot, _) in &page.wanted {
                        let known = known(connection, &endpoint, spot)?;
                        matched += i64::from(is_owed_again(known.as_ref(), &order));
                    }
                    Ok((matched, page.next))
                })
                .await?;
            count.matched += matched;
            position = next;
        }
        count.exact = position >= end;
        Ok(count)
    }

    /// Owes the next events of a replay, as far as the window has room.
    pub async fn replay_page(
        &self,
        job: &StoredJob,
        order: &ReplayOrder,
    ) -> EngineResult<(ReplayStep, ReplayProgress)> {
        let (key, application, order) = (job.key, job.application, order.clone());
        let request_id = job.submission.request_id.clone();
        let retry_of = job.submission.retry_of;
        let (step, progress, lane) = self
            .custom(vec![subject("owed again", 0)], move |transaction, core, now| {
                let run =
                    Run { core, job: key, retry_of, application, request_id: &request_id, now };
                Ok(run.page(transaction, &order)?)
            })
            .await?;
        self.bells.ring_lanes(lane.as_slice());
        Ok((step, progress))
    }

    /// Whether the window of a replay is full. Writes nothing, so whoever waits may ask often; what
    /// else there is to find out, a page does.
    pub async fn is_replay_full(&self, job: &StoredJob, order: &ReplayOrder) -> EngineResult<bool> {
        let (application, endpoint) = (job.application, order.endpoint_id);
        let core = Arc::clone(&self.core);
        let read = move |connection: &mut Connection| {
            let row = receivers::endpoint(connection, endpoint)?;
            match row.filter(|row| row.application_id == application && row.disabled_at.is_none()) {
                Some(row) => {
                    let window = window(RateLimit::of(&row).or(core.lane_rate));
                    Ok(deliveries::replayed(connection, row.id, window)? >= window)
                }
                None => Ok(false),
            }
        };
        Ok(self.store.read(read).await?)
    }
}

/// Events of one page that a replay wants.
struct Page {
    wanted: Vec<(Spot, FeedRow)>,
    next: i64,
}

fn page(
    connection: &mut Connection,
    endpoint: &Receiver,
    order: &ReplayOrder,
    position: i64,
    end: i64,
    limit: usize,
) -> StoreResult<Page> {
    let named = |event_type: EventType| match &order.events {
        Some(patterns) => patterns.iter().any(|pattern| pattern_matches(pattern, event_type)),
        None => true,
    };
    let wants = |event_type: Option<EventType>| {
        event_type.is_some_and(|event_type| named(event_type) && endpoint.wants(event_type, None))
    };
    let (mut spots, next, more) =
        spots_after(connection, endpoint.application, position, limit, wants)?;
    spots.retain(|spot| spot.position <= end);
    let pairs: Vec<(Key, i64)> = spots.iter().map(|spot| (spot.subject, spot.sequence)).collect();
    let mut rows: HashMap<(Key, i64), FeedRow> = events::load(connection, &pairs)?
        .into_iter()
        .map(|row| ((row.subject_id, row.sequence), row))
        .collect();
    let types = job_types(connection, endpoint, &spots)?;
    let mut wanted = Vec::with_capacity(spots.len());
    for spot in spots {
        let Some(row) = rows.remove(&(spot.subject, spot.sequence)) else { continue };
        let within = row.at >= order.since.0 && row.at < order.until.0;
        let job_type = types.get(&spot.subject).map(String::as_str);
        let fits = spot.event_type.is_some_and(|event| endpoint.wants(event, job_type));
        if within && fits {
            wanted.push((spot, row));
        }
    }
    // Without more behind it the page has seen everything up to the end.
    let next = if more { next.min(end) } else { end };
    Ok(Page { wanted, next })
}

/// Types of the jobs of some events, when the endpoint asks for types.
fn job_types(
    connection: &mut Connection,
    endpoint: &Receiver,
    spots: &[Spot],
) -> StoreResult<HashMap<Key, String>> {
    if endpoint.types.is_none() {
        return Ok(HashMap::new());
    }
    let mut keys: Vec<Key> = spots.iter().map(|spot| spot.subject).collect();
    keys.sort_unstable();
    keys.dedup();
    jobs::types(connection, &keys)
}

/// The delivery of an event to an endpoint, if it was ever owed.
fn known(
    connection: &mut Connection,
    endpoint: &Receiver,
    spot: &Spot,
) -> StoreResult<Option<RouteRow>> {
    deliveries::of_event(connection, spot.subject, spot.sequence, endpoint.key)
}

fn is_owed_again(known: Option<&RouteRow>, order: &ReplayOrder) -> bool {
    match known {
        Some(route) if route.status == status::LIVE => false,
        Some(route) => !order.only_failed || route.status != status::DELIVERED,
        None => !order.only_failed,
    }
}
