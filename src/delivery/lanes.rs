//! What this process knows of the lanes it sends for: free slots, rate limiters, who has more.
//!
//! Must not know what is sent. A lane that this process takes over starts with an empty bucket.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use crate::engine::{RateLimit, Receiver, SHARDS};
use crate::ids::Timestamp;

/// The token bucket of one lane.
pub(super) struct Bucket {
    limiter:
        RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<std::time::Instant>>,
    clock: MonotonicClock,
    limit: RateLimit,
}

impl Bucket {
    /// A full bucket, or an empty one.
    fn new(limit: RateLimit, full: bool) -> Option<Bucket> {
        let burst = NonZeroU32::new(limit.burst.max(1))?;
        let period = Duration::try_from_secs_f64(1.0 / limit.per_second).ok()?;
        let quota = Quota::with_period(period)?.allow_burst(burst);
        let limiter = RateLimiter::direct_with_clock(quota, MonotonicClock);
        if !full {
            let _ = limiter.check_n(burst);
        }
        Some(Bucket { limiter, clock: MonotonicClock, limit })
    }

    /// Waits for the next token and takes it.
    pub(super) async fn take(&self) {
        while let Err(wait) = self.limiter.check() {
            tokio::time::sleep(wait.wait_time_from(self.clock.now())).await;
        }
    }

    /// How long an empty bucket takes to fill.
    fn refill(&self) -> Duration {
        let seconds = f64::from(self.limit.burst.max(1)) / self.limit.per_second;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Deliveries that may wait for a token with their lease taken: enough that claiming does not
    /// hold a fast lane back, few enough that a slow one keeps its backlog unclaimed.
    fn waiting_room(&self) -> usize {
        (self.limit.per_second / 20.0).clamp(1.0, 64.0) as usize
    }
}

/// One lane as this process sees it.
#[derive(Default)]
struct Lane {
    /// Leased here and not yet recorded.
    taken: usize,
    /// Of those, waiting for a token.
    waiting: usize,
    /// Requests at once; unknown until the first receiver of the lane was seen.
    cap: Option<usize>,
    bucket: Option<Arc<Bucket>>,
    /// There may be more due than was taken.
    more: bool,
    used_at: Option<Instant>,
}

/// All lanes.
pub(super) struct Lanes {
    lanes: HashMap<i64, Lane>,
    /// To be asked for due deliveries.
    dirty: HashSet<i64>,
    /// When each shard became ours; `None` while it is not.
    shards: Vec<Option<Timestamp>>,
    default_cap: usize,
    default_rate: Option<RateLimit>,
}

/// Lanes that are remembered when nothing happens on them.
const IDLE_LANES: usize = 20_000;

fn shard_of(lane: i64) -> usize {
    usize::try_from(lane.rem_euclid(SHARDS)).unwrap_or(0)
}

impl Lanes {
    pub(super) fn new(default_cap: usize, default_rate: Option<RateLimit>) -> Lanes {
        let shards = vec![None; usize::try_from(SHARDS).unwrap_or(64)];
        Lanes { lanes: HashMap::new(), dirty: HashSet::new(), shards, default_cap, default_rate }
    }

    /// Which shards are ours from now on. Lanes of lost shards are forgotten but for what is
    /// still under way.
    pub(super) fn set_shards(&mut self, owned: &[i64], now: Timestamp) {
        for (shard, since) in self.shards.iter_mut().enumerate() {
            let mine = i64::try_from(shard).is_ok_and(|shard| owned.contains(&shard));
            *since = if mine { since.or(Some(now)) } else { None };
        }
        let shards = &self.shards;
        let ours = |lane: &i64| shards.get(shard_of(*lane)).is_some_and(Option::is_some);
        self.lanes.retain(|lane, state| ours(lane) || state.taken > 0);
        for (lane, state) in &mut self.lanes {
            if !ours(lane) {
                state.bucket = None;
                state.cap = None;
            }
        }
        self.dirty.retain(ours);
    }

    pub(super) fn owns(&self, lane: i64) -> bool {
        self.shards.get(shard_of(lane)).is_some_and(Option::is_some)
    }

