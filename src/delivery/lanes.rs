//! What this process knows of the lanes it sends for: free slots, rate limiters, breakers, who has
//! more.
//!
//! Must not know what is sent. A lane that this process takes over starts with an empty bucket.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::{Bearing, Breaker, BreakerSettings, Permission};
use super::bucket::Bucket;
use super::health::HealthNote;
use crate::engine::{
    Health, LaneChange, LaneTrouble, LaneWish, Ordering, RateLimit, Receiver, SHARDS,
    TROUBLE_KEPT_MILLIS, application_mark,
};
use crate::ids::{Key, Timestamp};

/// When a claimed delivery may be sent.
pub(super) enum Turn {
    /// At once.
    Now,
    /// When the bucket has a token, which is soon.
    Soon(Arc<Bucket>),
    /// Not before long: it is to be given back until then.
    Later,
}

/// One lane as this process sees it.
#[derive(Default)]
struct Lane {
    /// Leased here and not yet answered.
    taken: usize,
    /// Of those, waiting for a token.
    waiting: usize,
    /// Requests at once; unknown until the first receiver of the lane was seen.
    cap: Option<usize>,
    bucket: Option<Arc<Bucket>>,
    /// A token of a slow bucket is taken for the next delivery.
    has_token: bool,
    /// When a slow bucket has its next token.
    next_token: Option<Timestamp>,
    /// Whose limits these are, and of which version.
    known: Option<(Key, i64)>,
    /// Its endpoint has changed since: one delivery shows how it is now, whatever the bucket says.
    is_outdated: bool,
    /// There may be more due than was taken.
    more: bool,
    /// Whether its endpoint wants an order; unknown until its first receiver was seen.
    ordered: Option<bool>,
    breaker: Breaker,
    health: HealthNote,
    used_at: Option<Instant>,
}

/// All lanes.
pub(super) struct Lanes {
    lanes: HashMap<i64, Lane>,
    /// To be asked for due deliveries.
    dirty: HashSet<i64>,
    /// When each shard became ours; `None` while it is not.
    shards: Vec<Option<Timestamp>>,
    /// What the last owners of newly gained shards left has to be read first.
    must_learn: bool,
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

impl Lane {
    fn forget_limits(&mut self) {
        self.bucket = None;
        self.has_token = false;
        self.next_token = None;
        self.cap = None;
        self.ordered = None;
    }

    /// Takes a token of a slow bucket before anything is claimed for it.
    fn has_turn(&mut self, now: Timestamp) -> bool {
        let Some(bucket) = self.bucket.as_ref().filter(|_| !self.has_token) else { return true };
        match bucket.try_take() {
            Ok(()) => self.has_token = true,
            Err(wait) => self.next_token = Some(now.plus(wait)),
        }
        self.has_token
    }
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

fn shard_of(lane: i64) -> usize {
    usize::try_from(lane.rem_euclid(SHARDS)).unwrap_or(0)
}

impl Lanes {
    pub(super) fn new(settings: LaneSettings) -> Lanes {
        Lanes {
            lanes: HashMap::new(),
            dirty: HashSet::new(),
            shards: vec![None; usize::try_from(SHARDS).unwrap_or(64)],
            must_learn: false,
            elsewhere: HashMap::new(),
            held: HashMap::new(),
            asked: HashMap::new(),
            later: HashSet::new(),
            settings,
        }
    }

