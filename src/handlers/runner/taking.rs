//! What this node takes beside `step`: jobs, in the very transaction that makes them ready.
//!
//! `wish` and `take` are called on a writer's thread, so neither waits for anything.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, Weak};

use super::Runner;
use crate::engine::{ClaimedBatch, JobWish, TakesJobs};

impl Runner {
    /// From now on jobs are also taken in the transaction that makes them ready.
    pub fn take_offers(self: &Arc<Self>) {
        self.gate.open();
        let this: Weak<Runner> = Arc::downgrade(self);
        self.services.engine.offer_jobs(this);
    }
}

impl TakesJobs for Runner {
    /// Queues with slots of their own are left to `step`, which counts them.
    fn wish(&self, queues: &BTreeSet<String>) -> Option<JobWish> {
        let own = self.own_slots();
        let free = |queue: &&String| !own.contains_key(queue.as_str());
        let queues: Vec<&String> = queues.iter().filter(free).collect();
        // While others wait it is `step` that lets them take turns; but not for those that are full.
        let others = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let may_go = |queue: &String| own.get(queue.as_str()).is_none_or(|left| *left > 0);
        let others_wait = others.iter().any(|queue| may_go(queue) && !queues.contains(&queue));
        drop(others);
        if others_wait || queues.is_empty() || !self.gate.enter() {
            return None;
        }
        let room = self.keep_room();
        if room == 0 {
            self.gate.leave();
            return None;
        }
        Some((queues.into_iter().map(|queue| (queue.clone(), room)).collect(), room))
    }

    fn take(self: Arc<Self>, (_, room): JobWish, batch: Option<ClaimedBatch>) {
        if let Some(batch) = batch {
            self.services.engine.tell_claimed(&batch);
            for claimed in batch.jobs {
                self.start(claimed);
            }
        }
        self.give_room(room);
        self.gate.leave();
    }
}
