//! Hints that there is work. A bell may be missed or ring for nothing: every loop also looks.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

/// All bells of a process.
#[derive(Default)]
pub struct Bells {
    /// Jobs are ready.
    pub jobs: Notify,
    /// Deliveries are due.
    pub deliveries: Notify,
    /// A running job was asked to stop.
    pub stops: Notify,
    /// Events wait for their places in the feed.
    pub relay: Notify,
    /// Backlogs of endpoints are not yet in line with their state.
    pub settling: Notify,
    /// The feed has grown. Rung for all who wait at that moment.
    pub feed: Notify,
    queues: Mutex<HashSet<String>>,
    lanes: Mutex<HashSet<i64>>,
    watchers: Mutex<HashMap<Uuid, Arc<Notify>>>,
}

impl Bells {
    /// Events were committed.
    pub(super) fn ring_news(&self) {
        self.relay.notify_one();
        self.feed.notify_waiters();
    }

    /// Queues have ready jobs.
    pub fn ring_queues(&self, queues: impl IntoIterator<Item = String>) {
        let mut known = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(queues);
        self.jobs.notify_one();
    }

    /// Queues that were rung for since the last call.
    pub fn take_queues(&self) -> HashSet<String> {
        std::mem::take(&mut *self.queues.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lanes have due deliveries.
    pub fn ring_lanes(&self, lanes: &[i64]) {
        if lanes.is_empty() {
            return;
        }
        let mut known = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(lanes);
        self.deliveries.notify_one();
    }

    /// Lanes that were rung for since the last call.
    pub fn take_lanes(&self) -> HashSet<i64> {
        std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells those who wait for a job's end.
    pub fn ring_end(&self, job: Uuid) {
        let waiting = self.watchers.lock().unwrap_or_else(PoisonError::into_inner).remove(&job);
        if let Some(bell) = waiting {
            bell.notify_waiters();
        }
    }

    /// A bell that rings when the job ends on this node.
    pub fn watch_end(&self, job: Uuid) -> Arc<Notify> {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        // Bells whose watchers have gone are dropped when there are many.
        if watchers.len() > 10_000 {
            watchers.retain(|_, bell| Arc::strong_count(bell) > 1);
        }
        Arc::clone(watchers.entry(job).or_default())
    }
}
