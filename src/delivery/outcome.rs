//! What an answer or a failure means: the attempt's record and what follows. Pure.

use std::time::Duration;

use super::breaker::Bearing;
use crate::egress::{Answer, SendError, Sent, Trace};
use crate::engine::{
    ClientErrors, ClosedAttempt, Next, OwedDelivery, RECEIVER_GONE, delivery_manner,
    delivery_status,
};
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
    /// What it says of the receiver.
    pub(super) bearing: Bearing,
    /// Why the receiver wants nothing more, if so.
    pub(super) wants_no_more: Option<&'static str>,
}

/// Judges what came of one attempt. `chance` in 0..1 spreads retries, only ever later.
/// `client_errors` counts for receivers that say nothing of them.
pub(super) fn judge(
    delivery: &OwedDelivery,
    sent: &Sent,
    now: Timestamp,
    elapsed_ms: i64,
    chance: f64,
    client_errors: ClientErrors,
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
            if let Some(begun) = &sent.begun {
                record_answer(&mut closed, begun, &secrets_of(delivery));
            }
            closed.error_code = Some(error.code().to_owned());
            closed.error_detail = Some(text(&error.to_string(), 1_000));
            let verdict = match error {
                SendError::Refused(_) => Verdict::Final { reason: "refused" },
                _ => Verdict::Retry { at: None },
            };
            (Judgement::from(verdict), error.code().to_owned())
        }
    };
    let refused = matches!(sent.result, Err(SendError::Refused(_)));
    let bearing = bearing(&judgement, refused);
    let wants_no_more = judgement.wants_no_more;
    if judgement.verdict == Verdict::Delivered {
        closed.outcome = "delivered";
        return Judged { closed, next: Next::Delivered, failure: None, bearing, wants_no_more };
    }
    if refused {
        closed.outcome = "refused";
    }
    if closed.error_code.is_none() {
        closed.error_code = Some(failure.clone());
    }
    let next = next(delivery, &judgement, &failure, refused, now, chance, client_errors);
    Judged { closed, next, failure: Some(failure), bearing, wants_no_more }
}

fn bearing(judgement: &Judgement, refused: bool) -> Bearing {
    match judgement.verdict {
        _ if refused => Bearing::Nothing,
        Verdict::Delivered => Bearing::Received,
        Verdict::Retry { at } => Bearing::Failed { retry_after: at.map(Timestamp::from) },
        Verdict::RetryBriefly | Verdict::Final { .. } => Bearing::Answered,
    }
}

/// What follows when it was not received.
pub(super) fn next(
    delivery: &OwedDelivery,
    judgement: &Judgement,
    failure: &str,
    refused: bool,
    now: Timestamp,
    chance: f64,
    client_errors: ClientErrors,
) -> Next {
    let receiver = &delivery.receiver;
    let end = |status, reason: &str| Next::End { status, reason: reason.to_owned() };
    let is_test = delivery.manner == delivery_manner::PING;
    if judgement.wants_no_more.is_some() && !is_test {
        return match judgement.verdict {
            _ if !receiver.is_endpoint => end(delivery_status::EXHAUSTED, RECEIVER_GONE),
            // It wants neither this one nor any other.
            Verdict::Final { reason } if reason != RECEIVER_GONE => {
                end(delivery_status::EXHAUSTED, reason)
            }
            _ => Next::Hold { failure: failure.to_owned() },
        };
    }
    let schedule = receiver.schedule();
    let next_try = u32::try_from(delivery.try_number).ok().and_then(|tried| tried.checked_add(1));
    let (wait, asked) = match judgement.verdict {
        Verdict::Final { .. } if refused => return end(delivery_status::REFUSED, failure),
        Verdict::Final { reason } => return end(delivery_status::EXHAUSTED, reason),
        Verdict::RetryBriefly
            if receiver.client_errors.unwrap_or(client_errors) == ClientErrors::Final =>
        {
            return end(delivery_status::EXHAUSTED, failure);
        }
        Verdict::RetryBriefly => {
            (next_try.and_then(|next| schedule.delay_before_briefly(next)), None)
        }
        Verdict::Retry { at } => {
            (next_try.and_then(|next| schedule.delay_before(next)), at.map(Timestamp::from))
        }
        Verdict::Delivered => return Next::Delivered,
    };
    match wait.filter(|_| !is_test) {
        Some(wait) => {
            Next::Retry { due_at: due_at(wait, asked, now, chance), failure: failure.to_owned() }
        }
        None => end(delivery_status::EXHAUSTED, failure),
    }
}

/// When the next try may start: not before the schedule says, nor before what the receiver asked for.
/// A receiver that asks for a second each time would else use up all tries within seconds.
fn due_at(wait: Duration, asked: Option<Timestamp>, now: Timestamp, chance: f64) -> Timestamp {
    let scheduled = now.plus(Schedule::with_jitter(wait, chance));
    asked.map_or(scheduled, |at| at.max(scheduled))
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
    let resolved: Vec<String> = trace.resolved.iter().map(ToString::to_string).collect();
    closed.resolved = serde_json::to_string(&resolved).ok();
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
    fn a_receiver_may_put_a_retry_off_and_not_hasten_it() {
        let (wait, now) = (Duration::from_secs(5), Timestamp(1_000_000_000));
        assert_eq!(due_at(wait, None, now, 0.0), now.plus_millis(5_000));
        assert_eq!(due_at(wait, None, now, 1.0), now.plus_millis(5_500));
        let asked = now.plus_millis(120_000);
        assert_eq!(due_at(wait, Some(asked), now, 1.0), asked);
        for early in [Timestamp(0), now, now.plus_millis(1_000)] {
            assert_eq!(due_at(wait, Some(early), now, 0.0), now.plus_millis(5_000));
        }
    }

    #[test]
    fn stored_text_is_bounded_and_has_no_nul() {
        assert_eq!(text("a\0bc", 3), "a\u{fffd}b");
    }
}
