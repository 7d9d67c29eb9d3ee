//! When the tries of a delivery happen.
//!
//! Must not know: what is tried, or where random numbers come from.

use std::time::Duration;

/// How much later than planned a try may come, so that a crowd of deliveries that failed together
/// does not come back together.
const JITTER: f64 = 0.1;

/// The longest wait of the short end.
const BRIEF: Duration = Duration::from_secs(30 * 60);

/// The waits between the tries of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Element n is the wait before try n + 1, counted from the end of the try before it; the
    /// first is 0. Its length is the number of tries.
    pub delays: Vec<Duration>,
}

impl Schedule {
    /// A first try at once, then one after each of these waits.
    pub fn after_first(waits: impl IntoIterator<Item = Duration>) -> Schedule {
        Schedule { delays: std::iter::once(Duration::ZERO).chain(waits).collect() }
    }

    /// A first try at once, then one every `interval` until `window` has passed.
    pub fn every(interval: Duration, window: Duration) -> Schedule {
        let retries = match interval.as_nanos() {
            0 => 0,
            nanos => usize::try_from(window.as_nanos() / nanos).unwrap_or(0),
        };
        Schedule::after_first(std::iter::repeat_n(interval, retries))
    }

    /// The wait before try number `attempt`, counted from 1; `None` when the tries are used up.
    pub fn delay_before(&self, attempt: u32) -> Option<Duration> {
        let index = usize::try_from(attempt.checked_sub(1)?).ok()?;
        self.delays.get(index).copied()
    }

    /// The same over the short end of the schedule: its leading waits of at most half an hour, or
    /// the first one alone where that is longer.
    pub fn delay_before_briefly(&self, attempt: u32) -> Option<Duration> {
        let brief = self.delays.iter().skip(1).take_while(|wait| **wait <= BRIEF).count();
        let retries = u32::try_from(brief.max(1)).unwrap_or(u32::MAX);
        let wait = self.delay_before(attempt)?;
        (attempt <= retries.saturating_add(1)).then_some(wait)
    }

    /// How many tries there are in all.
    #[cfg(test)]
    pub fn tries(&self) -> u32 {
        u32::try_from(self.delays.len()).unwrap_or(u32::MAX)
    }

    /// `delay` and up to a tenth more; `random` is in 0..1. Never earlier: an early retry would
    /// break a promise made to the receiver, a late one costs nobody anything. A time that the
    /// receiver asked for (`Retry-After`) gets no jitter at all.
    pub fn with_jitter(delay: Duration, random: f64) -> Duration {
        let share = if random.is_finite() { random.clamp(0.0, 1.0) } else { 0.0 };
        delay.saturating_add(
            Duration::try_from_secs_f64(delay.as_secs_f64() * JITTER * share).unwrap_or_default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn tries_are_counted_from_one_and_end() {
        let schedule = Schedule::after_first([Duration::from_secs(5), 5 * MINUTE]);
        assert_eq!(schedule.tries(), 3);
        assert_eq!(schedule.delay_before(0), None);
        assert_eq!(schedule.delay_before(1), Some(Duration::ZERO));
        assert_eq!(schedule.delay_before(3), Some(5 * MINUTE));
        assert_eq!(schedule.delay_before(4), None);
        assert_eq!(schedule.delay_before(u32::MAX), None);
    }

    #[test]
    fn every_half_hour_for_a_day_is_49_tries() {
        let schedule = Schedule::every(30 * MINUTE, 24 * 60 * MINUTE);
        assert_eq!(schedule.tries(), 49);
        assert_eq!(schedule.delays.iter().sum::<Duration>(), 24 * 60 * MINUTE);
        assert_eq!(Schedule::every(Duration::ZERO, MINUTE).tries(), 1);
    }

    #[test]
    fn the_short_end_is_the_leading_waits_of_half_an_hour_or_less() {
        let tries = |minutes: &[u32]| {
            let schedule = Schedule::after_first(minutes.iter().map(|count| *count * MINUTE));
            let waits = (1..).map_while(|attempt| schedule.delay_before_briefly(attempt));
            waits.inspect(|wait| assert!(schedule.delays.contains(wait))).count()
        };
        assert_eq!(tries(&[]), 1, "nothing is tried again where nothing ever is");
        assert_eq!(tries(&[1, 5, 30, 31, 5]), 4);
        assert_eq!(tries(&[30; 48]), 49);
        assert_eq!(tries(&[600, 5]), 2, "once at least");
        let schedule = Schedule::after_first([5 * MINUTE, 31 * MINUTE]);
        assert_eq!(schedule.delay_before_briefly(0), None);
        assert_eq!(schedule.delay_before_briefly(2), Some(5 * MINUTE));
        assert_eq!(schedule.delay_before_briefly(3), None);
        assert_eq!(schedule.delay_before_briefly(u32::MAX), None);
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config {
            rng_seed: proptest::test_runner::RngSeed::Fixed(2026),
            failure_persistence: None,
            ..proptest::test_runner::Config::default()
        })]

        #[test]
        fn jitter_is_only_later_and_at_most_a_tenth(seconds in 0u64..200_000, random in 0.0f64..1.0) {
            let delay = Duration::from_secs(seconds);
            let late = Schedule::with_jitter(delay, random);
            proptest::prop_assert!(late >= delay && late <= delay.mul_f64(1.1) + Duration::from_nanos(2));
        }
    }

    #[test]
    fn jitter_survives_nonsense() {
        for random in [f64::NAN, f64::INFINITY, -3.0] {
            assert_eq!(Schedule::with_jitter(MINUTE, random), MINUTE);
        }
        assert_eq!(Schedule::with_jitter(Duration::MAX, 0.5), Duration::MAX);
    }
}
