//! The `Retry-After` header of an answer, in both of its forms.
//!
//! Must not know: which answers it counts for; a format decides that.

use chrono::{DateTime, TimeDelta, Utc};

/// The longest wait a receiver may ask for.
pub const CAP: TimeDelta = TimeDelta::hours(24);

/// The time a receiver asks us to come back at: exact, never before `now` and at most [`CAP`]
/// after it. The first header counts; one that is neither seconds nor a date counts as absent.
pub fn retry_after(headers: &[(String, String)], now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let (_, value) = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after"))?;
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds are still a very long wait.
        value.parse().ok().and_then(TimeDelta::try_seconds).unwrap_or(CAP)
    } else {
        DateTime::<Utc>::from(httpdate::parse_http_date(value).ok()?).signed_duration_since(now)
    };
    now.checked_add_signed(wait.clamp(TimeDelta::zero(), CAP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(value: &str) -> Option<i64> {
        let now = DateTime::from_timestamp(784_111_777, 0).unwrap(); // 1994-11-06 08:49:37
        let headers = vec![
            ("Content-Type".to_owned(), "text/plain".to_owned()),
            ("Retry-AFTER".to_owned(), value.to_owned()),
        ];
        retry_after(&headers, now).map(|at| (at - now).num_seconds())
    }

    #[test]
    fn seconds_are_exact_and_capped() {
        assert_eq!(asked("0"), Some(0));
        assert_eq!(asked(" 120 "), Some(120));
        assert_eq!(asked("86400"), Some(86_400));
        assert_eq!(asked("86401"), Some(86_400));
        assert_eq!(asked("99999999999999999999999999"), Some(86_400));
    }

    #[test]
    fn dates_are_exact_capped_and_never_in_the_past() {
        assert_eq!(asked("Sun, 06 Nov 1994 08:51:37 GMT"), Some(120));
        assert_eq!(asked("Sunday, 06-Nov-94 08:51:37 GMT"), Some(120));
        assert_eq!(asked("Sun Nov  6 08:51:37 1994"), Some(120));
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(asked("Fri, 31 Dec 9999 23:59:59 GMT"), Some(86_400));
    }

    #[test]
    fn anything_else_counts_as_absent() {
        for value in ["", "-5", "+5", "1.5", "soon", "5 s", "Sun, 32 Nov 1994 08:51:37 GMT"] {
            assert_eq!(asked(value), None, "{value}");
        }
        assert_eq!(retry_after(&[], DateTime::UNIX_EPOCH), None);
    }
}
