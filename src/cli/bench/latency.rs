//! Percentiles of measured times.

/// The median and the 99th percentile, by nearest rank; zeros when nothing was measured.
pub(super) fn percentiles(mut times: Vec<i64>) -> (i64, i64) {
    times.sort_unstable();
    let rank = |percent: usize| {
        let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(index).copied().unwrap_or_default()
    };
    (rank(50), rank(99))
}

#[cfg(test)]
mod tests {
    use super::percentiles;

    #[test]
    fn nearest_rank() {
        assert_eq!(percentiles(Vec::new()), (0, 0));
        assert_eq!(percentiles(vec![7]), (7, 7));
        assert_eq!(percentiles((1..=100).rev().collect()), (50, 99));
        assert_eq!(percentiles(vec![3, 1, 2]), (2, 3));
    }
}