    /// These lanes may have something due.
    pub(super) fn mark(&mut self, lanes: impl IntoIterator<Item = i64>) {
        for lane in lanes {
            if self.owns(lane) {
                self.dirty.insert(lane);
            }
        }
    }

    /// Dirty lanes with the room each has now, at most `most` deliveries together. Lanes without
    /// room wait until a slot of theirs is free.
    pub(super) fn take_wanted(&mut self, most: usize) -> Vec<(i64, usize)> {
        let mut wanted = Vec::new();
        let mut left = most;
        let dirty: Vec<i64> = self.dirty.iter().copied().collect();
        for id in dirty {
            if left == 0 {
                break;
            }
            self.dirty.remove(&id);
            let lane = self.lanes.entry(id).or_default();
            let room = match (lane.cap, &lane.bucket) {
                // One delivery shows what the lane's limits are.
                (None, _) => usize::from(lane.taken == 0),
                (Some(cap), Some(bucket)) => cap
                    .saturating_sub(lane.taken)
                    .min(bucket.waiting_room().saturating_sub(lane.waiting)),
                (Some(cap), None) => cap.saturating_sub(lane.taken),
            }
            .min(left);
            if room == 0 {
                lane.more = true;
                continue;
            }
            left -= room;
            wanted.push((id, room));
        }
        wanted
    }

    /// A claim brought `count` of the `room` asked for.
    pub(super) fn claimed(&mut self, id: i64, room: usize, count: usize) {
        let lane = self.lanes.entry(id).or_default();
        lane.taken += count;
        lane.waiting += count;
        lane.used_at = Some(Instant::now());
        if count >= room {
            self.dirty.insert(id);
        }
    }

    /// Learns the limits of a lane from a receiver on it, and hands out its bucket.
    pub(super) fn admit(&mut self, id: i64, receiver: &Receiver) -> Option<Arc<Bucket>> {
        let since = self.shards.get(shard_of(id)).copied().flatten();
        let limit = receiver.rate_limit.or(self.default_rate);
        let cap = receiver
            .max_in_flight
            .and_then(|cap| usize::try_from(cap).ok())
            .unwrap_or(self.default_cap);
        let lane = self.lanes.entry(id).or_default();
        lane.cap = Some(cap.max(1));
        let stale = lane.bucket.as_ref().map(|bucket| bucket.limit) != limit;
        if stale {
            // A lane whose receiver is older than our ownership may have been used up elsewhere.
            let fresh = since.is_some_and(|since| receiver.created_at >= since);
            lane.bucket = limit.and_then(|limit| Bucket::new(limit, fresh)).map(Arc::new);
        }
        lane.bucket.clone()
    }

    /// A delivery has its token and is about to be sent.
    pub(super) fn sending(&mut self, id: i64) -> bool {
        let lane = self.lanes.entry(id).or_default();
        lane.waiting = lane.waiting.saturating_sub(1);
        self.again(id)
    }

    /// A delivery is recorded.
    pub(super) fn done(&mut self, id: i64) -> bool {
        let lane = self.lanes.entry(id).or_default();
        lane.taken = lane.taken.saturating_sub(1);
        lane.used_at = Some(Instant::now());
        self.again(id)
    }

    /// Asks again for a lane that had more than it had room for; whether there is one.
    fn again(&mut self, id: i64) -> bool {
        let more = self.lanes.get_mut(&id).is_some_and(|lane| std::mem::take(&mut lane.more));
        if more && self.owns(id) {
            self.dirty.insert(id);
        }
        more
    }

    /// Forgets lanes that are idle and whose buckets are full again.
    pub(super) fn prune(&mut self) {
        if self.lanes.len() < IDLE_LANES {
            return;
        }
        self.lanes.retain(|_, lane| {
            let quiet = lane.used_at.map_or(Duration::MAX, |at| at.elapsed());
            let refill = lane.bucket.as_ref().map_or(Duration::ZERO, |bucket| bucket.refill());
            lane.taken > 0 || lane.more || quiet < refill.max(Duration::from_secs(60))
        });
    }
}
