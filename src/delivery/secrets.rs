//! What signs deliveries, kept open as long as its owner's version says that nothing changed.
//!
//! A claim tells the version, so a secret that was revoked signs nothing that is claimed after it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::{Engine, EngineResult, KeyRing, OwedDelivery};
use crate::formats::SigningKeys;
use crate::ids::{Key, Timestamp};

const KEPT_OWNERS: usize = 50_000;

#[derive(Default)]
pub(super) struct Secrets {
    known: Mutex<HashMap<Key, (i64, Arc<KeyRing>)>>,
    /// When each signed last, since the last time somebody asked.
    used: Mutex<HashMap<Key, Timestamp>>,
}

impl Secrets {
    /// What signs a delivery now.
    pub(super) async fn of(
        &self,
        engine: &Engine,
        delivery: &OwedDelivery,
    ) -> EngineResult<SigningKeys> {
        let ring = self.ring(engine, delivery).await?;
        let now = engine.now();
        let mut used = lock(&self.used);
        ring.credentials_at(now).into_iter().for_each(|key| {
            used.insert(key, now);
        });
        Ok(ring.at(now))
    }

    async fn ring(&self, engine: &Engine, delivery: &OwedDelivery) -> EngineResult<Arc<KeyRing>> {
        let receiver = &delivery.receiver;
        // Endpoints and applications have their keys from one counter.
        let owner = if receiver.is_endpoint { receiver.key } else { delivery.application };
        let version = delivery.secrets_version;
        let known = lock(&self.known).get(&owner).cloned();
        if let Some((_, ring)) = known.filter(|(known, _)| *known == version) {
            return Ok(ring);
        }
        let ring = Arc::new(if receiver.is_endpoint {
            engine.endpoint_keys(owner).await?
        } else {
            engine.application_keys(owner).await?
        });
        let mut known = lock(&self.known);
        if known.len() >= KEPT_OWNERS {
            known.clear();
        }
        known.insert(owner, (version, Arc::clone(&ring)));
        Ok(ring)
    }

    /// Which have signed since the last call, and when last.
    pub(super) fn take_used(&self) -> Vec<(Key, Timestamp)> {
        lock(&self.used).drain().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
