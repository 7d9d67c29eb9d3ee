//! Receivers, kept open in memory for those who send.
//!
//! A callback is made once per distinct set of what it holds and never changes. An endpoint
//! changes, and its row carries a fresh version each time, so a remembered one is never used stale.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::error::{EngineError, EngineResult};
use super::sealer::Sealer;
use super::stored::{json_null, read_id, read_json};
use crate::formats::{DeliveryFormat, Formats, Schedule, Signature};
use crate::ids::{Key, Timestamp};
use crate::lifecycle::{EventType, callback_default, endpoint_default, pattern_matches};
use crate::store::receivers::ReceiverRow;
use crate::store::{StoreError, StoreResult};

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

/// A callback as the caller gave it, checked.
#[derive(Clone, Debug)]
pub struct NewCallback {
    /// Normalised URL, with whatever credentials its query holds.
    pub url: String,
    /// The URL as it is shown.
    pub shown_url: String,
    /// scheme://host:port.
    pub origin: String,
    /// Sent with every delivery.
    pub headers: Vec<(String, String)>,
    /// Patterns; `None` for the default.
    pub events: Option<Vec<String>>,
    /// Delivery format.
    pub format: String,
    /// Of the caller's own.
    pub rate_limit: Option<RateLimit>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownCallback<'a> {
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<std::collections::BTreeMap<&'a str, &'static str>>,
    format: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<RateLimit>,
}

impl NewCallback {
    /// What representations show: names of headers, never their values.
    pub fn shown(&self) -> Box<RawValue> {
        let headers = self.headers.iter().map(|(name, _)| (name.as_str(), "***")).collect();
        let shown = ShownCallback {
            url: &self.shown_url,
            events: self.events.as_deref(),
            headers: (!self.headers.is_empty()).then_some(headers),
            format: &self.format,
            rate_limit: self.rate_limit,
        };
        serde_json::value::to_raw_value(&shown).unwrap_or_else(|_| json_null())
    }

    /// Equal for equal callbacks. Keyed by the master key, since it covers header values.
    pub(super) fn digest(&self, sealer: &Sealer) -> String {
        let parts = (&self.url, &self.format, &self.headers, &self.events, &self.rate_limit);
        sealer.keyed_digest(serde_json::to_string(&parts).unwrap_or_default().as_bytes())
    }

    /// Where limits apply: the application's callbacks to one origin; those with a rate of their
    /// own apart from the rest, so that neither slows the other.
    pub fn lane(&self, application: uuid::Uuid) -> i64 {
        lane(application, &[self.origin.as_bytes(), format!("{:?}", self.rate_limit).as_bytes()])
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

    /// When tries happen.
    pub fn schedule(&self) -> &Schedule {
        self.schedule.as_ref().unwrap_or_else(|| self.format.schedule())
    }
}

fn list(what: &str, text: Option<&str>) -> StoreResult<Option<Vec<String>>> {
    text.map(|text| read_json::<Vec<String>>(what, text)).transpose()
}

/// A schedule of these seconds after the first try.
pub(super) fn waits(seconds: &[u64]) -> Schedule {
    Schedule::after_first(seconds.iter().map(|seconds| Duration::from_secs(*seconds)))
}

/// Kinds of receivers.
pub(super) const CALLBACK: &str = "callback";
pub(super) const ENDPOINT: &str = "endpoint";

/// Endpoints of an application as they were at a version.
type Known = (i64, Arc<[Arc<Receiver>]>);

/// Receivers by key and by digest, and the endpoints of applications. Bounded: it starts over when
/// full.
#[derive(Default)]
pub(super) struct ReceiverCache {
    maps: RwLock<Maps>,
}

#[derive(Default)]
struct Maps {
    by_key: HashMap<Key, Arc<Receiver>>,
    by_digest: HashMap<(Key, String), Arc<Receiver>>,
    endpoints: HashMap<Key, Known>,
}

const CACHED_RECEIVERS: usize = 50_000;

impl ReceiverCache {
    pub(super) fn get(&self, key: Key) -> Option<Arc<Receiver>> {
        self.maps.read().unwrap_or_else(PoisonError::into_inner).by_key.get(&key).cloned()
    }

    pub(super) fn find(&self, application: Key, digest: &str) -> Option<Arc<Receiver>> {
        let maps = self.maps.read().unwrap_or_else(PoisonError::into_inner);
        maps.by_digest.get(&(application, digest.to_owned())).cloned()
    }

    pub(super) fn keep(&self, digest: String, receiver: Arc<Receiver>) {
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        if maps.by_key.len() >= CACHED_RECEIVERS {
            *maps = Maps::default();
        }
        if !receiver.is_endpoint {
            maps.by_digest.insert((receiver.application, digest), Arc::clone(&receiver));
        }
        maps.by_key.insert(receiver.key, receiver);
    }

    /// What is remembered of an application's endpoints, if it is of that version.
    pub(super) fn endpoints(&self, application: Key, version: i64) -> Option<Known> {
        let maps = self.maps.read().unwrap_or_else(PoisonError::into_inner);
        maps.endpoints.get(&application).filter(|(known, _)| *known == version).cloned()
    }

    /// How many endpoints an application had when it was last asked for.
    pub(super) fn breadth(&self, application: Key) -> usize {
        let maps = self.maps.read().unwrap_or_else(PoisonError::into_inner);
        maps.endpoints.get(&application).map_or(0, |(_, endpoints)| endpoints.len())
    }

    pub(super) fn keep_endpoints(&self, application: Key, known: Known) {
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        if maps.endpoints.len() >= CACHED_RECEIVERS {
            maps.endpoints.clear();
        }
        maps.endpoints.insert(application, known);
    }
}

/// A callback as a row.
pub(super) fn new_row(
    callback: &NewCallback,
    application: Key,
    application_id: uuid::Uuid,
    sealer: &Sealer,
    now: Timestamp,
) -> EngineResult<ReceiverRow> {
    let sealed = SealedReceiver { url: callback.url.clone(), headers: callback.headers.clone() };
    let failed = |text: String| EngineError::Store(StoreError::Corrupt(text));
    let plain = serde_json::to_vec(&sealed).map_err(|error| failed(error.to_string()))?;
    let events = match &callback.events {
        Some(patterns) => {
            Some(serde_json::to_string(patterns).map_err(|error| failed(error.to_string()))?)
        }
        None => None,
    };
    Ok(ReceiverRow {
        id: 0,
        public_id: crate::ids::new_id().as_bytes().to_vec(),
        application_id: application,
        kind: CALLBACK.to_owned(),
        digest: callback.digest(sealer),
        origin: callback.origin.clone(),
        shown: callback.shown().get().to_owned(),
        sealed: sealer.seal(PLACE, &plain).map_err(|error| failed(error.to_string()))?,
        format: callback.format.clone(),
        events,
        lane: callback.lane(application_id),
        rate_per_second: callback.rate_limit.map(|limit| limit.per_second),
        rate_burst: callback.rate_limit.map(|limit| i64::from(limit.burst)),
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
    })
}

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
