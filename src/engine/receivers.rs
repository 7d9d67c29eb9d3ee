//! Receivers, kept open in memory for those who send.
//!
//! A callback is made once per distinct set of what it holds and never changes. An endpoint
//! changes, and its row carries a fresh version each time, so a remembered one is never used stale.

mod cache;
mod callbacks;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::sealer::Sealer;
use super::stored::{read_id, read_json};
use crate::formats::{DeliveryFormat, Formats, Schedule, Signature};
use crate::ids::{Key, Timestamp};
use crate::lifecycle::{EventType, callback_default, endpoint_default, pattern_matches};
use crate::store::receivers::ReceiverRow;
use crate::store::{StoreError, StoreResult};
pub(super) use cache::ReceiverCache;
pub use callbacks::NewCallback;

/// How fast deliveries to one receiver may come at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Deliveries a second, on average.
    pub per_second: f64,
    /// Deliveries at once after a quiet time.
    pub burst: u32,
}

impl RateLimit {
    /// A rate whose burst is, if nobody says otherwise, what comes in a second.
    pub fn new(per_second: f64, burst: Option<u32>) -> RateLimit {
        // Rates are bounded far below what fits.
        RateLimit { per_second, burst: burst.unwrap_or(per_second.ceil().max(1.0) as u32) }
    }

    /// An even rate: its burst is, if nobody says otherwise, what comes in 50 ms. With less, a fast
    /// rate is not reached, as a delivery that is a little late loses its place.
    pub fn even(per_second: f64, burst: Option<u32>) -> RateLimit {
        RateLimit { per_second, burst: burst.unwrap_or((per_second / 20.0).max(1.0) as u32) }
    }

    /// That of a row, if it has one.
    pub(super) fn of(row: &ReceiverRow) -> Option<RateLimit> {
        let burst = row.rate_burst.and_then(|burst| u32::try_from(burst).ok()).unwrap_or(1);
        row.rate_per_second.map(|per_second| RateLimit { per_second, burst })
    }
}

/// What comes after what in the deliveries of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ordering {
    /// Nothing: as fast as its limits allow.
    #[default]
    None,
    /// The events of one job one after the other; a final failure is passed over.
    PerJob,
    /// All events in the order of the feed; a final failure holds up the rest.
    Strict,
}

impl Ordering {
    /// All of them.
    pub const ALL: [Ordering; 3] = [Ordering::None, Ordering::PerJob, Ordering::Strict];

    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Ordering::None => "none",
            Ordering::PerJob => "per-job",
            Ordering::Strict => "strict",
        }
    }

    /// The order of that name.
    pub fn parse(name: &str) -> Option<Ordering> {
        Ordering::ALL.into_iter().find(|ordering| ordering.as_str() == name)
    }
}

/// What an answer of 4xx means that speaks of the message and not of the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientErrors {
    /// It is tried again on the short end of the schedule.
    Retry,
    /// It is final.
    Final,
}

impl ClientErrors {
    /// Both.
    pub const ALL: [ClientErrors; 2] = [ClientErrors::Retry, ClientErrors::Final];

    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            ClientErrors::Retry => "retry",
            ClientErrors::Final => "final",
        }
    }

    /// The choice of that name.
    pub fn parse(name: &str) -> Option<ClientErrors> {
        ClientErrors::ALL.into_iter().find(|choice| choice.as_str() == name)
    }
}

/// Bits of a lane's number that tell lanes of one application apart.
const LANE_BITS: u32 = 43;

/// A lane's number: a mark of its application above, what it is for below. The mark lets the sender
/// be fair between applications without asking whose a lane is.
pub(super) fn lane(application: uuid::Uuid, parts: &[&[u8]]) -> i64 {
    let hashed = |parts: &[&[u8]]| {
        let mut hash = Sha256::new();
        hash.update(application.as_bytes());
        parts.iter().for_each(|part| hash.update(part));
        let mut number = [0u8; 8];
        for (to, from) in number.iter_mut().zip(hash.finalize().iter()) {
            *to = *from;
        }
        i64::from_le_bytes(number) & i64::MAX
    };
    let below = hashed(parts) & ((1 << LANE_BITS) - 1);
    (hashed(&[]) >> LANE_BITS << LANE_BITS) | below
}

/// The mark of the application whose a lane is. Two of a million may share one, which costs them a
/// little of their fairness and nothing else.
pub fn application_mark(lane: i64) -> i64 {
    lane >> LANE_BITS
}

/// What is sealed of a receiver.
#[derive(Serialize, Deserialize)]
pub(super) struct SealedReceiver {
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
}

/// The place name under which receivers are sealed.
pub(super) const PLACE: &str = "receiver";

/// A receiver ready to be spoken to.
pub struct Receiver {
    /// Key.
    pub key: Key,
    /// Id outside.
    pub id: uuid::Uuid,
    /// Owner.
    pub application: Key,
    /// Whether it was registered; a callback otherwise.
    pub is_endpoint: bool,
    /// Of its row.
    pub version: i64,
    /// Where to.
    pub url: String,
    /// What representations show.
    pub shown: Box<RawValue>,
    /// The caller's own headers.
    pub headers: Vec<(String, String)>,
    /// How to speak.
    pub format: Arc<dyn DeliveryFormat>,
    /// How deliveries are signed.
    pub signature: Signature,
    /// Patterns; `None` for the default.
    pub events: Option<Vec<String>>,
    /// Types of jobs whose events are wanted; `None` for all.
    pub types: Option<Vec<String>>,
    /// What comes after what.
    pub ordering: Ordering,
    /// When tries happen, if not as the format has it.
    pub schedule: Option<Schedule>,
    /// What 4xx means, if not what the server says.
    pub client_errors: Option<ClientErrors>,
    /// Whether deliveries are held.
    pub is_disabled: bool,
    /// Whether it is no more.
    pub is_deleted: bool,
    /// Deliveries owed before are not wanted any more.
    pub discard_before: Timestamp,
    /// Where limits and order apply.
    pub lane: i64,
    /// Of its own.
    pub rate_limit: Option<RateLimit>,
    /// Of its own.
    pub max_in_flight: Option<i64>,
    /// When made.
    pub created_at: Timestamp,
    /// Kept to the day.
    pub last_used_at: Timestamp,
}

