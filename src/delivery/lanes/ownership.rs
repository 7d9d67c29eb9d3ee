//! Which lanes are ours, and what their last owners left: breakers, and what they are still sending.

use std::collections::HashMap;

use super::Lanes;
use crate::delivery::breaker::Breaker;
use crate::delivery::health::HealthNote;
use crate::engine::{LaneTrouble, SHARDS};
use crate::ids::Timestamp;

fn shard_of(lane: i64) -> usize {
    usize::try_from(lane.rem_euclid(SHARDS)).unwrap_or(0)
}

impl Lanes {
    /// Which shards are ours from now on; whether any was lost. Lanes of lost shards are forgotten
    /// but for what is still under way.
    pub(in crate::delivery) fn set_shards(&mut self, owned: &[i64], now: Timestamp) -> bool {
        let mut lost = false;
        for (shard, since) in self.shards.iter_mut().enumerate() {
            let mine = i64::try_from(shard).is_ok_and(|shard| owned.contains(&shard));
            self.gains += u64::from(mine && since.is_none());
            lost |= !mine && since.is_some();
            *since = if mine { since.or(Some(now)) } else { None };
        }
        let shards = &self.shards;
        let ours = |lane: &i64| shards.get(shard_of(*lane)).is_some_and(Option::is_some);
        self.lanes.retain(|lane, state| ours(lane) || state.taken > 0);
        self.later.retain(ours);
        for (lane, state) in &mut self.lanes {
            if !ours(lane) {
                state.forget_limits();
                state.health = HealthNote::default();
                state.breaker = Breaker::default();
            }
        }
        self.dirty.retain(ours);
        lost
    }

    pub(in crate::delivery) fn owns(&self, lane: i64) -> bool {
        self.shards.get(shard_of(lane)).is_some_and(Option::is_some)
    }

    /// The last gain, when what the last owners left has to be read before anything is sent.
    pub(in crate::delivery) fn to_learn(&self) -> Option<u64> {
        (self.learned < self.gains).then_some(self.gains)
    }

    /// Takes over what the last owners left of lanes in trouble, as it was read after a gain.
    pub(in crate::delivery) fn take_over(&mut self, gain: u64, troubles: &[LaneTrouble]) {
        self.learned = gain;
        for trouble in troubles {
            if !self.owns(trouble.lane) {
                continue;
            }
            self.lanes.entry(trouble.lane).or_default().breaker.inherit(trouble);
        }
    }

    /// Somebody may have allowed a try on a lane before its time.
    pub(in crate::delivery) fn learn_troubles(&mut self, troubles: &[LaneTrouble], now: Timestamp) {
        for trouble in troubles {
            if let Some(lane) = self.lanes.get_mut(&trouble.lane) {
                lane.breaker.hasten(Timestamp(trouble.not_before), now);
            }
        }
    }

    /// Lanes of ours that are closed or on trial.
    pub(in crate::delivery) fn troubled(&self) -> Vec<i64> {
        let troubled = self.lanes.iter().filter(|(_, lane)| lane.breaker.is_troubled());
        troubled.map(|(id, _)| *id).collect()
    }

    /// What other nodes are sending on lanes that are ours by now counts towards their caps.
    pub(in crate::delivery) fn learn_elsewhere(&mut self, leased: HashMap<i64, usize>) {
        self.elsewhere = leased;
        let shards = &self.shards;
        self.elsewhere.retain(|lane, _| shards.get(shard_of(*lane)).is_some_and(Option::is_some));
    }

    /// Whether another node is still sending on a lane of ours.
    pub(in crate::delivery) fn any_elsewhere(&self) -> bool {
        !self.elsewhere.is_empty()
    }

    /// Since when a lane is ours.
    pub(super) fn owned_since(&self, lane: i64) -> Option<Timestamp> {
        self.shards.get(shard_of(lane)).copied().flatten()
    }
}
