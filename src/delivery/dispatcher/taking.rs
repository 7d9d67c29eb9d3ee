//! What this node takes beside `step`: deliveries, in the very transaction that owes them.
//!
//! `wish` and `take` are called on a writer's thread, so neither waits for anything.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use super::Dispatcher;
use crate::engine::{Claimed, LaneWish, TakesDeliveries};

impl Dispatcher {
    /// From now on deliveries are also taken in the transaction that owes them.
    pub fn take_offers(self: &Arc<Self>) {
        self.gate.open();
        let this: Weak<Dispatcher> = Arc::downgrade(self);
        self.engine.offer_deliveries(this);
    }
}

impl TakesDeliveries for Dispatcher {
    fn wish(&self, lanes: &BTreeSet<i64>) -> Vec<LaneWish> {
        if !self.gate.enter() {
            return Vec::new();
        }
        let wishes = {
            let mut known = self.lanes();
            match known.to_learn() {
                Some(_) => Vec::new(),
                None => {
                    known.mark(lanes.iter().copied());
                    known.take_among(lanes.iter().copied(), self.engine.now())
                }
            }
        };
        if wishes.is_empty() {
            self.gate.leave();
        }
        wishes
    }

    fn take(self: Arc<Self>, wishes: Vec<LaneWish>, claimed: Option<Claimed>) {
        match claimed {
            Some(claimed) => {
                self.begin(&wishes, claimed.owed);
                self.lanes().mark(claimed.unfinished);
            }
            None => self.lanes().not_claimed(wishes.iter().map(|wish| wish.lane)),
        }
        if self.lanes().any_wanted() {
            self.engine.bells.deliveries.notify_one();
        }
        self.gate.leave();
    }
}
