//! Endpoints: registered, listed, changed, deleted.
//!
//! Every change stamps the endpoint and its application anew in the same transaction, so whatever
//! any node remembers of them is known to be old from that commit on.

mod backlog;
mod merge;
mod secrets;
mod state;
mod stats;
mod testing;
mod view;

use std::sync::Arc;

use uuid::Uuid;

use super::Engine;
use super::applications::Caller;
use super::error::{EngineError, EngineResult};
use super::operation::subject;
use super::receivers::{
    ClientErrors, ENDPOINT, Ordering, PLACE, RateLimit, Receiver, SealedReceiver, bare_row, lane,
};
use crate::formats::Signature;
use crate::ids::{Key, Timestamp, new_id, new_stamp};
use crate::store::receivers::ReceiverRow;
use crate::store::{StoreError, Transaction, lanes, receivers};
pub(super) use backlog::{Settling, reason_to_cancel};
pub use merge::{HeaderChanges, MOST_HEADER_BYTES, MOST_HEADERS, RateChange};
pub use secrets::{KeyRing, NewSecret, PublicKeyView, SecretKind, SecretView};
pub use state::Backlog;
pub(super) use state::disable;
pub use stats::{BacklogView, EndpointStats, LaneView, Latency};
pub use testing::Triggered;
pub use view::EndpointView;
pub(super) use view::as_of;

/// Why a delivery ended whose endpoint was deleted.
pub const DELETED: &str = "endpoint_deleted";
/// Why a delivery ended that was discarded with a backlog.
pub const DISCARDED: &str = "discarded";

/// Endpoints of one application at most: each may get every event.
pub const MOST_ENDPOINTS: i64 = 1_000;

/// An address as the caller gave it, checked.
#[derive(Clone, Debug)]
pub struct Address {
    /// Normalised URL, with whatever credentials its query holds.
    pub url: String,
    /// The URL as it is shown.
    pub shown_url: String,
    /// scheme://host:port.
    pub origin: String,
}

/// What can be said of an endpoint, at its registration and later.
#[derive(Clone, Debug)]
pub struct EndpointSettings {
    /// For people.
    pub description: Option<String>,
    /// Patterns; `None` for the default.
    pub events: Option<Vec<String>>,
    /// Types of jobs whose events are wanted; `None` for all.
    pub types: Option<Vec<String>>,
    /// Sent with every delivery.
    pub headers: Vec<(String, String)>,
    /// Deliveries a second.
    pub rate_limit: Option<RateLimit>,
    /// Deliveries at once.
    pub max_in_flight: Option<u32>,
    /// What comes after what.
    pub ordering: Ordering,
    /// How deliveries are signed.
    pub signature: Signature,
    /// Seconds after the first try; `None` for the server's schedule.
    pub schedule: Option<Vec<u64>>,
    /// What 4xx means; `None` for what the server says.
    pub client_errors: Option<ClientErrors>,
}

impl Default for EndpointSettings {
    fn default() -> EndpointSettings {
        EndpointSettings {
            description: None,
            events: None,
            types: None,
            headers: Vec::new(),
            rate_limit: None,
            max_in_flight: None,
            ordering: Ordering::None,
            signature: Signature::Standard,
            schedule: None,
            client_errors: None,
        }
    }
}

/// An endpoint on its way in.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    /// Where to.
    pub address: Address,
    /// What else is said of it.
    pub settings: EndpointSettings,
    /// Whether deliveries are sent from the start.
    pub enabled: bool,
}

/// What changes of an endpoint. Members that are `None` stay.
#[derive(Clone, Debug, Default)]
pub struct EndpointPatch {
    /// Where to.
    pub address: Option<Address>,
    /// For people.
    pub description: Option<Option<String>>,
    /// Patterns.
    pub events: Option<Option<Vec<String>>>,
    /// Types of jobs.
    pub types: Option<Option<Vec<String>>>,
    /// `Some(None)` removes them all.
    pub headers: Option<Option<HeaderChanges>>,
    /// Deliveries a second.
    pub rate_limit: Option<Option<RateChange>>,
    /// Deliveries at once.
    pub max_in_flight: Option<Option<u32>>,
    /// What comes after what.
    pub ordering: Option<Ordering>,
    /// How deliveries are signed.
    pub signature: Option<Signature>,
    /// Seconds after the first try.
    pub schedule: Option<Option<Vec<u64>>>,
    /// What 4xx means.
    pub client_errors: Option<Option<ClientErrors>>,
    /// Whether deliveries are sent.
    pub enabled: Option<bool>,
}

