//! How the room of this node is shared: applications take turns, and so do the lanes of each.

use std::collections::HashMap;

use super::Lanes;
use crate::engine::{LaneWish, application_mark};
use crate::ids::Timestamp;

impl Lanes {
    /// Dirty lanes with the room each has now. Lanes without room wait until a slot of theirs is
    /// free. Applications take turns, those with the least under way first, and each may hold as
    /// much as it leaves free: whoever comes next always finds room. So do the lanes of one
    /// application within what it may hold, however many of them hang.
    pub(in crate::delivery) fn take_wanted(&mut self, now: Timestamp) -> Vec<LaneWish> {
        let dirty: Vec<i64> = self.dirty.iter().copied().collect();
        self.take_among(dirty, now)
    }

    /// The same for some of them.
    pub(in crate::delivery) fn take_among(
        &mut self,
        lanes: impl IntoIterator<Item = i64>,
        now: Timestamp,
    ) -> Vec<LaneWish> {
        let mut held = self.held.clone();
        for (lane, room) in &self.asked {
            *held.entry(application_mark(*lane)).or_default() += room;
        }
        let total: usize = held.values().sum();
        let mut free = self.settings.in_flight.saturating_sub(total);
        let mut turns: HashMap<i64, Vec<i64>> = HashMap::new();
        for lane in lanes.into_iter().filter(|lane| self.dirty.contains(lane)) {
            turns.entry(application_mark(lane)).or_default().push(lane);
        }
        let mut turns: Vec<(usize, i64, Vec<i64>)> = turns
            .into_iter()
            .map(|(mark, lanes)| (held.get(&mark).copied().unwrap_or(0), mark, lanes))
            .collect();
        turns.sort_by_key(|(held, _, _)| *held);
        let mut wanted = Vec::new();
        while free > 0 && !turns.is_empty() {
            turns.retain_mut(|(held, _, lanes)| {
                let share = free.saturating_sub(*held).div_ceil(2);
                let Some(id) = lanes.pop().filter(|_| share > 0) else { return false };
                let taken = self.lanes.get(&id).map_or(0, |lane| lane.taken);
                let fair = share.saturating_sub(taken).div_ceil(2);
                if fair == 0 {
                    // It stays dirty, and is looked at again as soon as anything is done.
                    return true;
                }
                self.dirty.remove(&id);
                let room = self.room(id, now).min(fair);
                if room > 0 {
                    free = free.saturating_sub(room);
                    *held += room;
                    self.asked.insert(id, room);
                    wanted.push(self.wish(id, room));
                }
                true
            });
        }
        wanted
    }

    fn wish(&self, lane: i64, room: usize) -> LaneWish {
        let known = self.lanes.get(&lane).and_then(|lane| lane.ordered);
        LaneWish { lane, room, may_be_ordered: known.unwrap_or(true) }
    }

    fn room(&mut self, id: i64, now: Timestamp) -> usize {
        let elsewhere = self.elsewhere.get(&id).copied().unwrap_or(0);
        self.lanes.entry(id).or_default().room(elsewhere, self.settings.longest_turn, now)
    }
}
