//! Times in microseconds that two processes may compare.
//!
//! The crate's clock tells milliseconds, and `Instant` means nothing outside of its process. So
//! each process watches the clock's milliseconds begin and lays its own `Instant` beside them.

use std::time::{Duration, Instant};

use crate::clock::Clock;

/// How many beginnings are watched. Whoever is late sees one too late, never too early, so the
/// earliest is the best.
const WATCHED: usize = 20;
/// Watching ends then even if the clock stands still.
const PATIENCE: Duration = Duration::from_millis(500);

/// A wall clock that goes as steadily as `Instant`.
pub(super) struct Ruler {
    origin: Instant,
    /// Microseconds since the epoch at the origin.
    offset: i64,
}

impl Ruler {
    /// Takes some 20 ms.
    pub(super) fn new(clock: &Clock) -> Ruler {
        let origin = Instant::now();
        let mut last = clock.now().0;
        let (mut offset, mut seen) = (i64::MIN, 0);
        while seen < WATCHED && origin.elapsed() < PATIENCE {
            let now = clock.now().0;
            if now > last {
                last = now;
                seen += 1;
                offset = offset.max(now - micros(origin.elapsed()));
            }
        }
        Ruler { origin, offset: if seen == 0 { last } else { offset } }
    }

    /// Microseconds since the epoch.
    pub(super) fn now(&self) -> i64 {
        self.offset + micros(self.origin.elapsed())
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rulers_agree_with_each_other_and_with_the_clock() {
        const TICK: i64 = 1_000;
        let clock = Clock::system();
        let (one, other) = (Ruler::new(&clock), Ruler::new(&clock));
        for ruler in [&one, &other] {
            let (before, read, after) = (clock.now().0, ruler.now(), clock.now().0);
            assert!((before - TICK..=after + TICK).contains(&read), "{before} {read} {after}");
        }
        let (before, read, after) = (one.now(), other.now(), one.now());
        assert!((before - TICK..=after + TICK).contains(&read), "{before} {read} {after}");
    }
}