/// An endpoint and, when one was made for it, the key to verify its deliveries with.
#[derive(Debug)]
pub struct Registered {
    /// As it is now.
    pub endpoint: EndpointView,
    /// Shown this once, if it is a secret.
    pub key: Option<NewSecret>,
}

impl Engine {
    /// Registers an endpoint.
    pub async fn create_endpoint(
        &self,
        caller: &Caller,
        new: NewEndpoint,
    ) -> EngineResult<Registered> {
        let now = self.now();
        let id = new_id();
        let mut row = self.new_row(caller, id, &new, now)?;
        if !new.enabled {
            row.disabled_at = Some(now.0);
            row.disabled_reason = Some(state::BY_REQUEST.to_owned());
        }
        let key = self.draw_secret_for(new.settings.signature)?;
        let application = caller.application;
        let drawn = key.clone();
        let row = self
            .custom(vec![subject("endpoints", application)], move |transaction, core, _| {
                if transaction.is_repeated()
                    && let Some(row) = receivers::ever(transaction, id)?
                {
                    return Ok(row);
                }
                // Two that count beside each other would both find room for the last one.
                receivers::hold_application(transaction, application)?;
                let held = receivers::count(transaction, application)?;
                if held >= MOST_ENDPOINTS {
                    return Err(EngineError::TooManyEndpoints(MOST_ENDPOINTS));
                }
                let mut row = row.clone();
                row.id = transaction.key()?;
                receivers::insert(transaction, &row)?;
                secrets::insert(transaction, core, &row, &drawn, now)?;
                receivers::stamp_application(transaction, application, new_stamp())?;
                Ok(row)
            })
            .await?;
        Ok(Registered { endpoint: view::endpoint(&row, None)?, key: Some(key) })
    }

    fn new_row(
        &self,
        caller: &Caller,
        id: Uuid,
        new: &NewEndpoint,
        now: Timestamp,
    ) -> EngineResult<ReceiverRow> {
        let mut row = ReceiverRow {
            public_id: id.as_bytes().to_vec(),
            // Two endpoints may be equal in everything else.
            digest: format!("endpoint {id}"),
            format: "standard".to_owned(),
            lane: lane(caller.application_id, &[b"endpoint", id.as_bytes()]),
            version: new_stamp(),
            updated_at: Some(now.0),
            ..bare_row(caller.application, ENDPOINT, now)
        };
        let sealed =
            SealedReceiver { url: new.address.url.clone(), headers: new.settings.headers.clone() };
        self.write_address(&mut row, &new.address, sealed)?;
        write_settings(&mut row, &new.settings)?;
        Ok(row)
    }

    fn write_address(
        &self,
        row: &mut ReceiverRow,
        address: &Address,
        sealed: SealedReceiver,
    ) -> EngineResult<()> {
        row.origin.clone_from(&address.origin);
        row.shown = view::shown(&address.shown_url, &sealed.headers);
        let plain = serde_json::to_vec(&sealed).map_err(|error| corrupt(error.to_string()))?;
        let sealed = self.core.sealer.seal(PLACE, &plain);
        row.sealed = sealed.map_err(|error| corrupt(error.to_string()))?;
        Ok(())
    }

    /// The caller's endpoint.
    pub async fn find_endpoint(&self, caller: &Caller, id: Uuid) -> EngineResult<EndpointView> {
        let row = self.endpoint_row(caller, id).await?;
        self.endpoint_view(row).await
    }

    async fn endpoint_view(&self, row: ReceiverRow) -> EngineResult<EndpointView> {
        let blocked_by = self.blocking_ids(&[&row]).await?;
        Ok(view::endpoint(&row, blocked_by.first().copied().flatten())?)
    }

