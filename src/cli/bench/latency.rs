//! Medians and percentiles of measured figures.

use std::collections::BTreeMap;

use super::report::rounded;

/// The median and the 99th percentile, by nearest rank; zeros when nothing was measured.
pub(super) fn percentiles(mut times: Vec<i64>) -> (i64, i64) {
    times.sort_unstable();
    let rank = |percent: usize| {
        let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(index).copied().unwrap_or_default()
    };
    (rank(50), rank(99))
}

/// The middle one, or the mean of the two in the middle; 0 of nothing.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or_default();
    match values.len() {
        0 => 0.0,
        count => rounded((at((count - 1) / 2) + at(count / 2)) / 2.0),
    }
}

/// Times that are too many to keep each: they are counted, exact to a thousandth.
#[derive(Default)]
pub(super) struct Histogram {
    counts: BTreeMap<i64, u64>,
    total: u64,
}

impl Histogram {
    pub(super) fn add(&mut self, time: i64) {
        *self.counts.entry(rough(time)).or_default() += 1;
        self.total += 1;
    }

    /// The median and the 99th percentile, by nearest rank; zeros when nothing was measured.
    pub(super) fn percentiles(&self) -> (i64, i64) {
        (self.rank(50), self.rank(99))
    }

    fn rank(&self, percent: u64) -> i64 {
        let wanted = (self.total * percent).div_ceil(100).max(1);
        let mut passed = 0;
        let found = self.counts.iter().find(|(_, count)| {
            passed += **count;
            passed >= wanted
        });
        found.map_or(0, |(time, _)| *time)
    }
}

/// The first eleven binary digits.
fn rough(time: i64) -> i64 {
    let digits = i64::BITS - time.max(0).leading_zeros();
    let spare = digits.saturating_sub(11);
    time >> spare << spare
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        assert_eq!(percentiles(Vec::new()), (0, 0));
        assert_eq!(percentiles(vec![7]), (7, 7));
        assert_eq!(percentiles((1..=100).rev().collect()), (50, 99));
        assert_eq!(percentiles(vec![3, 1, 2]), (2, 3));
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![]), 0.0);
    }

    #[test]
    fn counted_times_have_the_same_percentiles() {
        for times in [vec![], vec![7], (1..=100).rev().collect(), vec![3, 1, 2], vec![-2, 0]] {
            let mut counted = Histogram::default();
            times.iter().for_each(|time| counted.add(*time));
            assert_eq!(counted.percentiles(), percentiles(times));
        }
    }

    #[test]
    fn long_times_are_exact_to_a_thousandth() {
        for time in [2_047, 2_049, 123_457, 60_000_001, i64::MAX] {
            let kept = rough(time);
            assert!(kept <= time && time - kept <= time / 1_000, "{time} is kept as {kept}");
        }
    }
}
