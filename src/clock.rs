//! The only reader of the time.
//!
//! Everything that decides by time asks a `Clock`, so tests can move it both ways. Must not know
//! who asks. Times are cut to milliseconds, so that rows and events tell the same instant.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::ids::Timestamp;

/// Where the current time comes from.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
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
