//! Replays: events of the past owed to an endpoint once more, a window at a time.
//!
//! A page and the place it ends at are one transaction, so a replay goes on after a crash where it
//! was and owes nothing twice. What is in the window has to be tried before more is owed: new
//! events find the endpoint's lane short, and a replay that is stopped leaves little behind.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Engine;
use super::applications::Caller;
use super::core::Core;
use super::error::{EngineError, EngineResult};
use super::feed::{Spot, spots_after};
use super::intake::{NewJob, state_at};
use super::operation::{Idempotency, subject};
use super::receivers::{RateLimit, Receiver};
use super::stored::{StoredJob, json_null, read_id, read_json};
use super::view;
use crate::formats::EventView;
use crate::ids::{Key, Timestamp, new_id};
use crate::lifecycle::{EventType, pattern_matches};
use crate::store::deliveries::{NewDelivery, RouteRow, manner, phase, status};
use crate::store::events::{FeedRow, NewBody};
use crate::store::{
    Connection, StoreError, StoreResult, Transaction, checkpoints, deliveries, events, feed,
    groups, jobs, receivers,
};

/// The type of the job that does it.
pub const REPLAY_TYPE: &str = "urn:job:webhook.replay";
/// The queue of all such jobs: one may wait for its receiver for days, and must not take the place
/// of work that waits for nobody.
pub const REPLAY_QUEUE: &str = "replay";

/// Deliveries of replays that an endpoint is owed and that nobody has tried yet, at most …
const WINDOW: i64 = 200;
/// … and at a limited rate, what comes in so many seconds: a replay that is stopped stops soon.
const WINDOW_SECONDS: f64 = 2.0;
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

/// One page of one replay.
struct Run<'a> {
    core: &'a Core,
    job: Key,
    /// The job that this one goes on with.
    retry_of: Option<Uuid>,
    application: Key,
    request_id: &'a str,
    now: Timestamp,
}

