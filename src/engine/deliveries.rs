//! Deliveries as they are listed and read.

mod redelivery;

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Engine;
use super::callers::Caller;
use super::error::{EngineError, EngineResult};
use super::stored::{read_id, read_json};
use crate::ids::{Key, Timestamp};
use crate::lifecycle::{EventType, pattern_matches};
use crate::store::deliveries::{DeliveryRow, manner, phase, status};
use crate::store::{deliveries, jobs, receivers};
pub use redelivery::BulkRedelivery;

/// A delivery as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryView {
    /// Id.
    pub id: Uuid,
    /// The header over all tries.
    pub webhook_id: Uuid,
    /// Dotted name.
    pub event_type: String,
    /// The event's number.
    pub sequence: i64,
    /// About which job.
    pub job_id: Option<Uuid>,
    /// About which group.
    pub group_id: Option<Uuid>,
    /// For which endpoint; null for a callback.
    pub endpoint_id: Option<Uuid>,
    /// To whom, masked.
    pub receiver: Box<RawValue>,
    /// event, redelivery, replay, ping or trigger.
    pub manner: &'static str,
    /// pending, sending, held, delivered, exhausted, refused, cancelled.
    pub status: &'static str,
    /// Whether it holds up a strict endpoint.
    pub blocking: bool,
    /// Made so far.
    pub attempts: i64,
    /// When the next is due.
    pub next_attempt_at: Option<Timestamp>,
    /// Why it ended, unless delivered.
    pub reason: Option<String>,
    /// When it was owed.
    pub date_created: Timestamp,
    /// When it ended.
    pub date_completed: Option<Timestamp>,
    /// What is sent, byte for byte; in the detail only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Every try, in the detail only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_log: Option<Vec<AttemptView>>,
    /// Key.
    #[serde(skip)]
    pub key: Key,
}

/// An attempt as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptView {
    /// 1, 2, 3 …
    pub number: i64,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// started, delivered, failed, refused, unknown.
    pub outcome: String,
    /// How long.
    pub duration_ms: Option<i64>,
    /// HTTP status.
    pub response_status: Option<i64>,
    /// Pairs.
    pub response_headers: Option<Box<RawValue>>,
    /// The first bytes.
    pub response_body: Option<String>,
    /// Stable code.
    pub error_code: Option<String>,
    /// For people.
    pub error_detail: Option<String>,
    /// What DNS answered.
    pub resolved: Option<Box<RawValue>>,
    /// Connected to.
    pub address: Option<String>,
    /// Milliseconds.
    pub timings: Option<Box<RawValue>>,
}

/// The statuses a delivery is shown with.
pub const DELIVERY_STATUSES: [&str; 7] =
    ["pending", "sending", "held", "delivered", "exhausted", "refused", "cancelled"];

fn delivery_status(row: &DeliveryRow) -> &'static str {
    match (row.status, row.phase) {
        (status::LIVE, Some(phase::LEASED)) => "sending",
        (status::LIVE, Some(phase::HELD)) => "held",
        (status::LIVE, Some(phase::BLOCKING)) if row.last_outcome.as_deref() == Some("refused") => {
            "refused"
        }
        (status::LIVE, Some(phase::BLOCKING)) => "exhausted",
        (status::LIVE, Some(phase::FRESH | phase::BEHIND)) if row.blocked_by.is_some() => "held",
        (status::LIVE, _) if row.disabled_at.is_some() && row.manner != manner::PING => "held",
        (status::LIVE, _) => "pending",
        (status::DELIVERED, _) => "delivered",
        (status::EXHAUSTED, _) => "exhausted",
        (status::REFUSED, _) => "refused",
        _ => "cancelled",
    }
}

fn manner_name(number: i64) -> &'static str {
    match number {
        manner::REDELIVERY => "redelivery",
        manner::REPLAY => "replay",
        manner::PING => "ping",
        manner::TRIGGER => "trigger",
        _ => "event",
    }
}

