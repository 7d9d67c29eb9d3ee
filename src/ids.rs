//! Identifiers and instants: the small value types that every module shares.
//!
//! Must not know the clock, the database or any wire format beyond its own text form. Outside,
//! things are named by UUIDv7; inside, rows are joined by a 64-bit `Key` that is never shown,
//! because keys reveal how much work everybody else has.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Row number inside the database; never leaves the process.
pub type Key = i64;

/// A new time-ordered public id.
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// A random number that tells one version of something from every other.
pub fn new_stamp() -> i64 {
    let (_, low) = Uuid::new_v4().as_u64_pair();
    // Two bits of the lower half are fixed; zero stands for "never changed".
    i64::try_from(low >> 2).unwrap_or(i64::MAX).max(1)
}

/// Parses a public id in the one spelling we hand out (hyphenated or not, any case).
pub fn parse_id(text: &str) -> Option<Uuid> {
    Uuid::parse_str(text).ok().filter(|_| text.len() == 36 || text.len() == 32)
}

/// An instant in microseconds since the Unix epoch, UTC. Whole milliseconds by agreement, so that
/// an instant reads the same from a row and from the text of an event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This instant moved by milliseconds; saturates at the ends of time.
    pub fn plus_millis(self, millis: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(millis.saturating_mul(1_000)))
    }

    /// This instant moved by a duration into the future.
    pub fn plus(self, duration: std::time::Duration) -> Timestamp {
        Timestamp(
            self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)),
        )
    }

    /// Milliseconds from `earlier` to this instant; negative when the clock went back.
    pub fn millis_since(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0) / 1_000
    }

    /// Whole seconds since the epoch, as webhook signatures name the time.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The same instant for calendar arithmetic; the epoch when out of chrono's range.
    pub fn to_datetime(self) -> chrono::DateTime<chrono::Utc> {
        chrono::DateTime::from_timestamp_micros(self.0).unwrap_or_default()
    }
}

impl From<chrono::DateTime<chrono::Utc>> for Timestamp {
    fn from(value: chrono::DateTime<chrono::Utc>) -> Timestamp {
        Timestamp(value.timestamp_millis().saturating_mul(1_000))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        use chrono::{Datelike, Timelike};
        // RFC 3339 in UTC with milliseconds, the native face's form of every time. Written out,
        // because reading a format text each time shows in profiles.
        let time = self.to_datetime();
        write!(
            formatter,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            time.year(),
            time.month(),
            time.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.timestamp_subsec_millis().min(999)
        )
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Timestamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Timestamp, String> {
        chrono::DateTime::parse_from_rfc3339(text)
            .map(|time| Timestamp(time.timestamp_millis().saturating_mul(1_000)))
            .map_err(|_| {
                format!("`{text}` is not an RFC 3339 time such as 2026-01-31T12:00:00.000Z")
            })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectKind {
    /// One unit of work.
    Job,
    /// Jobs that belong together.
    Group,
    /// A registered receiver.
    Endpoint,
    /// Stored bytes with a path.
    File,
    /// A thing that only one face knows.
    Resource,
}

impl SubjectKind {
    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            SubjectKind::Job => "job",
            SubjectKind::Group => "group",
            SubjectKind::Endpoint => "endpoint",
            SubjectKind::File => "file",
            SubjectKind::Resource => "resource",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_milliseconds_and_the_z() {
        let time: Timestamp = "2026-01-31T13:00:00.123456+01:00".parse().unwrap();
        assert_eq!(time.to_string(), "2026-01-31T12:00:00.123Z");
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn braced_and_urn_spellings_of_an_id_are_refused() {
        let id = new_id();
        assert_eq!(parse_id(&id.to_string()), Some(id));
        assert_eq!(parse_id(&format!("{{{id}}}")), None);
        assert_eq!(parse_id(&format!("urn:uuid:{id}")), None);
    }
}