impl Run<'_> {
    fn page(
        &self,
        transaction: &mut Transaction<'_>,
        order: &ReplayOrder,
    ) -> StoreResult<(ReplayStep, ReplayProgress, Option<i64>)> {
        let mut progress = self.progress(transaction, order)?;
        let row = receivers::endpoint(transaction, order.endpoint_id)?;
        let Some(row) = row.filter(|row| row.application_id == self.application) else {
            return Ok((ReplayStep::Gone, progress, None));
        };
        if row.disabled_at.is_some() {
            return Ok((ReplayStep::Disabled, progress, None));
        }
        let endpoint = Receiver::open(row, &self.core.sealer, &self.core.formats)?;
        if !deliveries::hold_replays(transaction, endpoint.key)? {
            return Ok((ReplayStep::Wait, progress, None));
        }
        let window = window(endpoint.rate_limit.or(self.core.lane_rate));
        let room = window - deliveries::replayed(transaction, endpoint.key, window)?;
        if room <= 0 {
            return Ok((ReplayStep::Wait, progress, None));
        }
        let room = usize::try_from(room).unwrap_or(1);
        let before = progress;
        let page = page(transaction, &endpoint, order, progress.position, progress.end, room)?;
        progress.position = page.next;
        let (mut ended, mut new) = (Vec::new(), Vec::new());
        // What it tells of itself is new, whatever the clock says.
        for (spot, event) in page.wanted.into_iter().filter(|(spot, _)| spot.subject != self.job) {
            match known(transaction, &endpoint, &spot)? {
                route if !is_owed_again(route.as_ref(), order) => progress.skipped += 1,
                Some(route) => ended.push(route.id),
                None => new.push(event),
            }
        }
        let Some(new) = kept(transaction, new)? else {
            // As it was before this page, which is done again.
            return Ok((ReplayStep::Wait, before, None));
        };
        let revived = self.revive(transaction, &ended, order)?;
        progress.owed += revived + self.owe(transaction, &endpoint, &new)?;
        progress.skipped += count(ended.len()) - revived;
        self.save(transaction, &progress)?;
        let step =
            if progress.position >= progress.end { ReplayStep::Done } else { ReplayStep::More };
        Ok((step, progress, Some(endpoint.lane)))
    }

    fn progress(
        &self,
        transaction: &mut Transaction<'_>,
        order: &ReplayOrder,
    ) -> StoreResult<ReplayProgress> {
        if let Some(text) = checkpoints::hold(transaction, self.job)? {
            return read_json("a checkpoint", &text);
        }
        if let Some(progress) = self.left_by_the_first(transaction)? {
            self.save(transaction, &progress)?;
            return Ok(progress);
        }
        let since = order.since.plus_millis(-SKEW_MILLIS);
        let start = feed::before_time(transaction, self.application, since.0)?;
        // What happens from now on reaches the endpoint anyway.
        let end = feed::head(transaction, self.application)?.max(start);
        let progress = ReplayProgress { start, end, position: start, owed: 0, skipped: 0 };
        self.save(transaction, &progress)?;
        Ok(progress)
    }

    /// How far the replay came that this one retries.
    fn left_by_the_first(
        &self,
        transaction: &mut Transaction<'_>,
    ) -> StoreResult<Option<ReplayProgress>> {
        let Some(id) = self.retry_of else { return Ok(None) };
        let first = jobs::find(transaction, id)?;
        let Some(first) = first.filter(|row| row.application_id == self.application) else {
            return Ok(None);
        };
        let text = checkpoints::hold(transaction, first.id)?;
        text.map(|text| read_json("a checkpoint", &text)).transpose()
    }

    fn save(
        &self,
        transaction: &mut Transaction<'_>,
        progress: &ReplayProgress,
    ) -> StoreResult<()> {
        let text = serde_json::to_string(progress)
            .map_err(|error| StoreError::Corrupt(format!("a checkpoint: {error}")))?;
        checkpoints::put(transaction, self.job, &text)
    }

    /// Owes ended deliveries again, but for those that somebody else has owed again meanwhile; how
    /// many.
    fn revive(
        &self,
        transaction: &mut Transaction<'_>,
        ended: &[Key],
        order: &ReplayOrder,
    ) -> StoreResult<i64> {
        let mut revived = 0;
        for route in deliveries::hold_lasting(transaction, ended)? {
            if is_owed_again(Some(&route), order) {
                deliveries::revive(transaction, &route, manner::REPLAY, self.now.0)?;
                revived += 1;
            }
        }
        Ok(revived)
    }

    /// Owes events that the endpoint was never owed: it may be younger than they are. How many;
    /// what has been purged is not among them.
    fn owe(
        &self,
        transaction: &mut Transaction<'_>,
        endpoint: &Receiver,
        new: &[FeedRow],
    ) -> StoreResult<i64> {
        let format = endpoint.format.name();
        let (mut bodies, mut owed) = (Vec::new(), Vec::with_capacity(new.len()));
        for event in new {
            if !events::has_body(transaction, event.subject_id, event.sequence, format)? {
                let Some(body) = self.render(transaction, endpoint, event)? else { continue };
                bodies.push(body);
            }
            owed.push(self.delivery(transaction.key()?, endpoint, event)?);
        }
        events::add_bodies(transaction, &bodies)?;
        deliveries::insert(transaction, &owed)?;
        Ok(count(owed.len()))
    }

    fn render(
        &self,
        connection: &mut Connection,
        endpoint: &Receiver,
        event: &FeedRow,
    ) -> StoreResult<Option<NewBody>> {
        let Some(data) = as_of(self.core, connection, event)? else { return Ok(None) };
        let timestamp = Timestamp(event.at).to_string();
        let view = EventView {
            id: read_id(&event.public_id)?,
            event_type: &event.event_type,
            timestamp: &timestamp,
            sequence: event.sequence,
            subject_type: &event.subject_kind,
            subject_id: subject_id(event)?,
            data: &data,
        };
        Ok(Some(NewBody {
            subject_id: event.subject_id,
            sequence: event.sequence,
            format: endpoint.format.name(),
            body: endpoint.format.body(&view, &self.core.public_url),
        }))
    }

    fn delivery(&self, key: Key, endpoint: &Receiver, event: &FeedRow) -> StoreResult<NewDelivery> {
        Ok(NewDelivery {
            id: key,
            public_id: new_id(),
            application_id: self.application,
            receiver_id: endpoint.key,
            is_endpoint: true,
            subject_id: event.subject_id,
            sequence: event.sequence,
            event_id: read_id(&event.public_id)?,
            event_type: event.event_type.clone(),
            manner: manner::REPLAY,
            phase: phase::WAITING,
            place: None,
            lane: endpoint.lane,
            request_id: self.request_id.to_owned(),
            created_at: self.now.0,
            due_at: self.now.0,
        })
    }
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// How much an endpoint of that rate may be owed ahead.
fn window(rate_limit: Option<RateLimit>) -> i64 {
    match rate_limit {
        Some(rate) => ((rate.per_second * WINDOW_SECONDS) as i64).clamp(1, WINDOW),
        None => WINDOW,
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

/// Those events whose subjects are there and stay until the end of the transaction; nothing while
/// retention is deciding on one of them. Nobody waits for it: it may be waiting for whatever else
/// this transaction holds.
fn kept(
    transaction: &mut Transaction<'_>,
    mut new: Vec<FeedRow>,
) -> StoreResult<Option<Vec<FeedRow>>> {
    let mut subjects: Vec<Key> = new.iter().map(|event| event.subject_id).collect();
    subjects.sort_unstable();
    subjects.dedup();
    let kept = events::keep(transaction, &subjects)?;
    subjects.retain(|subject| !kept.contains(subject));
    if !events::present(transaction, &subjects)?.is_empty() {
        return Ok(None);
    }
    new.retain(|event| kept.contains(&event.subject_id));
    Ok(Some(new))
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

fn subject_id(event: &FeedRow) -> StoreResult<Uuid> {
    read_id(event.subject_public_id.as_deref().unwrap_or_default())
}

/// The subject as it was at an event; nothing when it has been purged since.
fn as_of(
    core: &Core,
    connection: &mut Connection,
    event: &FeedRow,
) -> StoreResult<Option<Box<RawValue>>> {
    let key = event.subject_id;
    Ok(match event.subject_kind.as_str() {
        "job" => {
            let row = jobs::read(connection, &[key])?.into_iter().next();
            let Some(row) = row else { return Ok(None) };
            let mut job = StoredJob::read(row)?;
            // Nobody holds the job, so its events may go between two looks.
            let Some(state) = state_at(connection, &job, event.sequence)? else { return Ok(None) };
            job.state = state;
            Some(view::job(&job))
        }
        "group" => match groups::read(connection, &[key])?.first() {
            Some(row) => {
                let receivers = core.receivers(connection, row.receiver_id)?;
                let receiver = row.receiver_id.and_then(|key| receivers.get(&key));
                Some(view::group(row, receiver.map(|receiver| &*receiver.shown))?)
            }
            None => None,
        },
        "endpoint" => match receivers::load(connection, &[key])?.first() {
            Some(row) => Some(super::endpoints::as_of(row, event)?),
            None => None,
        },
        _ => Some(RawValue::from_string(event.data.clone()).unwrap_or_else(|_| json_null())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_what_two_seconds_bring() {
        assert_eq!(window(None), 200);
        for (per_second, most) in [(0.001, 1), (0.7, 1), (1.0, 2), (25.5, 51), (10_000.0, 200)] {
            assert_eq!(window(Some(RateLimit::new(per_second, None))), most, "{per_second}");
        }
    }
}
