//! Endpoints: registered, listed, changed, deleted.
//!
//! Every change stamps the endpoint and its application anew in the same transaction, so whatever
//! any node remembers of them is known to be old from that commit on.

mod backlog;
mod key_ring;
mod merge;
mod secrets;
mod settings;
mod state;
mod stats;
mod testing;
mod view;

use std::sync::Arc;

use uuid::Uuid;

use super::Engine;
use super::callers::Caller;
use super::error::{EngineError, EngineResult};
use super::operation::subject;
use crate::ids::{Key, new_id, new_stamp};
use crate::store::receivers::ReceiverRow;
use crate::store::{StoreError, Transaction, applications, lanes, receivers};
pub(super) use backlog::{Settling, reason_to_cancel};
pub use key_ring::KeyRing;
pub use merge::{HeaderChanges, MOST_HEADER_BYTES, MOST_HEADERS, RateChange};
pub use secrets::{NewSecret, PublicKeyView, SecretKind, SecretView};
pub use settings::{Address, EndpointPatch, EndpointSettings, NewEndpoint};
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
                applications::hold(transaction, application)?;
                let held = receivers::count(transaction, application)?;
                if held >= MOST_ENDPOINTS {
                    return Err(EngineError::TooManyEndpoints(MOST_ENDPOINTS));
                }
                let mut row = row.clone();
                row.id = transaction.key()?;
                receivers::insert(transaction, &row)?;
                secrets::insert(transaction, core, &row, &drawn, now)?;
                applications::stamp(transaction, application, new_stamp())?;
                Ok(row)
            })
            .await?;
        Ok(Registered { endpoint: view::endpoint(&row, None)?, key: Some(key) })
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
                        applications::stamp(transaction, application, new_stamp())?;
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
            applications::stamp(transaction, application, new_stamp())?;
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

fn corrupt(text: String) -> EngineError {
    EngineError::Store(StoreError::Corrupt(text))
}
