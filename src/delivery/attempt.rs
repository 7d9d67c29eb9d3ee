//! One try: sign, send, judge, record.

use std::time::Duration;

use tokio::time::Instant;

use super::dispatcher::Dispatcher;
use super::outcome::{Judged, judge};
use crate::egress::{Method, Outgoing};
use crate::engine::{
    ClosedAttempt, EngineResult, Next, OwedDelivery, Record, delivery_manner, delivery_status,
};
use crate::formats::{AttemptView, PreviousFailure};
use crate::telemetry::complain;

impl Dispatcher {
    /// One signed request and its record.
    pub(super) async fn attempt(&self, delivery: OwedDelivery) {
        let started = Instant::now();
        let sent = match self.outgoing(&delivery).await {
            Ok(outgoing) => self.egress.send(outgoing).await,
            Err(error) => {
                // Without secrets nothing can be signed; the lease is given back by the record.
                complain("reading signing secrets", &error);
                let record = self.unsigned(&delivery);
                return self.record(record).await;
            }
        };
        let elapsed = started.elapsed();
        let millis = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        let now = self.engine.now();
        let client_errors = self.settings.client_errors;
        let judged = judge(&delivery, &sent, now, millis, (self.chance)(), client_errors);
        self.metrics.observe_attempt(judged.closed.outcome, elapsed);
        tell(&delivery, &judged, millis);
        let receiver = &delivery.receiver;
        let (lane, health) = self.lanes().learn(delivery.lane, receiver, judged.bearing, now);
        let is_endpoint = receiver.is_endpoint;
        let record = Record {
            delivery: delivery.key,
            receiver: receiver.key,
            subject: delivery.subject,
            token: delivery.token,
            closed: judged.closed,
            next: judged.next,
            receiver_gone: judged.wants_no_more.is_some() && !is_endpoint,
            disable: judged.wants_no_more.filter(|_| is_endpoint),
            health,
            lane,
        };
        self.record(record).await;
    }

    /// What is recorded when nothing could be signed: the schedule goes on as after any failure.
    fn unsigned(&self, delivery: &OwedDelivery) -> Record {
        let now = self.engine.now();
        let reason = "secrets_unavailable".to_owned();
        let closed = ClosedAttempt {
            delivery_id: delivery.key,
            number: delivery.attempt,
            outcome: "failed",
            finished_at: now.0,
            error_code: Some(reason.clone()),
            ..ClosedAttempt::default()
        };
        let next = u32::try_from(delivery.try_number + 1).ok();
        let wait = next.and_then(|next| delivery.receiver.schedule().delay_before(next));
        let next = match wait {
            Some(wait) => Next::Retry { due_at: now.plus(wait), failure: reason },
            None => Next::End { status: delivery_status::EXHAUSTED, reason },
        };
        Record {
            delivery: delivery.key,
            receiver: delivery.receiver.key,
            subject: delivery.subject,
            token: delivery.token,
            closed,
            next,
            receiver_gone: false,
            disable: None,
            health: None,
            lane: None,
        }
    }

    async fn outgoing(&self, delivery: &OwedDelivery) -> EngineResult<Outgoing> {
        let keys = self.secrets.of(&self.engine, delivery).await?;
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
        let own = format.headers(&attempt, &keys, signature, &delivery.body, previous.as_ref());
        headers.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value.into_owned())));
        Ok(Outgoing {
            method: Method::POST,
            url: receiver.url.clone(),
            headers,
            body: bytes::Bytes::from(delivery.body.clone()),
            deadline: self.settings.deadline,
            body_cap: self.settings.body_cap,
        })
    }

    /// Stores what came; goes on trying while the database cannot be reached, because what was
    /// received should not be sent again.
    async fn record(&self, record: Record) {
        let mut pause = Duration::from_millis(100);
        loop {
            match self.engine.record(record.clone()).await {
                Ok(recorded) if recorded.held => return,
                Ok(_) => {
                    tracing::warn!("the record of this attempt came too late");
                    return;
                }
                Err(error) if error.is_passing() => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
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
