//! What a partial change makes of headers and of a rate, after RFC 7396: members that are not
//! named stay, those without a value go.
//!
//! Values of headers are sealed, so only this side can keep them.

use crate::engine::error::{EngineError, EngineResult};
use crate::engine::receivers::RateLimit;

/// Headers of one receiver at most.
pub const MOST_HEADERS: usize = 20;
/// Bytes of their names and values together at most.
pub const MOST_HEADER_BYTES: usize = 8 * 1024;

/// What becomes of headers, by name: a value sets one, none removes it.
pub type HeaderChanges = Vec<(String, Option<String>)>;

/// What becomes of a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RateChange {
    /// Deliveries a second; `None` leaves them.
    pub per_second: Option<f64>,
    /// Deliveries at once: `None` leaves them, or what the rate implies if they were that; with
    /// `Some(None)` they are what the rate implies.
    pub burst: Option<Option<u32>>,
}

/// The headers after a change; names know no case.
pub(super) fn headers(
    mut known: Vec<(String, String)>,
    changes: &[(String, Option<String>)],
) -> EngineResult<Vec<(String, String)>> {
    for (name, value) in changes {
        known.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        if let Some(value) = value {
            known.push((name.clone(), value.clone()));
        }
    }
    let count = known.len();
    if count > MOST_HEADERS {
        let text = format!("headers would be {count}; allowed: {MOST_HEADERS} at most");
        return Err(EngineError::Invalid(text));
    }
    let bytes: usize = known.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MOST_HEADER_BYTES {
        let text = format!("headers would hold {bytes} bytes; allowed: {MOST_HEADER_BYTES}");
        return Err(EngineError::Invalid(text));
    }
    Ok(known)
}

/// The rate after a change.
pub(super) fn rate(known: Option<RateLimit>, change: RateChange) -> EngineResult<RateLimit> {
    let per_second = change.per_second.or(known.map(|rate| rate.per_second));
    let per_second = per_second.ok_or_else(|| {
        let text = "rateLimit.perSecond is required: this endpoint has no rate yet";
        EngineError::Invalid(text.to_owned())
    })?;
    let is_implied = |rate: &RateLimit| *rate == RateLimit::new(rate.per_second, None);
    let chosen = known.filter(|rate| !is_implied(rate)).map(|rate| rate.burst);
    let burst = change.burst.unwrap_or(chosen);
    Ok(RateLimit::new(per_second, burst))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(headers: &[(&str, &str)]) -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn headers_that_are_not_named_stay() {
        let known = owned(&[("X-A", "1"), ("X-B", "2"), ("X-C", "3")]);
        let changes = [
            ("x-a".to_owned(), None),
            ("x-b".to_owned(), Some("4".to_owned())),
            ("X-D".to_owned(), Some("5".to_owned())),
            ("X-E".to_owned(), None),
        ];
        let merged = headers(known.clone(), &changes).unwrap();
        assert_eq!(merged, owned(&[("X-C", "3"), ("x-b", "4"), ("X-D", "5")]));
        assert_eq!(headers(known.clone(), &[]).unwrap(), known);
    }

    #[test]
    fn headers_stay_bounded_over_all_changes() {
        let full: Vec<_> = (0..MOST_HEADERS).map(|n| (format!("x-{n}"), String::new())).collect();
        let one = |name: &str, value: &str| vec![(name.to_owned(), Some(value.to_owned()))];
        assert!(headers(full.clone(), &one("X-1", "v")).is_ok());
        assert!(headers(full, &one("y", "v")).is_err());
        let half = "v".repeat(MOST_HEADER_BYTES / 2 - 1);
        let known = owned(&[("a", half.as_str())]);
        assert!(headers(known.clone(), &one("b", &half)).is_ok());
        assert!(headers(known, &one("b", &format!("{half}v"))).is_err());
    }

    #[test]
    fn a_rate_is_changed_in_part() {
        let known = Some(RateLimit { per_second: 5.0, burst: 9 });
        let change = |per_second, burst| RateChange { per_second, burst };
        for (change, per_second, burst) in [
            (change(None, None), 5.0, 9),
            (change(Some(2.5), None), 2.5, 9),
            (change(None, Some(Some(3))), 5.0, 3),
            (change(Some(2.5), Some(None)), 2.5, 3),
        ] {
            assert_eq!(rate(known, change).unwrap(), RateLimit { per_second, burst });
        }
        // A burst that nobody chose is what comes in a second, of the new rate too.
        let implied = Some(RateLimit::new(5.0, None));
        let faster = rate(implied, change(Some(1_000.0), None)).unwrap();
        assert_eq!(faster, RateLimit { per_second: 1_000.0, burst: 1_000 });
        let chosen = rate(implied, change(Some(1_000.0), Some(Some(5)))).unwrap();
        assert_eq!(chosen, RateLimit { per_second: 1_000.0, burst: 5 });
        let first = rate(None, change(Some(0.5), None)).unwrap();
        assert_eq!(first, RateLimit { per_second: 0.5, burst: 1 });
        assert!(rate(None, change(None, Some(Some(3)))).is_err());
    }
}
