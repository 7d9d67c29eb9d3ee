//! The token bucket of one lane.
//!
//! Must not know whose lane it is, nor who else sends on it.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::engine::RateLimit;

/// See the module.
pub(super) struct Bucket {
    limiter:
        RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<std::time::Instant>>,
    clock: MonotonicClock,
    pub(super) limit: RateLimit,
}

impl Bucket {
    /// A full bucket, or an empty one.
    pub(super) fn new(limit: RateLimit, full: bool) -> Option<Bucket> {
        let burst = NonZeroU32::new(limit.burst.max(1))?;
        let period = Duration::try_from_secs_f64(1.0 / limit.per_second).ok()?;
        let quota = Quota::with_period(period)?.allow_burst(burst);
        let limiter = RateLimiter::direct_with_clock(quota, MonotonicClock);
        if !full {
            let _ = limiter.check_n(burst);
        }
        Some(Bucket { limiter, clock: MonotonicClock, limit })
    }

    /// Takes a token when there is one, or says how long the wait would be.
    pub(super) fn try_take(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|wait| wait.wait_time_from(self.clock.now()))
    }

    /// Waits for the next token and takes it.
    pub(super) async fn take(&self) {
        while let Err(wait) = self.try_take() {
            tokio::time::sleep(wait).await;
        }
    }

    /// How long an empty bucket takes to fill.
    pub(super) fn refill(&self) -> Duration {
        let seconds = f64::from(self.limit.burst.max(1)) / self.limit.per_second;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Deliveries that may wait for a token with their lease taken: enough that claiming does not
    /// hold a fast lane back, few enough that a slow one keeps its backlog unclaimed.
    pub(super) fn waiting_room(&self) -> usize {
        (self.limit.per_second / 20.0).clamp(1.0, 64.0) as usize
    }

    /// Whether a token may take longer to come than a lease should wait: by then a secret may be
    /// revoked, and the endpoint disabled.
    pub(super) fn is_slow(&self, longest_turn: Duration) -> bool {
        self.limit.per_second * longest_turn.as_secs_f64() < 1.0
    }
}
