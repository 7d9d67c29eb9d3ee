//! The only reader of the time.
//!
//! Everything that decides by time asks a `Clock`, so tests can move it both ways. Must not know
//! who asks. Times are cut to milliseconds, so that rows and events tell the same instant.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::ids::Timestamp;

/// Where the current time comes from.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

/// How long to wait before looking again: `period`, and up to two seconds when looking takes long, so
/// that it is about a twentieth of the time. What has left an index on Postgres is still stepped over
/// while an old transaction is open anywhere, and every look takes longer then.
pub fn pause(period: Duration, took: Duration) -> Duration {
    const LONGEST: Duration = Duration::from_secs(2);
    took.saturating_mul(20).min(LONGEST).max(period)
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock(Source::System)
    }

    /// A clock that moves only when told, starting at `start`.
    pub fn manual(start: Timestamp) -> Clock {
        Clock(Source::Manual(Arc::new(AtomicI64::new(start.0))))
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
            Source::System => chrono::Utc::now().into(),
            Source::Manual(micros) => Timestamp(micros.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock by milliseconds, forwards or back; the machine's clock ignores it.
    pub fn shift_millis(&self, millis: i64) {
        if let Source::Manual(micros) = &self.0 {
            micros.fetch_add(millis * 1_000, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_takes_about_a_twentieth_of_the_time_and_is_not_forgotten() {
        let period = Duration::from_millis(500);
        let after = |millis| pause(period, Duration::from_millis(millis));
        assert_eq!([after(0), after(25)], [period; 2]);
        assert_eq!(after(50), Duration::from_secs(1));
        assert_eq!([after(1_000), pause(period, Duration::MAX)], [Duration::from_secs(2); 2]);
        let longer = Duration::from_secs(9);
        assert_eq!(pause(longer, Duration::from_secs(1)), longer);
    }
}