    /// Which shards are ours from now on; whether any was lost. Lanes of lost shards are forgotten
    /// but for what is still under way.
    pub(super) fn set_shards(&mut self, owned: &[i64], now: Timestamp) -> bool {
        let mut lost = false;
        for (shard, since) in self.shards.iter_mut().enumerate() {
            let mine = i64::try_from(shard).is_ok_and(|shard| owned.contains(&shard));
            self.must_learn |= mine && since.is_none();
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

    pub(super) fn owns(&self, lane: i64) -> bool {
        self.shards.get(shard_of(lane)).is_some_and(Option::is_some)
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

    /// Whether what the last owners left has to be read before anything is sent.
    pub(super) fn must_learn(&self) -> bool {
        self.must_learn
    }

    /// Takes over what the last owners left of lanes in trouble.
    pub(super) fn take_over(&mut self, troubles: &[LaneTrouble]) {
        self.must_learn = false;
        for trouble in troubles {
            if !self.owns(trouble.lane) {
                continue;
            }
            self.lanes.entry(trouble.lane).or_default().breaker.inherit(trouble);
        }
    }

    /// Somebody may have allowed a try on a lane before its time.
    pub(super) fn learn_troubles(&mut self, troubles: &[LaneTrouble], now: Timestamp) {
        for trouble in troubles {
            if let Some(lane) = self.lanes.get_mut(&trouble.lane) {
                lane.breaker.hasten(Timestamp(trouble.not_before), now);
            }
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

    /// What other nodes are sending on lanes that are ours by now counts towards their caps.
    pub(super) fn learn_elsewhere(&mut self, leased: HashMap<i64, usize>) {
        self.elsewhere = leased;
        let shards = &self.shards;
        self.elsewhere.retain(|lane, _| shards.get(shard_of(*lane)).is_some_and(Option::is_some));
    }

    /// Whether another node is still sending on a lane of ours.
    pub(super) fn any_elsewhere(&self) -> bool {
        !self.elsewhere.is_empty()
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

    /// Dirty lanes with the room each has now. Lanes without room wait until a slot of theirs is
    /// free. Applications take turns, those with the least under way first, and each may hold as
    /// much as it leaves free: whoever comes next always finds room. So do the lanes of one
    /// application within what it may hold, however many of them hang.
    pub(super) fn take_wanted(&mut self, now: Timestamp) -> Vec<LaneWish> {
        let dirty: Vec<i64> = self.dirty.iter().copied().collect();
        self.take_among(dirty, now)
    }

    /// The same for some of them.
    pub(super) fn take_among(
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

    /// Whether any lane is still to be asked for due deliveries.
    pub(super) fn any_wanted(&self) -> bool {
        !self.dirty.is_empty()
    }

    fn wish(&self, lane: i64, room: usize) -> LaneWish {
        let known = self.lanes.get(&lane).and_then(|lane| lane.ordered);
        LaneWish { lane, room, may_be_ordered: known.unwrap_or(true) }
    }

    fn room(&mut self, id: i64, now: Timestamp) -> usize {
        let elsewhere = self.elsewhere.get(&id).copied().unwrap_or(0);
        let lane = self.lanes.entry(id).or_default();
        let taken = lane.taken + elsewhere;
        let longest_turn = self.settings.longest_turn;
        let own = match (lane.cap, &lane.bucket) {
            // One delivery shows what the lane's limits are.
            (None, _) => usize::from(taken == 0),
            (Some(cap), Some(bucket)) => {
                cap.saturating_sub(taken).min(bucket.waiting_room().saturating_sub(lane.waiting))
            }
            (Some(cap), None) => cap.saturating_sub(taken),
        };
        let mut room = match lane.breaker.permission(now) {
            Permission::All => own,
            Permission::Some(most) => own.min(most.saturating_sub(taken)),
            Permission::None => 0,
        };
        let is_slow = lane.bucket.as_ref().is_some_and(|bucket| bucket.is_slow(longest_turn));
        if room > 0 && is_slow && !lane.has_turn(now) {
            room = usize::from(lane.is_outdated);
        }
        if room == 0 {
            lane.more = true;
        }
        room
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
        let since = self.shards.get(shard_of(id)).copied().flatten();
        let limit = receiver.rate_limit.or(self.settings.rate);
        let cap = receiver
            .max_in_flight
            .and_then(|cap| usize::try_from(cap).ok())
            .unwrap_or(self.settings.cap);
        let lane = self.lanes.entry(id).or_default();
        lane.cap = Some(cap.max(1));
        lane.known = receiver.is_endpoint.then_some((receiver.key, receiver.version));
        lane.is_outdated = false;
        lane.ordered = Some(receiver.ordering != Ordering::None);
        let stale = lane.bucket.as_ref().map(|bucket| bucket.limit) != limit;
        if stale {
            // A lane whose receiver is older than our ownership may have been used up elsewhere.
            let fresh = since.is_some_and(|since| receiver.created_at >= since);
            lane.bucket = limit.and_then(|limit| Bucket::new(limit, fresh)).map(Arc::new);
            lane.has_token = false;
            lane.next_token = None;
        }
        match lane.bucket.clone() {
            None => Turn::Now,
            Some(bucket) if !bucket.is_slow(self.settings.longest_turn) => Turn::Soon(bucket),
            Some(_) if lane.has_turn(now) => {
                lane.has_token = false;
                Turn::Now
            }
            Some(_) => Turn::Later,
        }
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

    /// Lanes of ours that are closed or on trial.
    pub(super) fn troubled(&self) -> Vec<i64> {
        let troubled = self.lanes.iter().filter(|(_, lane)| lane.breaker.is_troubled());
        troubled.map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn trouble_is_forgotten_an_hour_after_it_unless_something_waits() {
        let mut lanes = lanes();
        let trouble = |lane| LaneTrouble {
            lane,
            not_before: Timestamp(0).plus_millis(1_000).0,
            reason: "failures".to_owned(),
            closings: 1,
            number: 1,
        };
        lanes.take_over(&[trouble(LANE), trouble(8)]);
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
