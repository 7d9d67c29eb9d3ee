//! What the transactions stand on besides the database: clock, seals, formats, receivers.

use std::collections::HashMap;
use std::sync::Arc;

use super::fronts::Fronts;
use super::receivers::{RateLimit, Receiver, ReceiverCache};
use super::sealer::Sealer;
use super::takers::Takers;
use crate::clock::Clock;
use crate::formats::Formats;
use crate::ids::Key;
use crate::store::receivers::ReceiverRow;
use crate::store::{Connection, StoreResult, applications, receivers};

/// Shared by the engine and its writers.
pub struct Core {
    /// The time.
    pub clock: Clock,
    /// Secrets at rest.
    pub sealer: Sealer,
    /// Ways to speak to receivers.
    pub formats: Formats,
    /// Base of absolute URLs in bodies.
    pub public_url: String,
    /// An endpoint without a success for this long is disabled, if ever.
    pub disable_after_millis: Option<i64>,
    /// Of lanes whose receiver has no rate of its own.
    pub lane_rate: Option<RateLimit>,
    pub(super) receivers: ReceiverCache,
    pub(super) takers: Takers,
    /// How far claims have come in each queue and lane.
    pub(super) queues: Fronts<String>,
    pub(super) lanes: Fronts<i64>,
}

impl Core {
    /// Callbacks by key, from memory or from the database. Keys without a readable row are left out.
    pub(super) fn receivers(
        &self,
        connection: &mut Connection,
        keys: impl IntoIterator<Item = Key>,
    ) -> StoreResult<HashMap<Key, Arc<Receiver>>> {
        self.receivers_of(connection, keys.into_iter().map(|key| (key, 0)))
    }

    /// Receivers by key and the version of their row, from memory when that is of the version.
    pub(super) fn receivers_of(
        &self,
        connection: &mut Connection,
        keys: impl IntoIterator<Item = (Key, i64)>,
    ) -> StoreResult<HashMap<Key, Arc<Receiver>>> {
        let mut found = HashMap::new();
        let mut missing = Vec::new();
        for (key, version) in keys {
            if found.contains_key(&key) || missing.contains(&key) {
                continue;
            }
            match self.receivers.get(key).filter(|known| known.version == version) {
                Some(receiver) => {
                    found.insert(key, receiver);
                }
                None => missing.push(key),
            }
        }
        for row in receivers::load(connection, &missing)? {
            if let Some(receiver) = self.open(row) {
                found.insert(receiver.key, receiver);
            }
        }
        Ok(found)
    }

    /// Opens a row and remembers it. One damaged row must not hold up everybody else's work.
    fn open(&self, row: ReceiverRow) -> Option<Arc<Receiver>> {
        if let Some(known) = self.receivers.get(row.id).filter(|known| known.version == row.version)
        {
            return Some(known);
        }
        let digest = row.digest.clone();
        match Receiver::open(row, &self.sealer, &self.formats) {
            Ok(receiver) => {
                let receiver = Arc::new(receiver);
                self.receivers.keep(digest, Arc::clone(&receiver));
                Some(receiver)
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "a receiver cannot be read; it gets nothing");
                None
            }
        }
    }

    /// The endpoints of an application as this transaction sees them.
    pub(super) fn endpoints(
        &self,
        connection: &mut Connection,
        application: Key,
    ) -> StoreResult<Arc<[Arc<Receiver>]>> {
        let version = applications::version(connection, application)?;
        if version == 0 {
            return Ok(Arc::new([]));
        }
        if let Some((_, endpoints)) = self.receivers.endpoints(application, version) {
            return Ok(endpoints);
        }
        let rows = receivers::endpoints(connection, application)?;
        let endpoints: Arc<[Arc<Receiver>]> =
            rows.into_iter().filter_map(|row| self.open(row)).collect();
        self.receivers.keep_endpoints(application, (version, Arc::clone(&endpoints)));
        Ok(endpoints)
    }
}
