//! One lane: its slots, its limits, its breaker, and what may be asked of it now.
//!
//! Must not know the other lanes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::LaneSettings;
use crate::delivery::breaker::{Breaker, Permission};
use crate::delivery::bucket::Bucket;
use crate::delivery::health::HealthNote;
use crate::engine::{Ordering, Receiver};
use crate::ids::{Key, Timestamp};

/// When a claimed delivery may be sent.
pub(in crate::delivery) enum Turn {
    /// At once.
    Now,
    /// When the bucket has a token, which is soon.
    Soon(Arc<Bucket>),
    /// Not before long: it is to be given back until then.
    Later,
}

/// One lane as this process sees it.
#[derive(Default)]
pub(super) struct Lane {
    /// Leased here and not yet answered.
    pub(super) taken: usize,
    /// Of those, waiting for a token.
    pub(super) waiting: usize,
    /// Requests at once; unknown until the first receiver of the lane was seen.
    cap: Option<usize>,
    pub(super) bucket: Option<Arc<Bucket>>,
    /// A token of a slow bucket is taken for the next delivery.
    has_token: bool,
    /// When a slow bucket has its next token.
    pub(super) next_token: Option<Timestamp>,
    /// Whose limits these are, and of which version.
    pub(super) known: Option<(Key, i64)>,
    /// Its endpoint has changed since: one delivery shows how it is now, whatever the bucket says.
    pub(super) is_outdated: bool,
    /// There may be more due than was taken.
    pub(super) more: bool,
    /// Whether its endpoint wants an order; unknown until its first receiver was seen.
    pub(super) ordered: Option<bool>,
    pub(super) breaker: Breaker,
    pub(super) health: HealthNote,
    pub(super) used_at: Option<Instant>,
}

impl Lane {
    pub(super) fn forget_limits(&mut self) {
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

    /// How much may be asked of it now, when other nodes are still sending `elsewhere`.
    pub(super) fn room(
        &mut self,
        elsewhere: usize,
        longest_turn: Duration,
        now: Timestamp,
    ) -> usize {
        let taken = self.taken + elsewhere;
        let own = match (self.cap, &self.bucket) {
            // One delivery shows what the lane's limits are.
            (None, _) => usize::from(taken == 0),
            (Some(cap), Some(bucket)) => {
                cap.saturating_sub(taken).min(bucket.waiting_room().saturating_sub(self.waiting))
            }
            (Some(cap), None) => cap.saturating_sub(taken),
        };
        let mut room = match self.breaker.permission(now) {
            Permission::All => own,
            Permission::Some(most) => own.min(most.saturating_sub(taken)),
            Permission::None => 0,
        };
        let is_slow = self.bucket.as_ref().is_some_and(|bucket| bucket.is_slow(longest_turn));
        if room > 0 && is_slow && !self.has_turn(now) {
            room = usize::from(self.is_outdated);
        }
        if room == 0 {
            self.more = true;
        }
        room
    }

    /// Learns its limits from a receiver on it; when that one's delivery may be sent. `since` is when
    /// the lane became ours.
    pub(super) fn admit(
        &mut self,
        receiver: &Receiver,
        settings: &LaneSettings,
        since: Option<Timestamp>,
        now: Timestamp,
    ) -> Turn {
        let limit = receiver.rate_limit.or(settings.rate);
        let cap = receiver
            .max_in_flight
            .and_then(|cap| usize::try_from(cap).ok())
            .unwrap_or(settings.cap);
        self.cap = Some(cap.max(1));
        self.known = receiver.is_endpoint.then_some((receiver.key, receiver.version));
        self.is_outdated = false;
        self.ordered = Some(receiver.ordering != Ordering::None);
        let stale = self.bucket.as_ref().map(|bucket| bucket.limit) != limit;
        if stale {
            // A lane whose receiver is older than our ownership may have been used up elsewhere.
            let fresh = since.is_some_and(|since| receiver.created_at >= since);
            self.bucket = limit.and_then(|limit| Bucket::new(limit, fresh)).map(Arc::new);
            self.has_token = false;
            self.next_token = None;
        }
        match self.bucket.clone() {
            None => Turn::Now,
            Some(bucket) if !bucket.is_slow(settings.longest_turn) => Turn::Soon(bucket),
            Some(_) if self.has_turn(now) => {
                self.has_token = false;
                Turn::Now
            }
            Some(_) => Turn::Later,
        }
    }
}
