//! Waiting for a condition, within a bound: the only place in the tests that pauses.
//!
//! A test that needs a fixed pause has not found its condition yet.

use std::panic::Location;
use std::thread;
use std::time::{Duration, Instant};

/// The first pause between two looks; each one is longer than the last.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// Looks until there is something, and panics when `timeout` is over.
#[track_caller]
pub fn eventually<T>(what: &str, timeout: Duration, look: impl FnMut() -> Option<T>) -> T {
    let caller = Location::caller();
    match within(timeout, look) {
        Some(found) => found,
        None => panic!("not within {timeout:?}: {what} (waited for at {caller})"),
    }
}

/// Looks until there is something or `timeout` is over. Always looks at least once.
pub fn within<T>(timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        let left = deadline.checked_duration_since(Instant::now())?;
        // Waking too early only costs another look.
        thread::park_timeout(pause.min(left));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The same for async tests, whose other tasks go on meanwhile.
pub async fn eventually_async<T>(
    what: &str,
    timeout: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let mut pauses = tokio::time::interval(FIRST_PAUSE * 5);
    let looking = async {
        loop {
            pauses.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    match tokio::time::timeout(timeout, looking).await {
        Ok(found) => found,
        Err(_) => panic!("not within {timeout:?}: {what}"),
    }
}
