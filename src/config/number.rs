//! Numbers on the command line, within bounds. A refusal says what is allowed.
//!
//! Must not know which option is read.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Reads a whole number.
pub fn whole<N>(range: RangeInclusive<N>) -> impl Fn(&str) -> Result<N, String> + Clone
where
    N: FromStr + PartialOrd + Display + Clone,
{
    within(range, "a whole number")
}

/// Reads a number that may have a fraction.
pub fn any(range: RangeInclusive<f64>) -> impl Fn(&str) -> Result<f64, String> + Clone {
    within(range, "a number")
}

fn within<N>(
    range: RangeInclusive<N>,
    what: &'static str,
) -> impl Fn(&str) -> Result<N, String> + Clone
where
    N: FromStr + PartialOrd + Display + Clone,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("allowed: {what} from {} to {}", range.start(), range.end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_or_refused_with_what_is_allowed() {
        assert_eq!(whole(1..=10)("10"), Ok(10));
        assert_eq!(any(0.5..=10.0)("0.5"), Ok(0.5));
        for bad in ["", "x", "0", "11", "-1", "1.0", "99999999999999999999"] {
            let refused = whole(1..=10_u32)(bad).unwrap_err();
            assert_eq!(refused, "allowed: a whole number from 1 to 10", "{bad}");
        }
        for bad in ["", "x", "0.4", "NaN", "inf"] {
            let refused = any(0.5..=10.0)(bad).unwrap_err();
            assert_eq!(refused, "allowed: a number from 0.5 to 10", "{bad}");
        }
    }
}
