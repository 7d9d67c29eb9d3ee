//! What is remembered of receivers. A remembered endpoint is used only while it is of the version
//! that the row has; a callback never changes but for the day of its last use.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::Receiver;
use crate::ids::Key;

/// Endpoints of an application as they were at a version.
type Known = (i64, Arc<[Arc<Receiver>]>);

/// Receivers by key and by digest, and the endpoints of applications. Bounded: it starts over when
/// full.
#[derive(Default)]
pub(in crate::engine) struct ReceiverCache {
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
    pub(in crate::engine) fn get(&self, key: Key) -> Option<Arc<Receiver>> {
        self.maps.read().unwrap_or_else(PoisonError::into_inner).by_key.get(&key).cloned()
    }

    pub(in crate::engine) fn find(&self, application: Key, digest: &str) -> Option<Arc<Receiver>> {
        let maps = self.maps.read().unwrap_or_else(PoisonError::into_inner);
        maps.by_digest.get(&(application, digest.to_owned())).cloned()
    }

    pub(in crate::engine) fn keep(&self, digest: String, receiver: Arc<Receiver>) {
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        if maps.by_key.len() >= CACHED_RECEIVERS {
            *maps = Maps::default();
        }
        if !receiver.is_endpoint {
            maps.by_digest.insert((receiver.application, digest), Arc::clone(&receiver));
        }
        maps.by_key.insert(receiver.key, receiver);
    }

    /// It is read again when it is needed next.
    pub(in crate::engine) fn forget(&self, receiver: &Receiver) {
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        maps.by_key.remove(&receiver.key);
    }

    /// What is remembered of an application's endpoints, if it is of that version.
    pub(in crate::engine) fn endpoints(&self, application: Key, version: i64) -> Option<Known> {
        let maps = self.maps.read().unwrap_or_else(PoisonError::into_inner);
        maps.endpoints.get(&application).filter(|(known, _)| *known == version).cloned()
    }

    /// How many endpoints an application had when it was last asked for.
    pub(in crate::engine) fn breadth(&self, application: Key) -> usize {
        let maps = self.maps.read().unwrap_or_else(PoisonError::into_inner);
        maps.endpoints.get(&application).map_or(0, |(_, endpoints)| endpoints.len())
    }

    pub(in crate::engine) fn keep_endpoints(&self, application: Key, known: Known) {
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        if maps.endpoints.len() >= CACHED_RECEIVERS {
            maps.endpoints.clear();
        }
        maps.endpoints.insert(application, known);
    }
}
