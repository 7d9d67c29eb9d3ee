//! Receivers: made once per distinct callback, kept open in memory for those who send.
//!
//! What a receiver holds never changes after its row is written, so a cached one is never stale.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::error::{EngineError, EngineResult};
use super::sealer::Sealer;
use super::stored::{json_null, read_json};
use crate::formats::{DeliveryFormat, Formats};
use crate::ids::{Key, Timestamp};
use crate::lifecycle::{EventType, callback_default, pattern_matches};
use crate::store::receivers::ReceiverRow;
use crate::store::{StoreError, StoreResult};

/// Deliveries to one callback at most at a rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Deliveries a second, on average.
    pub per_second: f64,
    /// Deliveries at once after a quiet time.
    pub burst: u32,
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
        let mut hash = Sha256::new();
        hash.update(application.as_bytes());
        hash.update(self.origin.as_bytes());
        hash.update(format!("{:?}", self.rate_limit).as_bytes());
        let digest = hash.finalize();
        let mut number = [0u8; 8];
        for (to, from) in number.iter_mut().zip(digest.iter()) {
            *to = *from;
        }
        i64::from_le_bytes(number) & i64::MAX
    }
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
    /// Owner.
    pub application: Key,
    /// Whether it was registered; a callback otherwise.
    pub is_endpoint: bool,
    /// Where to.
    pub url: String,
    /// What representations show.
    pub shown: Box<RawValue>,
    /// The caller's own headers.
    pub headers: Vec<(String, String)>,
    /// How to speak.
    pub format: Arc<dyn DeliveryFormat>,
    /// Patterns; `None` for the default.
    pub events: Option<Vec<String>>,
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
        let events = match &row.events {
            Some(text) => Some(read_json::<Vec<String>>("event patterns", text)?),
            None => None,
        };
        let rate_limit = row.rate_per_second.map(|per_second| RateLimit {
            per_second,
            burst: row.rate_burst.and_then(|burst| u32::try_from(burst).ok()).unwrap_or(1),
        });
        Ok(Receiver {
            key: row.id,
            application: row.application_id,
            is_endpoint: row.kind == "endpoint",
            url: sealed.url,
            shown: read_json("a shown receiver", &row.shown)?,
            headers: sealed.headers,
            format: Arc::clone(format),
            events,
            lane: row.lane,
            rate_limit,
            max_in_flight: row.max_in_flight,
            created_at: Timestamp(row.created_at),
            last_used_at: Timestamp(row.last_used_at),
        })
    }

    /// Whether this receiver is owed the event.
    pub fn wants(&self, event: EventType) -> bool {
        match &self.events {
            Some(patterns) => patterns.iter().any(|pattern| pattern_matches(pattern, event)),
            None if self.is_endpoint => event != EventType::JobProgressed,
            None => callback_default(event),
        }
    }
}

/// Receivers by key and by digest. Bounded: it starts over when full.
#[derive(Default)]
pub(super) struct ReceiverCache {
    maps: RwLock<Maps>,
}

#[derive(Default)]
struct Maps {
    by_key: HashMap<Key, Arc<Receiver>>,
    by_digest: HashMap<(Key, String), Arc<Receiver>>,
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
        maps.by_digest.insert((receiver.application, digest), Arc::clone(&receiver));
        maps.by_key.insert(receiver.key, receiver);
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
        kind: "callback".to_owned(),
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
    })
}
