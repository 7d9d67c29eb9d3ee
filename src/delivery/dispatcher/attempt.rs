//! One try: sign, send, judge, record.

use std::time::Duration;

use tokio::time::Instant;

use super::Dispatcher;
use crate::delivery::outcome::{Judged, judge, next};
use crate::egress::{Method, Outgoing};
use crate::engine::{ClosedAttempt, EngineResult, Ordering, OwedDelivery, Record, delivery_manner};
use crate::formats::{AttemptView, Judgement, PreviousFailure, SigningKeys, Verdict};
use crate::telemetry::complain;

/// How long to wait for a database that cannot be reached: at first, and then twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Dispatcher {
    /// One signed request; what is to be recorded of it.
    pub(super) async fn attempt(&self, delivery: &OwedDelivery) -> Record {
        let started = Instant::now();
        let keys = match self.keys(delivery).await {
            Ok(keys) if keys.can_sign(delivery.receiver.signature) => keys,
            Ok(_) => {
                // What cannot be signed is not sent; the lease is given back by the record.
                tracing::error!("there is no secret that this delivery could be signed with");
                return self.unsigned(delivery);
            }
            Err(error) => {
                complain("reading signing secrets", &error);
                return self.unsigned(delivery);
            }
        };
        let sent = self.egress.send(self.outgoing(delivery, &keys)).await;
        let elapsed = started.elapsed();
        let millis = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        let now = self.engine.now();
        let client_errors = self.settings.client_errors;
        let judged = judge(delivery, &sent, now, millis, (self.chance)(), client_errors);
        self.metrics.observe_attempt(judged.closed.outcome, elapsed);
        tell(delivery, &judged, millis);
        let receiver = &delivery.receiver;
        let (lane, health) = self.lanes().learn(delivery.lane, receiver, judged.bearing, now);
        let is_endpoint = receiver.is_endpoint;
        Record {
            delivery: delivery.key,
            receiver: receiver.key,
            receiver_version: receiver.version,
            subject: delivery.subject,
            token: delivery.token,
            closed: judged.closed,
            next: judged.next,
            receiver_gone: judged.wants_no_more.is_some() && !is_endpoint,
            disable: judged.wants_no_more.filter(|_| is_endpoint),
            health,
            lane,
            is_in_order: receiver.ordering != Ordering::None,
        }
    }

    /// What is recorded when nothing could be signed: the schedule goes on as after any failure.
    fn unsigned(&self, delivery: &OwedDelivery) -> Record {
        let now = self.engine.now();
        let reason = "secrets_unavailable".to_owned();
        let judgement = Judgement::from(Verdict::Retry { at: None });
        let closed = ClosedAttempt {
            delivery_id: delivery.key,
            number: delivery.attempt,
            outcome: "failed",
            finished_at: now.0,
            error_code: Some(reason.clone()),
            ..ClosedAttempt::default()
        };
        let client_errors = self.settings.client_errors;
        let chance = (self.chance)();
        let next = next(delivery, &judgement, &reason, false, now, chance, client_errors);
        Record {
            delivery: delivery.key,
            receiver: delivery.receiver.key,
            receiver_version: delivery.receiver.version,
            subject: delivery.subject,
            token: delivery.token,
            closed,
            next,
            receiver_gone: false,
            disable: None,
            health: None,
            lane: None,
            is_in_order: delivery.receiver.ordering != Ordering::None,
        }
    }

    /// What signs a delivery; goes on asking while the database cannot be reached, because that is
    /// no failure of the receiver.
    async fn keys(&self, delivery: &OwedDelivery) -> EngineResult<SigningKeys> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.secrets.of(&self.engine, delivery).await {
                Err(error) if error.is_passing() => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                other => return other,
            }
        }
    }

    fn outgoing(&self, delivery: &OwedDelivery, keys: &SigningKeys) -> Outgoing {
        let webhook_id = delivery.event_id.to_string();
        let attempt = AttemptView {
            webhook_id: &webhook_id,
            number: u32::try_from(delivery.attempt).unwrap_or(u32::MAX),
            timestamp_seconds: self.engine.now().seconds(),
            event_type: &delivery.event_type,
            redelivery: redelivery(delivery.manner),
        };
        let previous =
            delivery.previous_failure.as_deref().map(|reason| PreviousFailure { reason });
        let receiver = &delivery.receiver;
        let mut headers = receiver.headers.clone();
        let (format, signature) = (&receiver.format, receiver.signature);
        let own = format.headers(&attempt, keys, signature, &delivery.body, previous.as_ref());
        for (name, value) in own {
            // A receiver may have a name of its own for us; nothing else of a format is its to set.
            let is_set = name.eq_ignore_ascii_case("user-agent")
                && headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
            if !is_set {
                headers.push((name.to_owned(), value.into_owned()));
            }
        }
        Outgoing {
            method: Method::POST,
            url: receiver.url.clone(),
            headers,
            body: bytes::Bytes::from(delivery.body.clone()),
            deadline: self.settings.deadline,
            body_cap: self.settings.body_cap,
        }
    }

    /// Stores what came; goes on trying while the database cannot be reached, because what was
    /// received should not be sent again.
    pub(super) async fn record(&self, record: Record) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.engine.record(record.clone()).await {
                Ok(recorded) if recorded.held => return,
                Ok(_) => {
                    tracing::warn!("the record of this attempt came too late");
                    return;
                }
                Err(error) if error.is_passing() => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => return complain("recording an attempt", &error),
            }
        }
    }
}

/// The log line of an attempt.
fn tell(delivery: &OwedDelivery, judged: &Judged, millis: i64) {
    match &judged.failure {
        None => tracing::info!(
            event = delivery.event_type,
            outcome = judged.closed.outcome,
            status = judged.closed.response_status,
            ms = millis,
            "delivery"
        ),
        Some(failure) => tracing::warn!(
            event = delivery.event_type,
            outcome = judged.closed.outcome,
            failure,
            ms = millis,
            "delivery"
        ),
    }
}

/// What receivers are told of a delivery that stands outside the order.
fn redelivery(manner: i64) -> Option<&'static str> {
    match manner {
        delivery_manner::REDELIVERY => Some("redelivery"),
        delivery_manner::REPLAY => Some("replay"),
        delivery_manner::PING => Some("ping"),
        delivery_manner::TRIGGER => Some("trigger"),
        _ => None,
    }
}
