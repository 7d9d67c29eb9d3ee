//! What an answer or a failure means: the attempt's record and what follows. Pure.

use crate::egress::{Answer, SendError};
use crate::engine::{ClosedAttempt, Next, OwedDelivery, RECEIVER_GONE, delivery_status};
use crate::formats::{Schedule, Verdict};
use crate::ids::Timestamp;

/// Characters of a response that are kept with its attempt.
const KEPT_BODY: usize = 4_096;
const KEPT_HEADERS: usize = 8_192;

/// An attempt's record, what follows, and the word for metrics.
pub(super) struct Judged {
    pub(super) closed: ClosedAttempt,
    pub(super) next: Next,
    /// Stable code of the failure, when there was one.
    pub(super) failure: Option<String>,
}

/// Judges what came of one attempt. `chance` in 0..1 spreads retries, only ever later.
pub(super) fn judge(
    delivery: &OwedDelivery,
    result: &Result<Answer, SendError>,
    now: Timestamp,
    elapsed_ms: i64,
    chance: f64,
) -> Judged {
    let mut closed = ClosedAttempt {
        delivery_id: delivery.key,
        number: delivery.attempt,
        outcome: "failed",
        finished_at: now.0,
        duration_ms: Some(elapsed_ms),
        ..ClosedAttempt::default()
    };
    let format = &delivery.receiver.format;
    let (verdict, failure) = match result {
        Ok(answer) => {
            record_answer(&mut closed, answer, &secrets_of(delivery));
            let verdict = format.judge(answer.status, &answer.headers, now.to_datetime());
            (verdict, format!("http_{}", answer.status))
        }
        Err(error) => {
            closed.error_code = Some(error.code().to_owned());
            closed.error_detail = Some(text(&error.to_string(), 1_000));
            let verdict = match error {
                SendError::Refused(_) => Verdict::Final { reason: "refused" },
                _ => Verdict::Retry { at: None },
            };
            (verdict, error.code().to_owned())
        }
    };
    let next = match verdict {
        Verdict::Delivered => {
            closed.outcome = "delivered";
            return Judged { closed, next: Next::Delivered, failure: None };
        }
        Verdict::Retry { at } => {
            retry(format.schedule(), delivery.try_number, at.map(Timestamp::from), now, chance)
                .map_or_else(
                    || give_up(delivery_status::EXHAUSTED, failure.clone(), false),
                    |due_at| Next::Retry { due_at, failure: failure.clone() },
                )
        }
        Verdict::Final { .. } if result.is_err() => {
            closed.outcome = "refused";
            give_up(delivery_status::REFUSED, failure.clone(), false)
        }
        Verdict::Final { reason } => give_up(delivery_status::EXHAUSTED, reason.to_owned(), false),
        Verdict::Disable => give_up(delivery_status::EXHAUSTED, RECEIVER_GONE.to_owned(), true),
    };
    if closed.error_code.is_none() {
        closed.error_code = Some(failure.clone());
    }
    Judged { closed, next, failure: Some(failure) }
}

fn give_up(status: i64, reason: String, receiver_gone: bool) -> Next {
    Next::End { status, reason, receiver_gone }
}

/// When the next try may start; `None` when all are used up. What the receiver asked for is kept
/// exactly, unless it has passed.
fn retry(
    schedule: &Schedule,
    tried: i64,
    asked: Option<Timestamp>,
    now: Timestamp,
    chance: f64,
) -> Option<Timestamp> {
    let next = u32::try_from(tried).ok()?.checked_add(1)?;
    let delay = schedule.delay_before(next)?;
    Some(match asked {
        Some(at) => at.max(now),
        None => now.plus(Schedule::with_jitter(delay, chance)),
    })
}

/// Values that must not be stored even when a receiver sends them back, the longest first: one may
/// be part of another. A receiver may also send back only what follows a scheme such as `Bearer`,
/// or one parameter.
fn secrets_of(delivery: &OwedDelivery) -> Vec<String> {
    const PART: usize = 8;
    let mut secrets: Vec<String> = Vec::new();
    for (_, value) in &delivery.receiver.headers {
        secrets.push(value.clone());
        secrets
            .extend(value.split_whitespace().filter(|word| word.len() >= PART).map(str::to_owned));
    }
    if let Some((_, query)) = delivery.receiver.url.split_once('?') {
        secrets.push(query.to_owned());
        let raw = query.split('&').filter_map(|pair| Some(pair.split_once('=')?.1.to_owned()));
        let decoded = url::form_urlencoded::parse(query.as_bytes()).map(|(_, value)| value.into());
        secrets.extend(raw.chain(decoded).filter(|value: &String| value.len() >= PART));
    }
    secrets.retain(|value| value.len() >= 4);
    secrets.sort_by_key(|value| std::cmp::Reverse(value.len()));
    secrets
}

fn record_answer(closed: &mut ClosedAttempt, answer: &Answer, secrets: &[String]) {
    let hide = |text: String| secrets.iter().fold(text, |text, secret| text.replace(secret, "***"));
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    closed.response_status = Some(i64::from(answer.status));
    closed.response_body = Some(text(&hide(body), KEPT_BODY));
    let mut kept = 0;
    let headers: Vec<(&str, String)> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), text(&hide(value.clone()), 1_024)))
        .take_while(|(name, value)| {
            kept += name.len() + value.len();
            kept <= KEPT_HEADERS
        })
        .collect();
    closed.response_headers = serde_json::to_string(&headers).ok();
    closed.address = Some(answer.address.to_string());
    let timings = &answer.timings;
    let millis = |time: std::time::Duration| (time.as_secs_f64() * 100_000.0).round() / 100.0;
    closed.timings = serde_json::to_string(&serde_json::json!({
        "dnsMs": millis(timings.dns),
        "connectMs": millis(timings.connect),
        "tlsMs": millis(timings.tls),
        "firstByteMs": millis(timings.first_byte),
        "totalMs": millis(timings.total),
        "reused": answer.reused,
        "tlsVersion": answer.tls_version,
    }))
    .ok();
}

/// Text that every database stores: bounded, without NUL.
fn text(raw: &str, most: usize) -> String {
    raw.chars().take(most).map(|char| if char == '\0' { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_retry_keeps_what_the_receiver_asked_for_and_ends_with_the_schedule() {
        let schedule = Schedule::after_first([Duration::from_secs(5)]);
        let now = Timestamp(1_000_000_000);
        assert_eq!(retry(&schedule, 1, None, now, 0.0), Some(now.plus_millis(5_000)));
        assert_eq!(retry(&schedule, 1, None, now, 1.0), Some(now.plus_millis(5_500)));
        let asked = now.plus_millis(120_000);
        assert_eq!(retry(&schedule, 1, Some(asked), now, 1.0), Some(asked));
        assert_eq!(retry(&schedule, 1, Some(Timestamp(0)), now, 1.0), Some(now));
        assert_eq!(retry(&schedule, 2, Some(asked), now, 0.0), None);
    }

    #[test]
    fn stored_text_is_bounded_and_has_no_nul() {
        assert_eq!(text("a\0bc", 3), "a\u{fffd}b");
    }
}
