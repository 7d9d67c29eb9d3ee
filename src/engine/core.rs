//! What the transactions stand on besides the database: clock, seals, formats, receivers.

use std::collections::HashMap;
use std::sync::Arc;

use super::receivers::{Receiver, ReceiverCache};
use super::sealer::Sealer;
use crate::clock::Clock;
use crate::formats::Formats;
use crate::ids::Key;
use crate::store::{Connection, StoreResult, receivers};

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
    pub(super) receivers: ReceiverCache,
}

impl Core {
    /// Receivers by key, from memory or from the database. Keys without a
    /// readable row are left out.
    pub(super) fn receivers(
        &self,
        connection: &mut Connection,
        keys: impl IntoIterator<Item = Key>,
    ) -> StoreResult<HashMap<Key, Arc<Receiver>>> {
        let mut found = HashMap::new();
        let mut missing = Vec::new();
        for key in keys {
            if found.contains_key(&key) || missing.contains(&key) {
                continue;
            }
            match self.receivers.get(key) {
                Some(receiver) => {
                    found.insert(key, receiver);
                }
                None => missing.push(key),
            }
        }
        for row in receivers::load(connection, &missing)? {
            let digest = row.digest.clone();
            match Receiver::open(row, &self.sealer, &self.formats) {
                Ok(receiver) => {
                    let receiver = Arc::new(receiver);
                    self.receivers.keep(digest, Arc::clone(&receiver));
                    found.insert(receiver.key, receiver);
                }
                // One damaged row must not hold up everybody else's work.
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "a receiver cannot be read; it gets nothing");
                }
            }
        }
        Ok(found)
    }
}
