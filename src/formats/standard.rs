//! Standard Webhooks, the format every receiver gets unless it asks for another.
//!
//! Must not know: any vendor's dialect. Vendors' formats may use [`signed_headers`] to send the
//! standard headers beside their own.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use hmac::Mac;

use super::json::Text;
use super::retry_after::retry_after;
use super::{
    AttemptView, DeliveryFormat, EventView, Header, MAX_BODY_BYTES, PreviousFailure, Schedule,
    SigningSecret, Verdict, oversize,
};

/// Sent with every delivery, so that receivers can tell us apart in their logs.
pub const USER_AGENT: &str = concat!("ringback/", env!("CARGO_PKG_VERSION"));

/// `v1,` and 44 characters of base64, and the space before the next one.
const SIGNATURE_BYTES: usize = 48;

/// The format itself. It only holds its schedule.
#[derive(Debug, Clone)]
pub struct Standard {
    schedule: Schedule,
}

impl Default for Standard {
    /// At once, then after 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 h: a little over three
    /// days, enough to outlast a weekend.
    fn default() -> Self {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let short = [5, 5 * 60, 30 * 60].map(Duration::from_secs);
        let long = [2, 5, 10, 14, 20, 24].map(hours);
        Standard { schedule: Schedule::after_first(short.into_iter().chain(long)) }
    }
}

impl Standard {
    /// The format with an operator's own schedule.
    pub fn with_schedule(schedule: Schedule) -> Standard {
        Standard { schedule }
    }
}

impl DeliveryFormat for Standard {
    fn name(&self) -> &'static str {
        "standard"
    }

    fn body(&self, event: &EventView<'_>, public_url: &str) -> String {
        let data = event.data.get();
        let mut body = String::with_capacity(data.len().min(MAX_BODY_BYTES) + 256);
        // Writing into a String has no way to fail.
        let _ = write!(
            body,
            r#"{{"id":"{}","type":{},"timestamp":{},"sequence":{},"schemaVersion":1,"data":"#,
            event.id,
            Text(event.event_type),
            Text(event.timestamp),
            event.sequence,
        );
        let room = MAX_BODY_BYTES.saturating_sub(body.len() + 1);
        if data.len() <= room {
            body.push_str(data);
        } else {
            body.push_str(&oversize::fit(data, room, &event.subject_url(public_url)));
        }
        body.push('}');
        body
    }

    fn headers(
        &self,
        attempt: &AttemptView<'_>,
        secrets: &[SigningSecret],
        body: &str,
        previous: Option<&PreviousFailure<'_>>,
    ) -> Vec<Header> {
        signed_headers(attempt, secrets, body, previous)
    }

    /// Only 2xx is received. 410 is a receiver that is gone for good. Everything else is tried
    /// again, even a plain 404: receivers are misconfigured for an hour far more often than they
    /// mean it. A redirect is a failure too; following it would send a signed body somewhere
    /// nobody vetted.
    fn judge(&self, status: u16, headers: &[(String, String)], now: DateTime<Utc>) -> Verdict {
        match status {
            200..=299 => Verdict::Delivered,
            410 => Verdict::Disable,
            408 | 425 | 429 | 500..=599 => Verdict::Retry { at: retry_after(headers, now) },
            _ => Verdict::Retry { at: None },
        }
    }

    fn schedule(&self) -> &Schedule {
        &self.schedule
    }
}

/// The standard headers of one try. Without a secret there is no signature header at all, because
/// an empty one makes receivers' libraries fail in unclear ways.
pub fn signed_headers(
    attempt: &AttemptView<'_>,
    secrets: &[SigningSecret],
    body: &str,
    previous: Option<&PreviousFailure<'_>>,
) -> Vec<Header> {
    let time = attempt.timestamp_seconds.to_string();
    let mut headers = Vec::with_capacity(8);
    headers.push(("content-type", Cow::Borrowed("application/json")));
    headers.push(("user-agent", Cow::Borrowed(USER_AGENT)));
    headers.push(("webhook-id", Cow::Owned(attempt.webhook_id.to_owned())));
    if !secrets.is_empty() {
        let value = signatures(attempt.webhook_id, &time, body, secrets);
        headers.push(("webhook-signature", Cow::Owned(value)));
    }
    headers.push(("webhook-timestamp", Cow::Owned(time)));
    headers.push(("webhook-attempt", Cow::Owned(attempt.number.to_string())));
    if let Some(failure) = previous {
        headers.push(("webhook-previous-failure", Cow::Owned(failure.reason.to_owned())));
    }
    headers
}

/// `v1,<base64>` per secret, over `id.time.body`. During a rotation a receiver finds the one it
/// has, whichever it is.
fn signatures(webhook_id: &str, time: &str, body: &str, secrets: &[SigningSecret]) -> String {
    let mut value = String::with_capacity(secrets.len() * SIGNATURE_BYTES);
    for secret in secrets {
        let mut mac = secret.mac();
        for part in [webhook_id, ".", time, ".", body] {
            mac.update(part.as_bytes());
        }
        if !value.is_empty() {
            value.push(' ');
        }
        value.push_str("v1,");
        STANDARD.encode_string(mac.finalize().into_bytes(), &mut value);
    }
    value
}

#[cfg(test)]
#[path = "standard_tests.rs"]
mod tests;