impl Receiver {
    /// Opens a row.
    pub(super) fn open(
        row: ReceiverRow,
        sealer: &Sealer,
        formats: &Formats,
    ) -> StoreResult<Receiver> {
        let corrupt = |text: String| StoreError::Corrupt(format!("receiver {}: {text}", row.id));
        let opened = sealer.open(PLACE, &row.sealed).map_err(|error| corrupt(error.to_string()))?;
        let sealed: SealedReceiver =
            serde_json::from_slice(&opened).map_err(|error| corrupt(error.to_string()))?;
        let format = formats.get(&row.format).map_err(|error| corrupt(error.to_string()))?;
        let events = list("event patterns", row.events.as_deref())?;
        let types = list("job types", row.types.as_deref())?;
        let schedule = match &row.schedule {
            Some(text) => Some(waits(&read_json::<Vec<u64>>("a schedule", text)?)),
            None => None,
        };
        Ok(Receiver {
            key: row.id,
            id: read_id(&row.public_id)?,
            application: row.application_id,
            is_endpoint: row.kind == ENDPOINT,
            version: row.version,
            url: sealed.url,
            shown: read_json("a shown receiver", &row.shown)?,
            headers: sealed.headers,
            format: Arc::clone(format),
            signature: Signature::parse(&row.signature).unwrap_or_default(),
            events,
            types,
            ordering: Ordering::parse(&row.ordering).unwrap_or_default(),
            schedule,
            client_errors: row.client_errors.as_deref().and_then(ClientErrors::parse),
            is_disabled: row.disabled_at.is_some(),
            is_deleted: row.deleted_at.is_some(),
            discard_before: Timestamp(row.discard_before),
            lane: row.lane,
            rate_limit: RateLimit::of(&row),
            max_in_flight: row.max_in_flight,
            created_at: Timestamp(row.created_at),
            last_used_at: Timestamp(row.last_used_at),
        })
    }

    /// Whether this receiver is owed the event; `job_type` when it is about a job.
    pub fn wants(&self, event: EventType, job_type: Option<&str>) -> bool {
        if let (Some(types), Some(job_type)) = (&self.types, job_type)
            && !types.iter().any(|wanted| wanted == job_type)
        {
            return false;
        }
        match &self.events {
            Some(patterns) => {
                event != EventType::EndpointPinged
                    && patterns.iter().any(|pattern| pattern_matches(pattern, event))
            }
            None if self.is_endpoint => endpoint_default(event),
            None => callback_default(event),
        }
    }

    /// Whether its use on this day is noted.
    pub(super) fn is_noted(&self, now: Timestamp) -> bool {
        is_of_this_day(self.last_used_at.0, now)
    }

    /// When tries happen.
    pub fn schedule(&self) -> &Schedule {
        self.schedule.as_ref().unwrap_or_else(|| self.format.schedule())
    }
}

/// Whether a use was noted so lately that another one need not be.
fn is_of_this_day(used_at: i64, now: Timestamp) -> bool {
    now.millis_since(Timestamp(used_at)) < DAY_MILLIS
}

/// A row with what every receiver has, and nothing else.
pub(super) fn bare_row(application: Key, kind: &str, now: Timestamp) -> ReceiverRow {
    ReceiverRow {
        id: 0,
        public_id: Vec::new(),
        application_id: application,
        kind: kind.to_owned(),
        digest: String::new(),
        origin: String::new(),
        shown: String::new(),
        sealed: Vec::new(),
        format: String::new(),
        events: None,
        lane: 0,
        rate_per_second: None,
        rate_burst: None,
        max_in_flight: None,
        created_at: now.0,
        last_used_at: now.0,
        disabled_at: None,
        disabled_reason: None,
        deleted_at: None,
        last_sequence: 0,
        schedule: None,
        version: 0,
        description: None,
        types: None,
        ordering: Ordering::None.as_str().to_owned(),
        signature: Signature::Standard.as_str().to_owned(),
        client_errors: None,
        updated_at: None,
        failing_since: None,
        discard_before: 0,
        blocked_by: None,
        settling: 0,
    }
}

fn list(what: &str, text: Option<&str>) -> StoreResult<Option<Vec<String>>> {
    text.map(|text| read_json::<Vec<String>>(what, text)).transpose()
}

/// A schedule of these seconds after the first try.
pub(super) fn waits(seconds: &[u64]) -> Schedule {
    Schedule::after_first(seconds.iter().map(|seconds| Duration::from_secs(*seconds)))
}

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1_000;

/// Kinds of receivers.
pub(super) const CALLBACK: &str = "callback";
pub(super) const ENDPOINT: &str = "endpoint";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_rate_may_be_fifty_milliseconds_late() {
        for (per_second, burst) in [(0.01, 1), (1.0, 1), (39.0, 1), (100.0, 5), (500.0, 25)] {
            assert_eq!(RateLimit::even(per_second, None), RateLimit { per_second, burst });
        }
        assert_eq!(RateLimit::even(500.0, Some(1)).burst, 1, "what is said is kept");
    }
}
