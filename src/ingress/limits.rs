//! How fast an application may ask: a token bucket each, in this process.
//!
//! Answers carry `RateLimit` and `RateLimit-Policy` after draft-ietf-httpapi-ratelimit-headers.
//! The buckets run on governor's own monotonic clock. Must not know routes.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::problem::{Code, Problem};
use crate::engine::Caller;
use crate::ids::Key;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The buckets by application.
pub struct Limits {
    default_rate: Rate,
    buckets: RwLock<HashMap<Key, Arc<Bucket>>>,
    clock: DefaultClock,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Rate {
    per_second: NonZeroU32,
    burst: NonZeroU32,
}

impl Rate {
    fn new(per_second: u32, burst: u32) -> Rate {
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Rate { per_second: at_least_one(per_second), burst: at_least_one(burst) }
    }

    /// Whole seconds until so many more requests are allowed, 1 at least.
    fn seconds_for(self, requests: u32) -> u64 {
        u64::from(requests.div_ceil(self.per_second.get()).max(1))
    }
}

struct Bucket {
    rate: Rate,
    policy: HeaderValue,
    limiter: RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>,
}

impl Bucket {
    fn new(rate: Rate) -> Bucket {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        let policy =
            format!(r#""application";q={};w={}"#, rate.burst, rate.seconds_for(rate.burst.get()));
        Bucket {
            rate,
            policy: HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("")),
            limiter: RateLimiter::direct(quota).with_middleware::<StateInformationMiddleware>(),
        }
    }
}

/// How an application stands after one request.
#[derive(Clone)]
pub struct Standing {
    policy: HeaderValue,
    rate: Rate,
    /// Requests that could follow at once.
    remaining: u32,
    /// How long to wait, when this request was one too many.
    wait: Option<Duration>,
}

impl Limits {
    /// With the rate of applications that have none of their own.
    pub fn new(per_second: u32, burst: u32) -> Limits {
        Limits {
            default_rate: Rate::new(per_second, burst),
            buckets: RwLock::default(),
            clock: DefaultClock::default(),
        }
    }

    /// Counts one request of an application.
    pub fn take(&self, caller: &Caller) -> Standing {
        let bucket = self.bucket(caller.application, self.rate_of(caller));
        let (remaining, wait) = match bucket.limiter.check() {
            Ok(state) => (state.remaining_burst_capacity(), None),
            Err(until) => (0, Some(until.wait_time_from(self.clock.now()))),
        };
        Standing { policy: bucket.policy.clone(), rate: bucket.rate, remaining, wait }
    }

    fn rate_of(&self, caller: &Caller) -> Rate {
        match (caller.rate_per_second, caller.rate_burst) {
            (None, None) => self.default_rate,
            (Some(rate), None) => Rate::new(rate, rate),
            (None, Some(burst)) => Rate { burst: Rate::new(1, burst).burst, ..self.default_rate },
            (Some(rate), Some(burst)) => Rate::new(rate, burst),
        }
    }

    /// A bucket of another rate is replaced by a full one.
    fn bucket(&self, application: Key, rate: Rate) -> Arc<Bucket> {
        let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get(&application).filter(|bucket| bucket.rate == rate) {
            return Arc::clone(bucket);
        }
        drop(buckets);
        let mut buckets = self.buckets.write().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(application).or_insert_with(|| Arc::new(Bucket::new(rate)));
        if bucket.rate != rate {
            *bucket = Arc::new(Bucket::new(rate));
        }
        Arc::clone(bucket)
    }
}

impl Standing {
    /// The problem of a request that was one too many.
    pub fn refusal(&self) -> Option<Problem> {
        let seconds = whole_seconds(self.wait?);
        let detail = format!(
            "more than {} requests a second or {} at once; try again in {seconds} s",
            self.rate.per_second, self.rate.burst
        );
        Some(Problem::new(Code::RateLimited, detail).with_retry_after(seconds))
    }

    /// Writes the two headers.
    pub fn write(&self, headers: &mut HeaderMap) {
        let seconds = match self.wait {
            Some(wait) => whole_seconds(wait),
            None => self.rate.seconds_for(self.rate.burst.get().saturating_sub(self.remaining)),
        };
        let text = format!(r#""application";r={};t={seconds}"#, self.remaining);
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(RATE_LIMIT, value);
        }
        headers.insert(RATE_LIMIT_POLICY, self.policy.clone());
    }
}

/// Rounded up, so that whoever waits so long does not come too early.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(application: Key, rate: Option<u32>, burst: Option<u32>) -> Caller {
        Caller {
            application,
            application_id: uuid::Uuid::nil(),
            credential: 1,
            credential_id: uuid::Uuid::nil(),
            scopes: Vec::new(),
            expires_at: None,
            rate_per_second: rate,
            rate_burst: burst,
            barred: None,
        }
    }

    fn headers(standing: &Standing) -> (String, String) {
        let mut headers = HeaderMap::new();
        standing.write(&mut headers);
        let text = |name| headers.get(name).unwrap().to_str().unwrap().to_owned();
        (text(RATE_LIMIT), text(RATE_LIMIT_POLICY))
    }

    #[test]
    fn a_burst_is_allowed_and_then_refused() {
        let limits = Limits::new(10_000, 10_000);
        let slow = caller(1, Some(1), Some(3));
        let first = limits.take(&slow);
        assert!(first.refusal().is_none());
        let policy = r#""application";q=3;w=3"#.to_owned();
        assert_eq!(headers(&first), (r#""application";r=2;t=1"#.to_owned(), policy.clone()));
        assert!(limits.take(&slow).refusal().is_none());
        assert!(limits.take(&slow).refusal().is_none());
        let fourth = limits.take(&slow);
        let problem = fourth.refusal().unwrap();
        assert_eq!((problem.code, problem.retry_after), (Code::RateLimited, Some(1)));
        assert_eq!(headers(&fourth), (r#""application";r=0;t=1"#.to_owned(), policy));
        // Nobody else waits for that.
        assert!(limits.take(&caller(2, Some(1), Some(3))).refusal().is_none());
    }

    #[test]
    fn a_new_rate_is_a_new_bucket() {
        let limits = Limits::new(10_000, 10_000);
        limits.take(&caller(1, Some(1), Some(1)));
        assert!(limits.take(&caller(1, Some(1), Some(1))).refusal().is_some());
        assert!(limits.take(&caller(1, Some(2), None)).refusal().is_none());
        assert!(limits.take(&caller(1, None, None)).refusal().is_none());
    }

    #[test]
    fn seconds_are_rounded_up() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1_001)), 2);
        assert_eq!(Rate::new(10, 25).seconds_for(25), 3);
        assert!(Rate::new(0, 0) == Rate::new(1, 1));
    }
}