fn delivery_view(row: DeliveryRow) -> EngineResult<DeliveryView> {
    let optional = |id: &Option<Vec<u8>>| id.as_deref().map(read_id).transpose();
    Ok(DeliveryView {
        id: read_id(&row.public_id)?,
        webhook_id: read_id(&row.event_id)?,
        job_id: optional(&row.job_id)?,
        group_id: optional(&row.group_id)?,
        endpoint_id: optional(&row.endpoint_id)?,
        receiver: read_json("a receiver", &row.receiver)?,
        manner: manner_name(row.manner),
        status: delivery_status(&row),
        blocking: row.phase == Some(phase::BLOCKING),
        event_type: row.event_type,
        sequence: row.sequence,
        attempts: row.attempts,
        // A ping goes before all else, which is no time to be shown.
        next_attempt_at: row.due_at.map(|due| Timestamp(due.max(row.created_at))),
        reason: row.reason,
        date_created: Timestamp(row.created_at),
        date_completed: row.completed_at.map(Timestamp),
        body: None,
        attempt_log: None,
        key: row.id,
    })
}

/// Deliveries that one page of a filtered list looks at.
const DELIVERY_SCAN: i64 = 1_000;

/// Which deliveries are meant.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    /// About a job.
    pub job: Option<Uuid>,
    /// To an endpoint.
    pub endpoint: Option<Uuid>,
    /// In one of these; none for all.
    pub statuses: Vec<String>,
    /// Of events that one of these patterns names; none for all.
    pub events: Vec<String>,
    /// Owed at or after.
    pub since: Option<Timestamp>,
    /// Owed before.
    pub until: Option<Timestamp>,
}

impl DeliveryFilter {
    /// Whether `matches` is true of every row.
    fn matches_all(&self) -> bool {
        self.statuses.is_empty()
            && self.events.is_empty()
            && self.since.is_none()
            && self.until.is_none()
    }

    fn matches(&self, row: &DeliveryRow) -> bool {
        let status = delivery_status(row);
        let named = |pattern: &String| {
            EventType::parse(&row.event_type).is_some_and(|event| pattern_matches(pattern, event))
        };
        (self.statuses.is_empty() || self.statuses.iter().any(|wanted| wanted == status))
            && (self.events.is_empty() || self.events.iter().any(named))
            && self.since.is_none_or(|since| row.created_at >= since.0)
            && self.until.is_none_or(|until| row.created_at < until.0)
    }
}

/// What a filter looks through.
#[derive(Clone, Copy)]
enum Among {
    Application(Key),
    Subject(Key),
    Endpoint(Key),
}

impl Engine {
    /// Deliveries of the caller that a filter means, newest first, behind the one that was owed at a
    /// time with a key.
    pub async fn list_deliveries(
        &self,
        caller: &Caller,
        filter: &DeliveryFilter,
        before: (i64, Key),
        limit: usize,
    ) -> EngineResult<(Vec<DeliveryView>, Option<(i64, Key)>)> {
        let among = self.among(caller, filter).await?;
        let (rows, next) = self.scan_deliveries(filter, among, before, limit).await?;
        let views: EngineResult<Vec<_>> = rows.into_iter().map(delivery_view).collect();
        Ok((views?, next))
    }

    async fn among(&self, caller: &Caller, filter: &DeliveryFilter) -> EngineResult<Among> {
        let application = caller.application;
        if let Some(id) = filter.endpoint {
            // A deleted endpoint still has its deliveries.
            let row = self.store.read(move |connection| receivers::ever(connection, id)).await?;
            let own = row.filter(|row| row.application_id == application);
            let row = own.ok_or_else(|| EngineError::not_found("endpoint", id))?;
            return Ok(Among::Endpoint(row.id));
        }
        let Some(id) = filter.job else { return Ok(Among::Application(application)) };
        // A job in the trash still has its deliveries.
        let row = self.store.read(move |connection| jobs::find(connection, id)).await?;
        let own = row.filter(|row| row.application_id == application);
        Ok(Among::Subject(own.ok_or_else(|| EngineError::not_found("job", id))?.state.id))
    }