    /// Ids outside of the deliveries that hold endpoints up.
    async fn blocking_ids(&self, rows: &[&ReceiverRow]) -> EngineResult<Vec<Option<Uuid>>> {
        let keys: Vec<Option<Key>> = rows.iter().map(|row| row.blocked_by).collect();
        if keys.iter().all(Option::is_none) {
            return Ok(vec![None; keys.len()]);
        }
        let wanted: Vec<Key> = keys.iter().flatten().copied().collect();
        let found = self
            .store
            .read(move |connection| crate::store::deliveries::ids(connection, &wanted))
            .await?;
        let id = |key: &Option<Key>| {
            let place = found.iter().find(|(known, _)| Some(*known) == *key);
            place.map(|(_, id)| *id)
        };
        Ok(keys.iter().map(id).collect())
    }

    pub(super) async fn endpoint_row(
        &self,
        caller: &Caller,
        id: Uuid,
    ) -> EngineResult<ReceiverRow> {
        let row = self.store.read(move |connection| receivers::endpoint(connection, id)).await?;
        row.filter(|row| row.application_id == caller.application)
            .ok_or_else(|| EngineError::not_found("endpoint", id))
    }

    /// One page of the caller's endpoints, newest first, and where the next starts.
    pub async fn list_endpoints(
        &self,
        caller: &Caller,
        before: (i64, Key),
        limit: usize,
    ) -> EngineResult<(Vec<EndpointView>, Option<(i64, Key)>)> {
        let application = caller.application;
        let most = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        let mut rows = self
            .store
            .read(move |connection| receivers::list(connection, application, before, most))
            .await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| (row.created_at, row.id));
        let blocking = self.blocking_ids(&rows.iter().collect::<Vec<_>>()).await?;
        let views: Result<Vec<_>, _> = rows
            .iter()
            .zip(blocking)
            .map(|(row, blocked_by)| view::endpoint(row, blocked_by))
            .collect();
        Ok((views?, next))
    }

    /// Changes an endpoint. What is owed to it already is sent as it is then.
    pub async fn change_endpoint(
        self: &Arc<Self>,
        caller: &Caller,
        id: Uuid,
        patch: EndpointPatch,
    ) -> EngineResult<Registered> {
        let known = self.endpoint_row(caller, id).await?;
        // Whether it is needed is known when the row is held.
        let drawn = patch.signature.map(|signature| self.draw_secret_for(signature)).transpose()?;
        let application = caller.application;
        let engine = Arc::clone(self);
        let (row, key, lanes) = self
            .custom(subjects(application, known.id), move |transaction, core, now| {
                let mut row = own(transaction, application, id)?;
                let ordering = row.ordering.clone();
                engine.patch(&mut row, &patch)?;
                row.updated_at = Some(now.0);
                row.version = new_stamp();
                // What is owed has to follow the order and the state, and nothing else.
                if row.ordering != ordering {
                    row.settling = 1;
                }
                let mut lanes = Vec::new();
                if patch.address.is_some() {
                    // What failed was another address.
                    row.failing_since = None;
                    lanes::probe(transaction, row.lane, now.0)?;
                    lanes.push(row.lane);
                }
                match (patch.enabled, row.disabled_at) {
                    (Some(false), None) => {
                        let reason = state::BY_REQUEST;
                        state::switch_off(core, transaction, &mut row, reason, now, &mut lanes)?;
                    }
                    (Some(true), Some(_)) => {
                        let backlog = Backlog::Resume;
                        state::switch_on(core, transaction, &mut row, backlog, now, &mut lanes)?;
                    }
                    _ => {
                        receivers::update_endpoint(transaction, &row)?;
                        receivers::stamp_application(transaction, application, new_stamp())?;
                    }
                }
                let key = match &drawn {
                    Some(drawn) if secrets::provide(transaction, core, &row, drawn, now)? => {
                        Some(drawn.clone())
                    }
                    _ => None,
                };
                Ok((row, key, lanes))
            })
            .await?;
        self.bells.ring_lanes(&lanes);
        if row.settling != 0 {
            self.settle_backlog(row.id).await?;
        }
        let endpoint = self.endpoint_view(row).await?;
        Ok(Registered { endpoint, key })
    }

    fn patch(&self, row: &mut ReceiverRow, patch: &EndpointPatch) -> EngineResult<()> {
        let mut receiver = Receiver::open(row.clone(), &self.core.sealer, &self.core.formats)?;
        if patch.address.is_some() || patch.headers.is_some() {
            let known = std::mem::take(&mut receiver.headers);
            let headers = match &patch.headers {
                None => known,
                Some(None) => Vec::new(),
                Some(Some(changes)) => merge::headers(known, changes)?,
            };
            let address = match &patch.address {
                Some(address) => address.clone(),
                None => Address {
                    url: receiver.url,
                    shown_url: view::shown_url(&row.shown)?,
                    origin: row.origin.clone(),
                },
            };
            let sealed = SealedReceiver { url: address.url.clone(), headers };
            self.write_address(row, &address, sealed)?;
        }
        if let Some(description) = &patch.description {
            row.description.clone_from(description);
        }
        if let Some(events) = &patch.events {
            row.events = json(events.as_ref())?;
        }
        if let Some(types) = &patch.types {
            row.types = json(types.as_ref())?;
        }
        if let Some(change) = patch.rate_limit {
            let known = receiver.rate_limit;
            let rate_limit = change.map(|change| merge::rate(known, change)).transpose()?;
            row.rate_per_second = rate_limit.map(|limit| limit.per_second);
            row.rate_burst = rate_limit.map(|limit| i64::from(limit.burst));
        }
        if let Some(most) = patch.max_in_flight {
            row.max_in_flight = most.map(i64::from);
        }
        if let Some(ordering) = patch.ordering {
            ordering.as_str().clone_into(&mut row.ordering);
        }
        if let Some(signature) = patch.signature {
            signature.as_str().clone_into(&mut row.signature);
        }
        if let Some(schedule) = &patch.schedule {
            row.schedule = json(schedule.as_ref())?;
        }
        if let Some(client_errors) = patch.client_errors {
            row.client_errors = client_errors.map(|choice| choice.as_str().to_owned());
        }
        Ok(())
    }

    /// Deletes an endpoint: it gets nothing any more, and what it was owed is cancelled.
    pub async fn delete_endpoint(&self, caller: &Caller, id: Uuid) -> EngineResult<()> {
        let application = caller.application;
        let known = self.endpoint_row(caller, id).await?;
        self.custom(subjects(application, known.id), move |transaction, _, now| {
            let mut row = match own(transaction, application, id) {
                Err(EngineError::NotFound { .. }) if transaction.is_repeated() => return Ok(()),
                held => held?,
            };
            row.deleted_at = Some(now.0);
            row.disabled_at = row.disabled_at.or(Some(now.0));
            row.version = new_stamp();
            row.settling = 1;
            receivers::update_endpoint(transaction, &row)?;
            receivers::stamp_application(transaction, application, new_stamp())?;
            Ok(())
        })
        .await?;
        self.settle_backlog(known.id).await
    }
}

