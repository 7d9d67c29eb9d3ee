//! What this process knows of the lanes it sends for: free slots, rate limiters, breakers, who has
//! more.
//!
//! `lanes/` has one lane by itself, which of them are ours, and how they share the room of this node.
//!
//! Must not know what is sent. A lane that this process takes over starts with an empty bucket.

mod fairness;
mod lane;
mod ownership;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use self::lane::Lane;
pub(super) use self::lane::Turn;
use super::breaker::{Bearing, BreakerSettings};
use crate::engine::{
    Health, LaneChange, RateLimit, Receiver, SHARDS, TROUBLE_KEPT_MILLIS, application_mark,
};
use crate::ids::{Key, Timestamp};

/// All lanes.
pub(super) struct Lanes {
    lanes: HashMap<i64, Lane>,
    /// To be asked for due deliveries.
    dirty: HashSet<i64>,
    /// When each shard became ours; `None` while it is not.
    shards: Vec<Option<Timestamp>>,
    /// How often shards became ours.
    gains: u64,
    /// Up to which gain it is known what the last owners left.
    learned: u64,
    /// What the last owners of lanes are still sending.
    elsewhere: HashMap<i64, usize>,
    /// Leased here by the mark of the application.
    held: HashMap<i64, usize>,
    /// Room that claims under way may fill, by lane. Nothing else is asked of such a lane.
    asked: HashMap<i64, usize>,
    /// Lanes among those that may have something due all the same.
    later: HashSet<i64>,
    settings: LaneSettings,
}

/// Limits of lanes whose receivers say nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneSettings {
    /// Requests at once on one lane.
    pub(super) cap: usize,
    /// Rate of a lane.
    pub(super) rate: Option<RateLimit>,
    /// When a lane is closed.
    pub(super) breaker: BreakerSettings,
    /// Deliveries under way at once on this node.
    pub(super) in_flight: usize,
    /// The longest wait for a token with a lease taken.
    pub(super) longest_turn: Duration,
}

/// Lanes that are remembered when nothing happens on them.
const IDLE_LANES: usize = 20_000;

impl Lanes {
    pub(super) fn new(settings: LaneSettings) -> Lanes {
        Lanes {
            lanes: HashMap::new(),
            dirty: HashSet::new(),
            shards: vec![None; usize::try_from(SHARDS).unwrap_or(64)],
            gains: 0,
            learned: 0,
            elsewhere: HashMap::new(),
            held: HashMap::new(),
            asked: HashMap::new(),
            later: HashSet::new(),
            settings,
        }
    }

    /// These lanes may have something due.
    pub(super) fn mark(&mut self, lanes: impl IntoIterator<Item = i64>) {
        for lane in lanes {
            if !self.owns(lane) {
                continue;
            }
            let to = if self.asked.contains_key(&lane) { &mut self.later } else { &mut self.dirty };
            to.insert(lane);
        }
    }

    /// Endpoints whose lanes wait for a token that comes late, with the version that is known here.
    pub(super) fn waiting_for_tokens(&self, now: Timestamp) -> Vec<(i64, Key, i64)> {
        let late = |lane: &Lane| lane.next_token.is_some_and(|at| at > now);
        let late = self.lanes.iter().filter(|(_, lane)| late(lane));
        late.filter_map(|(id, lane)| lane.known.map(|(key, version)| (*id, key, version))).collect()
    }

