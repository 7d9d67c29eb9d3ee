//! An endpoint as the API shows it, and as its own events do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::engine::receivers::{Ordering, RateLimit};
use crate::engine::stored::{json_null, read_id, read_json};
use crate::ids::{Key, Timestamp};
use crate::lifecycle::EventType;
use crate::store::StoreResult;
use crate::store::events::FeedRow;
use crate::store::receivers::ReceiverRow;

/// What a row shows of the values that are sealed.
#[derive(Serialize, Deserialize)]
struct Shown {
    url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, String>>,
}

/// The URL as it is shown and the names of headers.
pub(super) fn shown(shown_url: &str, headers: &[(String, String)]) -> String {
    let names = headers.iter().map(|(name, _)| (name.clone(), "***".to_owned())).collect();
    let headers = (!headers.is_empty()).then_some(names);
    serde_json::to_string(&Shown { url: shown_url.to_owned(), headers }).unwrap_or_default()
}

/// The URL of what a row shows.
pub(super) fn shown_url(shown: &str) -> StoreResult<String> {
    Ok(read_json::<Shown>("a shown endpoint", shown)?.url)
}

/// An endpoint as the API shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointView {
    /// Id.
    pub id: Uuid,
    /// Where to, masked.
    pub url: String,
    /// For people.
    pub description: Option<String>,
    /// Patterns; null for the default.
    pub events: Option<Vec<String>>,
    /// Types of jobs; null for all.
    pub types: Option<Vec<String>>,
    /// Names of headers, masked.
    pub headers: Option<BTreeMap<String, String>>,
    /// Deliveries a second.
    pub rate_limit: Option<RateLimit>,
    /// Deliveries at once.
    pub max_in_flight: Option<i64>,
    /// What comes after what.
    pub ordering: Ordering,
    /// standard, hex or ed25519.
    pub signature: String,
    /// Seconds after the first try; null for the server's.
    pub retry_schedule: Option<Vec<u64>>,
    /// retry or final; null for what the server says.
    pub client_errors: Option<String>,
    /// Whether deliveries are sent.
    pub enabled: bool,
    /// enabled, disabled or blocked.
    pub state: &'static str,
    /// Why disabled.
    pub disabled_reason: Option<String>,
    /// Since when disabled.
    pub date_disabled: Option<Timestamp>,
    /// The delivery that holds it up.
    pub blocked_by: Option<Uuid>,
    /// The first failure since the last success.
    pub failing_since: Option<Timestamp>,
    /// When registered.
    pub date_created: Timestamp,
    /// When last changed.
    pub date_updated: Timestamp,
    /// Key.
    #[serde(skip)]
    pub key: Key,
}

/// The word for how an endpoint stands.
pub(super) fn state(row: &ReceiverRow) -> &'static str {
    if row.disabled_at.is_some() {
        "disabled"
    } else if row.blocked_by.is_some() {
        "blocked"
    } else {
        "enabled"
    }
}

/// From a row.
pub(super) fn endpoint(row: &ReceiverRow, blocked_by: Option<Uuid>) -> StoreResult<EndpointView> {
    let shown: Shown = read_json("a shown endpoint", &row.shown)?;
    let list = |what, text: &Option<String>| {
        text.as_deref().map(|text| read_json::<Vec<String>>(what, text)).transpose()
    };
    let seconds = |text: &str| read_json::<Vec<u64>>("a schedule", text);
    Ok(EndpointView {
        id: read_id(&row.public_id)?,
        url: shown.url,
        description: row.description.clone(),
        events: list("event patterns", &row.events)?,
        types: list("job types", &row.types)?,
        headers: shown.headers,
        rate_limit: RateLimit::of(row),
        max_in_flight: row.max_in_flight,
        ordering: Ordering::parse(&row.ordering).unwrap_or_default(),
        signature: row.signature.clone(),
        retry_schedule: row.schedule.as_deref().map(seconds).transpose()?,
        client_errors: row.client_errors.clone(),
        enabled: row.disabled_at.is_none(),
        state: state(row),
        disabled_reason: row.disabled_reason.clone(),
        date_disabled: row.disabled_at.map(Timestamp),
        blocked_by,
        failing_since: row.failing_since.map(Timestamp),
        date_created: Timestamp(row.created_at),
        date_updated: Timestamp(row.updated_at.unwrap_or(row.created_at)),
        key: row.id,
    })
}

/// The endpoint as its events show it.
pub(super) fn json(row: &ReceiverRow) -> StoreResult<Box<RawValue>> {
    let view = endpoint(row, None)?;
    Ok(serde_json::value::to_raw_value(&view).unwrap_or_else(|_| json_null()))
}

/// The endpoint as it was at one of its events, as far as that tells.
pub(in crate::engine) fn as_of(row: &ReceiverRow, event: &FeedRow) -> StoreResult<Box<RawValue>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        reason: Option<String>,
        failing_since: Option<Timestamp>,
    }
    let mut row = row.clone();
    let data: Data = read_json("an event", &event.data)?;
    let is_disabled = event.event_type == EventType::EndpointDisabled.as_str();
    row.disabled_at = is_disabled.then_some(event.at);
    row.disabled_reason = data.reason;
    row.failing_since = data.failing_since.map(|since| since.0);
    row.updated_at = Some(event.at);
    json(&row)
}
