//! What an answer or a failure means: the attempt's record and what follows. Pure.

use std::time::Duration;

use crate::egress::{Answer, SendError, Sent, Trace};
use crate::engine::{ClosedAttempt, Next, OwedDelivery, RECEIVER_GONE, delivery_status};
use crate::formats::{Judgement, Schedule, Verdict};
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
    sent: &Sent,
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
    record_trace(&mut closed, &sent.trace);
    let format = &delivery.receiver.format;
    let (judgement, failure) = match &sent.result {
        Ok(answer) => {
            record_answer(&mut closed, answer, &secrets_of(delivery));
            let judgement = format.judge(answer.status, &answer.headers, now.to_datetime());
            (judgement, format!("http_{}", answer.status))
        }
        Err(error) => {
            closed.error_code = Some(error.code().to_owned());
            closed.error_detail = Some(text(&error.to_string(), 1_000));
            let verdict = match error {
                SendError::Refused(_) => Verdict::Final { reason: "refused" },
                _ => Verdict::Retry { at: None },
            };
            (Judgement::from(verdict), error.code().to_owned())
        }
    };
    let schedule = format.schedule();
    let next_try = u32::try_from(delivery.try_number).ok().and_then(|tried| tried.checked_add(1));
    let retry_or_give_up = |wait: Option<Duration>, asked: Option<Timestamp>| match wait {
        Some(wait) => {
            Next::Retry { due_at: due_at(wait, asked, now, chance), failure: failure.clone() }
        }
        None => give_up(delivery_status::EXHAUSTED, failure.clone(), false),
    };
    let next = match judgement.verdict {
        Verdict::Delivered => {
            closed.outcome = "delivered";
            return Judged { closed, next: Next::Delivered, failure: None };
        }
        _ if judgement.wants_no_more.is_some() => {
            give_up(delivery_status::EXHAUSTED, RECEIVER_GONE.to_owned(), true)
        }
        Verdict::Retry { at } => {
            let wait = next_try.and_then(|next| schedule.delay_before(next));
            retry_or_give_up(wait, at.map(Timestamp::from))
        }
        Verdict::RetryBriefly => {
            retry_or_give_up(next_try.and_then(|next| schedule.delay_before_briefly(next)), None)
        }
        Verdict::Final { .. } if sent.result.is_err() => {
            closed.outcome = "refused";
            give_up(delivery_status::REFUSED, failure.clone(), false)
        }
        Verdict::Final { reason } => give_up(delivery_status::EXHAUSTED, reason.to_owned(), false),
    };
    if closed.error_code.is_none() {
        closed.error_code = Some(failure.clone());
    }
    Judged { closed, next, failure: Some(failure) }
}

fn give_up(status: i64, reason: String, receiver_gone: bool) -> Next {
    Next::End { status, reason, receiver_gone }
}

/// When the next try may start. What the receiver asked for is kept exactly, unless it has passed.
fn due_at(wait: Duration, asked: Option<Timestamp>, now: Timestamp, chance: f64) -> Timestamp {
    match asked {
        Some(at) => at.max(now),
        None => now.plus(Schedule::with_jitter(wait, chance)),
    }
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
}

fn record_trace(closed: &mut ClosedAttempt, trace: &Trace) {
    closed.address = trace.address.map(|address| address.to_string());
    let timings = &trace.timings;
    let millis = |time: Duration| (time.as_secs_f64() * 100_000.0).round() / 100.0;
    closed.timings = serde_json::to_string(&serde_json::json!({
        "dnsMs": timings.dns.map(millis),
        "connectMs": timings.connect.map(millis),
        "tlsMs": timings.tls.map(millis),
        "firstByteMs": timings.first_byte.map(millis),
        "totalMs": millis(timings.total),
        "reused": trace.reused,
        "tlsVersion": trace.tls_version,
    }))
    .ok();
}

/// Text that every database stores: bounded, without NUL.
fn text(raw: &str, most: usize) -> String {
    raw.chars().take(most).map(|char| if char == '\0' { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_keeps_what_the_receiver_asked_for() {
        let (wait, now) = (Duration::from_secs(5), Timestamp(1_000_000_000));
        assert_eq!(due_at(wait, None, now, 0.0), now.plus_millis(5_000));
        assert_eq!(due_at(wait, None, now, 1.0), now.plus_millis(5_500));
        let asked = now.plus_millis(120_000);
        assert_eq!(due_at(wait, Some(asked), now, 1.0), asked);
        assert_eq!(due_at(wait, Some(Timestamp(0)), now, 1.0), now);
    }

    #[test]
    fn stored_text_is_bounded_and_has_no_nul() {
        assert_eq!(text("a\0bc", 3), "a\u{fffd}b");
    }
}