/// What every change of an endpoint touches.
fn subjects(application: Key, endpoint: Key) -> Vec<u64> {
    vec![subject("endpoints", application), subject("endpoint", endpoint)]
}

/// The application's endpoint, held.
fn own(transaction: &mut Transaction<'_>, application: Key, id: Uuid) -> EngineResult<ReceiverRow> {
    let row = receivers::hold_endpoint(transaction, id)?;
    row.filter(|row| row.application_id == application)
        .ok_or_else(|| EngineError::not_found("endpoint", id))
}

fn write_settings(row: &mut ReceiverRow, settings: &EndpointSettings) -> EngineResult<()> {
    row.description.clone_from(&settings.description);
    row.events = json(settings.events.as_ref())?;
    row.types = json(settings.types.as_ref())?;
    row.rate_per_second = settings.rate_limit.map(|limit| limit.per_second);
    row.rate_burst = settings.rate_limit.map(|limit| i64::from(limit.burst));
    row.max_in_flight = settings.max_in_flight.map(i64::from);
    settings.ordering.as_str().clone_into(&mut row.ordering);
    settings.signature.as_str().clone_into(&mut row.signature);
    row.schedule = json(settings.schedule.as_ref())?;
    row.client_errors = settings.client_errors.map(|choice| choice.as_str().to_owned());
    Ok(())
}

fn json<T: serde::Serialize>(value: Option<&T>) -> EngineResult<Option<String>> {
    let text = value.map(serde_json::to_string).transpose();
    text.map_err(|error| corrupt(error.to_string()))
}

fn corrupt(text: String) -> EngineError {
    EngineError::Store(StoreError::Corrupt(text))
}