    /// The endpoint of a lane has another version by now.
    pub(super) fn outdate(&mut self, id: i64) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.is_outdated = true;
            lane.next_token = None;
            self.mark([id]);
        }
    }

    /// Nothing may be tried on a lane before.
    pub(super) fn not_before(&self, lane: i64) -> Option<Timestamp> {
        self.lanes.get(&lane).and_then(|lane| lane.breaker.not_before().max(lane.next_token))
    }

    /// These lanes are of ordered endpoints and have something new.
    pub(super) fn mark_ordered(&mut self, lanes: impl IntoIterator<Item = i64>) {
        for lane in lanes {
            if self.owns(lane) {
                self.lanes.entry(lane).or_default().ordered = Some(true);
                self.mark([lane]);
            }
        }
    }

    /// Whether any lane is still to be asked for due deliveries.
    pub(super) fn any_wanted(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// A claim brought `count` of the `room` asked for.
    pub(super) fn claimed(&mut self, id: i64, room: usize, count: usize) {
        let lane = self.lanes.entry(id).or_default();
        lane.taken += count;
        lane.waiting += count;
        lane.used_at = Some(Instant::now());
        if count > 0 {
            *self.held.entry(application_mark(id)).or_default() += count;
        }
        self.asked.remove(&id);
        // A claim that was under way while the lane was lost is the last one.
        let again = self.later.remove(&id);
        if again || count >= room {
            self.mark([id]);
        }
    }

    /// A claim came to nothing: its lanes are asked again.
    pub(super) fn not_claimed(&mut self, lanes: impl IntoIterator<Item = i64>) {
        for lane in lanes {
            self.asked.remove(&lane);
            self.later.remove(&lane);
            self.mark([lane]);
        }
    }

    /// Learns the limits of a lane from a receiver on it; when its delivery may be sent.
    pub(super) fn admit(&mut self, id: i64, receiver: &Receiver, now: Timestamp) -> Turn {
        let since = self.owned_since(id);
        self.lanes.entry(id).or_default().admit(receiver, &self.settings, since, now)
    }

    /// Takes what an attempt says of its receiver; what is to be written down of the lane and of
    /// the endpoint.
    pub(super) fn learn(
        &mut self,
        id: i64,
        receiver: &Receiver,
        bearing: Bearing,
        now: Timestamp,
    ) -> (Option<LaneChange>, Option<Health>) {
        let settings = self.settings.breaker;
        let lane = self.lanes.entry(id).or_default();
        let change = lane.breaker.learn(id, bearing, now, &settings);
        let health = match receiver.is_endpoint {
            true => lane.health.learn(bearing, receiver.version, now),
            false => None,
        };
        (change, health)
    }

    /// A delivery has its token and is about to be sent.
    pub(super) fn sending(&mut self, id: i64) -> bool {
        let lane = self.lanes.entry(id).or_default();
        lane.waiting = lane.waiting.saturating_sub(1);
        self.again(id)
    }

    /// A receiver has answered, or was not asked after all: there is room for another one. Whether
    /// there was more than there was room for.
    pub(super) fn answered(&mut self, id: i64) -> bool {
        let lane = self.lanes.entry(id).or_default();
        lane.taken = lane.taken.saturating_sub(1);
        lane.used_at = Some(Instant::now());
        self.again(id)
    }

    /// A delivery is recorded; whether any lane is still to be asked.
    pub(super) fn done(&mut self, id: i64) -> bool {
        let mark = application_mark(id);
        if let Some(held) = self.held.get_mut(&mark) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.held.remove(&mark);
            }
        }
        self.any_wanted()
    }

    /// Asks again for a lane that had more than it had room for; whether there is one.
    fn again(&mut self, id: i64) -> bool {
        let more = self.lanes.get_mut(&id).is_some_and(|lane| std::mem::take(&mut lane.more));
        if more {
            self.mark([id]);
        }
        more
    }

    /// Forgets lanes that are idle and whose buckets are full again. Trouble is remembered for as
    /// long as something waits for its end, and an hour more.
    pub(super) fn prune(&mut self, waiting: &HashSet<i64>, now: Timestamp) {
        let crowded = self.lanes.len() >= IDLE_LANES;
        self.lanes.retain(|id, lane| {
            let quiet = lane.used_at.map_or(Duration::MAX, |at| at.elapsed());
            if lane.taken > 0 {
                return true;
            }
            if let Some(not_before) = lane.breaker.not_before() {
                return waiting.contains(id)
                    || now.millis_since(not_before) < TROUBLE_KEPT_MILLIS
                    || quiet < Duration::from_secs(60);
            }
            let refill = lane.bucket.as_ref().map_or(Duration::ZERO, |bucket| bucket.refill());
            !crowded || quiet < refill.max(Duration::from_secs(60))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::LaneTrouble;

    const LANE: i64 = 7;

    fn lanes() -> Lanes {
        let mut lanes = Lanes::new(LaneSettings {
            cap: 4,
            rate: None,
            breaker: BreakerSettings { failures: 1, ..BreakerSettings::default() },
            in_flight: 100,
            longest_turn: Duration::from_secs(1),
        });
        lanes.set_shards(&(0..SHARDS).collect::<Vec<_>>(), Timestamp(0));
        lanes
    }

    #[test]
    fn a_claim_that_was_under_way_while_the_lane_was_lost_is_the_last_one() {
        let mut lanes = lanes();
        lanes.mark([LANE]);
        let wish = lanes.take_wanted(Timestamp(0)).pop().expect("a wish");
        lanes.set_shards(&[], Timestamp(0));
        lanes.claimed(LANE, wish.room, wish.room);
        assert!(!lanes.any_wanted() && lanes.take_wanted(Timestamp(0)).is_empty());
    }

    #[test]
    fn what_is_gained_while_the_database_answers_is_still_to_be_learned() {
        let mut lanes = Lanes::new(lanes().settings);
        assert_eq!(lanes.to_learn(), None);
        lanes.set_shards(&[1], Timestamp(0));
        let asked = lanes.to_learn().expect("one shard");
        lanes.set_shards(&[1, 2], Timestamp(0));
        lanes.take_over(asked, &[]);
        let asked = lanes.to_learn().expect("another one");
        lanes.set_shards(&[2], Timestamp(0));
        lanes.take_over(asked, &[]);
        assert_eq!(lanes.to_learn(), None);
    }

    #[test]
    fn trouble_is_forgotten_an_hour_after_it_unless_something_waits() {
        let mut lanes = lanes();
        let trouble = |lane| LaneTrouble {
            lane,
            not_before: Timestamp(0).plus_millis(1_000).0,
            reason: "failures".to_owned(),
            closings: 1,
            number: 1,
        };
        let gain = lanes.to_learn().expect("all shards");
        lanes.take_over(gain, &[trouble(LANE), trouble(8)]);
        let waiting = HashSet::from([8]);
        let hour = Timestamp(0).plus_millis(TROUBLE_KEPT_MILLIS);
        lanes.prune(&waiting, hour);
        let mut troubled = lanes.troubled();
        troubled.sort_unstable();
        assert_eq!(troubled, [LANE, 8]);
        lanes.prune(&waiting, hour.plus_millis(1_000));
        assert_eq!(lanes.troubled(), [8]);
    }
}