    /// One page of rows that a filter means, and time and key behind which the next one looks.
    async fn scan_deliveries(
        &self,
        filter: &DeliveryFilter,
        among: Among,
        before: (i64, Key),
        limit: usize,
    ) -> EngineResult<(Vec<DeliveryRow>, Option<(i64, Key)>)> {
        let job = match (filter.job, among) {
            // The endpoint was looked through: the job is one more condition.
            (Some(job), Among::Endpoint(_)) => Some(job.as_bytes().to_vec()),
            _ => None,
        };
        // Without a condition the first rows are the page, and one more tells that there are more.
        let scan = match i64::try_from(limit) {
            Ok(limit) if job.is_none() && filter.matches_all() => limit.saturating_add(1),
            _ => DELIVERY_SCAN,
        };
        let scan = scan.min(DELIVERY_SCAN);
        let rows = self
            .store
            .read(move |connection| match among {
                Among::Subject(key) => deliveries::of_subject(connection, key, before, scan),
                Among::Endpoint(key) => deliveries::of_endpoint(connection, key, before, scan),
                Among::Application(key) => {
                    deliveries::of_application(connection, key, before, scan)
                }
            })
            .await?;
        let full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= scan;
        let place = |row: &DeliveryRow| (row.created_at, row.id);
        let mut next = rows.last().map(place).filter(|_| full);
        let mut found: Vec<DeliveryRow> = Vec::new();
        for row in rows {
            if !filter.matches(&row) || (job.is_some() && row.job_id != job) {
                continue;
            }
            if found.len() == limit {
                next = found.last().map(place);
                break;
            }
            found.push(row);
        }
        Ok((found, next))
    }

    /// One delivery of the caller as lists show it.
    pub async fn find_delivery_briefly(
        &self,
        caller: &Caller,
        id: Uuid,
    ) -> EngineResult<DeliveryView> {
        delivery_view(self.own_delivery(caller, id).await?)
    }

    async fn own_delivery(&self, caller: &Caller, id: Uuid) -> EngineResult<DeliveryRow> {
        let row = self.store.read(move |connection| deliveries::find(connection, id)).await?;
        row.filter(|row| row.application_id == caller.application)
            .ok_or_else(|| EngineError::not_found("delivery", id))
    }

    /// One delivery of the caller with its attempts.
    pub async fn find_delivery(&self, caller: &Caller, id: Uuid) -> EngineResult<DeliveryView> {
        let row = self.own_delivery(caller, id).await?;
        let key = row.id;
        let (attempts, body) = self
            .store
            .read(move |connection| {
                let attempts = deliveries::attempts(connection, key)?;
                Ok((attempts, deliveries::body(connection, key)?))
            })
            .await?;
        let raw = |text: Option<String>| {
            text.map(|text| read_json::<Box<RawValue>>("an attempt", &text)).transpose()
        };
        let mut log = Vec::with_capacity(attempts.len());
        for attempt in attempts {
            log.push(AttemptView {
                number: attempt.number,
                started_at: Timestamp(attempt.started_at),
                finished_at: attempt.finished_at.map(Timestamp),
                outcome: attempt.outcome,
                duration_ms: attempt.duration_ms,
                response_status: attempt.response_status,
                response_headers: raw(attempt.response_headers)?,
                response_body: attempt.response_body,
                error_code: attempt.error_code,
                error_detail: attempt.error_detail,
                resolved: raw(attempt.resolved)?,
                address: attempt.address,
                timings: raw(attempt.timings)?,
            });
        }
        let mut view = delivery_view(row)?;
        view.body = body;
        view.attempt_log = Some(log);
        Ok(view)
    }
}
