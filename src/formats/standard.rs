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

use super::hex::sign_hex;
use super::json::Text;
use super::judgement::{ABORTED_BY_RECEIVER, DISABLED_BY_RECEIVER, GONE, RECEIVER_GONE};
use super::receiver_control::ReceiverControl;
use super::retry_after::retry_after;
use super::{
    AttemptView, DeliveryFormat, EventView, Header, Judgement, MAX_BODY_BYTES, PreviousFailure,
    Schedule, Signature, SigningKeys, SigningSecret, Verdict, oversize,
};

/// Sent with every delivery, so that receivers can tell us apart in their logs.
pub const USER_AGENT: &str = concat!("ringback/", env!("CARGO_PKG_VERSION"));

/// Where receivers that check the Stripe style find their signature. Not that vendor's own name:
/// what arrives is none of its events.
pub const HEX_HEADER: &str = "ringback-signature";

/// `v1,` and 44 characters of base64, and the space before the next one.
const V1_BYTES: usize = 48;
/// The same for `v1a,` and 88 characters.
const V1A_BYTES: usize = 93;

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
        keys: &SigningKeys,
        signature: Signature,
        body: &str,
        previous: Option<&PreviousFailure<'_>>,
    ) -> Vec<Header> {
        signed_headers(attempt, keys, signature, body, previous)
    }

    /// Only 2xx is received. 410 is a receiver that is gone for good. A plain 404 is tried again
    /// like any other refusal, because receivers are misconfigured for an hour far more often than
    /// they mean it, but not for days. A redirect is a failure too; following it would send a
    /// signed body somewhere nobody vetted.
    fn judge(&self, status: u16, headers: &[(String, String)], now: DateTime<Utc>) -> Judgement {
        let control = ReceiverControl::of(headers);
        let verdict = match status {
            200..=299 => Verdict::Delivered,
            _ if control.abort_message => Verdict::Final { reason: ABORTED_BY_RECEIVER },
            410 => Verdict::Final { reason: RECEIVER_GONE },
            408 | 425 | 429 | 500..=599 => Verdict::Retry { at: retry_after(headers, now) },
            400..=499 => Verdict::RetryBriefly,
            _ => Verdict::Retry { at: None },
        };
        let wants_no_more = match status {
            410 => Some(GONE),
            _ => control.disable.then_some(DISABLED_BY_RECEIVER),
        };
        Judgement { verdict, wants_no_more }
    }

    fn schedule(&self) -> &Schedule {
        &self.schedule
    }
}

/// The standard headers of one try. Without a key there is no signature header at all, because an
/// empty one makes receivers' libraries fail in unclear ways.
pub fn signed_headers(
    attempt: &AttemptView<'_>,
    keys: &SigningKeys,
    signature: Signature,
    body: &str,
    previous: Option<&PreviousFailure<'_>>,
) -> Vec<Header> {
    let time = attempt.timestamp_seconds.to_string();
    let mut headers = Vec::with_capacity(10);
    headers.push(("content-type", Cow::Borrowed("application/json")));
    headers.push(("user-agent", Cow::Borrowed(USER_AGENT)));
    headers.push(("webhook-id", Cow::Owned(attempt.webhook_id.to_owned())));
    let signatures = signatures(attempt.webhook_id, &time, body, keys, signature);
    if !signatures.is_empty() {
        headers.push(("webhook-signature", Cow::Owned(signatures)));
    }
    if signature == Signature::Hex && !keys.secrets.is_empty() {
        let texts = keys.secrets.iter().map(SigningSecret::text);
        let value = sign_hex(texts, attempt.timestamp_seconds, body);
        headers.push((HEX_HEADER, Cow::Owned(value)));
    }
    headers.push(("webhook-timestamp", Cow::Owned(time)));
    headers.push(("webhook-attempt", Cow::Owned(attempt.number.to_string())));
    if let Some(failure) = previous {
        headers.push(("webhook-previous-failure", Cow::Owned(failure.reason.to_owned())));
    }
    if let Some(redelivery) = attempt.redelivery {
        headers.push(("webhook-redelivery", Cow::Owned(redelivery.to_owned())));
    }
    headers
}

/// One signature per key over `id.time.body`: `v1a,<base64>` where the receiver wants ed25519, and
/// `v1,<base64>` for every secret. During a rotation a receiver finds the one it has, whichever it
/// is; so does one that is on its way from one kind to the other.
fn signatures(
    webhook_id: &str,
    time: &str,
    body: &str,
    keys: &SigningKeys,
    signature: Signature,
) -> String {
    let key_pairs = if signature == Signature::Ed25519 { &*keys.ed25519 } else { &[] };
    let bytes = key_pairs.len() * V1A_BYTES + keys.secrets.len() * V1_BYTES;
    let mut value = String::with_capacity(bytes);
    if !key_pairs.is_empty() {
        let message = [webhook_id, time, body].join(".");
        for pair in key_pairs {
            add(&mut value, "v1a,", &pair.sign(message.as_bytes()));
        }
    }
    for secret in &keys.secrets {
        let mut mac = secret.mac();
        for part in [webhook_id, ".", time, ".", body] {
            mac.update(part.as_bytes());
        }
        add(&mut value, "v1,", &mac.finalize().into_bytes());
    }
    value
}

fn add(value: &mut String, version: &str, signature: &[u8]) {
    if !value.is_empty() {
        value.push(' ');
    }
    value.push_str(version);
    STANDARD.encode_string(signature, value);
}

#[cfg(test)]
#[path = "standard_tests.rs"]
mod tests;
