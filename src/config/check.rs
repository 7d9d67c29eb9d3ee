//! Which values of settings can be used. A refusal names the setting, the value and what is
//! allowed.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::{Config, ConfigError};

const WEEK_SECONDS: u64 = 7 * 24 * 60 * 60;
/// Longer than anybody waits, and short enough to be added to any instant.
const YEAR_SECONDS: u64 = 365 * 24 * 60 * 60;
const HOUR_SECONDS: u64 = 60 * 60;
/// The longest pause of a closed lane.
const MAX_BREAKER_SECONDS: u64 = 10 * 60;
const MAX_SLOTS: usize = 10_000;
const MAX_RATE: u32 = 1_000_000;
const CENTURY_DAYS: u32 = 36_500;

pub(super) const SLOTS: RangeInclusive<usize> = 1..=MAX_SLOTS;
pub(super) const RATE: RangeInclusive<u32> = 1..=MAX_RATE;
pub(super) const LANE_RATE: RangeInclusive<f64> = 0.001..=MAX_RATE as f64;
pub(super) const DAYS_KEPT: RangeInclusive<u32> = 0..=CENTURY_DAYS;
pub(super) const ANY_WAIT: RangeInclusive<u64> = 0..=YEAR_SECONDS;
pub(super) const DEADLINE: RangeInclusive<u64> = 1..=HOUR_SECONDS;
pub(super) const BREAKER_WAIT: RangeInclusive<u64> = 0..=MAX_BREAKER_SECONDS;
pub(super) const RETRY_WAIT: RangeInclusive<u64> = 0..=WEEK_SECONDS;

/// Refuses the first setting that cannot be used.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    if let Some(url) = &config.public_url {
        public_url(url)?;
    }
    within("job_slots", config.job_slots, SLOTS)?;
    for (queue, slots) in &config.queue_slots {
        within(&format!("queue_slots.{queue}"), *slots, 0..=MAX_SLOTS)?;
    }
    within("job_timeout_seconds", config.job_timeout_seconds, 1..=YEAR_SECONDS)?;
    within("import_deadline_seconds", config.import_deadline_seconds, 1..=YEAR_SECONDS)?;
    within("retention_days", config.retention_days, DAYS_KEPT)?;
    within("grace_seconds", config.grace_seconds, ANY_WAIT)?;
    within("rate_per_second", config.rate_per_second, RATE)?;
    within("rate_burst", config.rate_burst, RATE)?;
    within("lane_in_flight", config.lane_in_flight, SLOTS)?;
    if let Some(rate) = config.lane_rate_per_second {
        within("lane_rate_per_second", rate, LANE_RATE)?;
    }
    if let Some(burst) = config.lane_rate_burst {
        within("lane_rate_burst", burst, RATE)?;
    }
    within("delivery_deadline_seconds", config.delivery_deadline_seconds, DEADLINE)?;
    within("breaker_seconds", config.breaker_seconds, BREAKER_WAIT)?;
    within("disable_after_seconds", config.disable_after_seconds, ANY_WAIT)?;
    for wait in config.retry_schedule_seconds.iter().flatten() {
        within("retry_schedule_seconds", *wait, RETRY_WAIT)?;
    }
    Ok(())
}

fn within<T: PartialOrd + Display>(
    name: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    Err(ConfigError(format!("{name} {value} is not allowed: {least} to {most}")))
}

fn public_url(text: &str) -> Result<(), ConfigError> {
    let good = url::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    });
    if good {
        return Ok(());
    }
    // Behind a name there may be a password, which must not be repeated.
    let shown = if text.contains('@') { "***".to_owned() } else { format!("{text:?}") };
    let allowed = "http(s)://HOST[:PORT][/PATH], without name and password";
    Err(ConfigError(format!("public_url {shown} is not allowed: {allowed}")))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn refusal(change: impl FnOnce(&mut Config)) -> Option<String> {
        let mut config = Config::default();
        change(&mut config);
        check(&config).err().map(|error| error.to_string())
    }

    #[test]
    fn defaults_can_be_used() {
        assert_eq!(refusal(|_| {}), None);
    }

    #[test]
    fn a_number_is_refused_by_name_value_and_bounds() {
        let refused = refusal(|config| config.job_slots = 0);
        assert_eq!(refused.as_deref(), Some("job_slots 0 is not allowed: 1 to 10000"));
        let refused = refusal(|config| config.lane_rate_per_second = Some(f64::NAN));
        let expected = "lane_rate_per_second NaN is not allowed: 0.001 to 1000000";
        assert_eq!(refused.as_deref(), Some(expected));
        let refused = refusal(|config| config.retry_schedule_seconds = Some(vec![0, 604_801]));
        let expected = "retry_schedule_seconds 604801 is not allowed: 0 to 604800";
        assert_eq!(refused.as_deref(), Some(expected));
    }

    #[test]
    fn no_number_of_seconds_is_too_large_for_an_instant() {
        let far = Duration::from_secs(YEAR_SECONDS);
        assert!(Instant::now().checked_add(far).is_some());
        type Setting = fn(&mut Config) -> &mut u64;
        let seconds: [(&str, Setting); 6] = [
            ("job_timeout_seconds", |config| &mut config.job_timeout_seconds),
            ("import_deadline_seconds", |config| &mut config.import_deadline_seconds),
            ("grace_seconds", |config| &mut config.grace_seconds),
            ("delivery_deadline_seconds", |config| &mut config.delivery_deadline_seconds),
            ("breaker_seconds", |config| &mut config.breaker_seconds),
            ("disable_after_seconds", |config| &mut config.disable_after_seconds),
        ];
        for (name, setting) in seconds {
            for beyond in [YEAR_SECONDS + 1, i64::MAX as u64, u64::MAX] {
                let refused = refusal(|config| *setting(config) = beyond).unwrap_or_default();
                assert!(refused.starts_with(&format!("{name} {beyond} is not")), "{refused}");
            }
        }
    }

    #[test]
    fn a_public_address_has_no_name_and_no_password() {
        let refused = |url: &str| refusal(|config| config.public_url = Some(url.to_owned()));
        for good in ["http://a", "https://a.example:8443/ringback", "https://a/@b"] {
            assert_eq!(refused(good), None);
        }
        for bad in ["a", "ftp://a", "https://a?b", "https://a#b"] {
            assert!(refused(bad).is_some_and(|text| text.contains(bad)), "{bad}");
        }
        for bad in ["https://user@a", "https://:hunter2@a", "https://user:hunter2@a", "x:hunter2@"]
        {
            let text = refused(bad).unwrap_or_default();
            assert!(text.starts_with("public_url *** is not allowed: http"), "{bad}: {text}");
        }
    }
}
