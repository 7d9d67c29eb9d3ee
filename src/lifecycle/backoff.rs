//! How long a failed try waits before the next one; pure in attempt and chance.

/// First wait, doubled per further try.
const FIRST_MILLIS: f64 = 2_000.0;
/// No wait is longer than this (before jitter).
const LONGEST_MILLIS: f64 = 10.0 * 60.0 * 1_000.0;

/// Wait in milliseconds before the try after `attempt` (1-based); `chance` in 0..1 spreads waits
/// up to a quarter later, so that jobs that failed together do not come back together.
pub fn retry_delay_millis(attempt: i64, chance: f64) -> i64 {
    let exponent = attempt.clamp(1, 20) - 1;
    let base = (FIRST_MILLIS * 2f64.powi(exponent as i32)).min(LONGEST_MILLIS);
    (base * (1.0 + 0.25 * chance.clamp(0.0, 1.0))) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        assert_eq!(retry_delay_millis(1, 0.0), 2_000);
        assert_eq!(retry_delay_millis(2, 0.0), 4_000);
        assert_eq!(retry_delay_millis(2, 1.0), 5_000);
        assert_eq!(retry_delay_millis(60, 0.0), 600_000);
        assert_eq!(retry_delay_millis(0, 0.0), 2_000);
    }
}
