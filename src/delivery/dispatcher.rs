//! The loop that claims due deliveries lane by lane, sends them, and records what came.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::Instrument;

use super::lanes::{Bucket, Lanes};
use super::outcome::{Judged, judge};
use super::secrets::Secrets;
use crate::egress::{Client, Method, Outgoing};
use crate::engine::{Engine, EngineResult, Next, OwedDelivery, RateLimit, Record};
use crate::formats::{AttemptView, PreviousFailure, Signature};
use crate::ids::{Key, Timestamp};
use crate::telemetry::{Metrics, complain};

/// How deliveries are sent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Requests at once on one lane, unless a receiver says otherwise.
    pub lane_cap: usize,
    /// Rate of a lane, unless a receiver says otherwise; none by default.
    pub lane_rate: Option<RateLimit>,
    /// Deliveries under way at once on this node.
    pub in_flight: usize,
    /// For one attempt: DNS, connecting, TLS, headers and body together.
    pub deadline: Duration,
    /// Bytes of a response that are read.
    pub body_cap: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            lane_cap: 64,
            lane_rate: None,
            in_flight: 1_024,
            deadline: Duration::from_secs(20),
            body_cap: 64 * 1024,
        }
    }
}

/// The longest wait between two looks for due deliveries.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// How often leases are looked for that this node holds and knows nothing of.
const STRAY_PERIOD: Duration = Duration::from_secs(5);

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Claimed this many.
    Claimed(usize),
    /// Nothing is due that may be sent now.
    Idle,
}

/// Sends what is owed.
pub struct Dispatcher {
    engine: Arc<Engine>,
    egress: Client,
    metrics: Arc<Metrics>,
    settings: Settings,
    lanes: Mutex<Lanes>,
    secrets: Secrets,
    /// Leased here.
    held: Mutex<HashSet<Key>>,
    freed: Notify,
    stopping: watch::Sender<bool>,
    chance: Box<dyn Fn() -> f64 + Send + Sync>,
}

impl Dispatcher {
    /// A dispatcher that owns no shard yet. `chance` gives numbers in 0..1 that spread retries.
    pub fn new(
        engine: Arc<Engine>,
        egress: Client,
        metrics: Arc<Metrics>,
        settings: Settings,
        chance: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Dispatcher {
        let lanes = Lanes::new(settings.lane_cap, settings.lane_rate);
        Dispatcher {
            engine,
            egress,
            metrics,
            settings,
            lanes: Mutex::new(lanes),
            secrets: Secrets::default(),
            held: Mutex::default(),
            freed: Notify::new(),
            stopping: watch::Sender::new(false),
            chance: Box::new(chance),
        }
    }

    fn lanes(&self) -> std::sync::MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashSet<Key>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends only for these shards from now on.
    pub fn set_shards(&self, owned: &[i64]) {
        self.lanes().set_shards(owned, self.engine.now());
    }

    /// Deliveries leased here.
    pub fn in_flight(&self) -> usize {
        self.held().len()
    }

    /// Looks for lanes with something due; when the next one will have something.
    pub async fn look(&self) -> EngineResult<Option<Timestamp>> {
        let waiting = self.engine.waiting_lanes().await?;
        let now = self.engine.now();
        let mut lanes = self.lanes();
        lanes.prune();
        lanes.mark(waiting.iter().filter(|(_, due)| *due <= now).map(|(lane, _)| *lane));
        Ok(waiting
            .iter()
            .filter(|(lane, due)| *due > now && lanes.owns(*lane))
            .map(|(_, due)| *due)
            .min())
    }

    /// Gives back leases of this node that nobody here sends. A claim whose commit got no answer
    /// leaves such leases; no other node would touch them while this one is alive. Must not run
    /// beside `step`.
    pub async fn return_strays(&self) -> EngineResult<()> {
        let leased = self.engine.own_deliveries().await?;
        let strays: Vec<Key> = {
            let held = self.held();
            leased.into_iter().filter(|key| !held.contains(key)).collect()
        };
        if !strays.is_empty() {
            tracing::warn!(count = strays.len(), "nobody sent leased deliveries");
            self.engine.return_deliveries(strays).await?;
        }
        Ok(())
    }

    /// Claims what is due and may be sent, and starts sending it.
    pub async fn step(self: &Arc<Self>) -> EngineResult<Step> {
        let wanted = {
            let mut lanes = self.lanes();
            lanes.mark(self.engine.bells.take_lanes());
            let room = self.settings.in_flight.saturating_sub(self.held().len());
            lanes.take_wanted(room)
        };
        if wanted.is_empty() {
            return Ok(Step::Idle);
        }
        let owed = match self.engine.claim_deliveries(wanted.clone()).await {
            Ok(owed) => owed,
            Err(error) => {
                self.lanes().mark(wanted.iter().map(|(lane, _)| *lane));
                return Err(error);
            }
        };
        let mut counts: HashMap<i64, usize> = HashMap::new();
        owed.iter().for_each(|delivery| *counts.entry(delivery.lane).or_default() += 1);
        let mut starts = Vec::with_capacity(owed.len());
        {
            let mut lanes = self.lanes();
            for (lane, room) in &wanted {
                lanes.claimed(*lane, *room, counts.get(lane).copied().unwrap_or(0));
            }
            for delivery in owed {
                let bucket = lanes.admit(delivery.lane, &delivery.receiver);
                starts.push((delivery, bucket));
            }
        }
        let count = starts.len();
        for (delivery, bucket) in starts {
            self.start(delivery, bucket);
        }
        Ok(if count == 0 { Step::Idle } else { Step::Claimed(count) })
    }

    fn start(self: &Arc<Self>, delivery: OwedDelivery, bucket: Option<Arc<Bucket>>) {
        self.held().insert(delivery.key);
        let span = tracing::info_span!(
            "delivery",
            delivery_id = %delivery.id,
            request_id = %delivery.request_id,
            job_id = delivery.job_id.map(tracing::field::display),
            attempt = delivery.attempt
        );
        let dispatcher = Arc::clone(self);
        let work = async move {
            let (key, lane) = (delivery.key, delivery.lane);
            let sent = match bucket {
                Some(bucket) => {
                    let mut stopping = dispatcher.stopping.subscribe();
                    tokio::select! {
                        () = bucket.take() => true,
                        _ = stopping.wait_for(|stop| *stop) => false,
                    }
                }
                None => true,
            };
            if !sent {
                // Still held: the shutdown hands it back.
                return;
            }
            if dispatcher.lanes().sending(lane) {
                dispatcher.engine.bells.deliveries.notify_one();
            }
            dispatcher.attempt(delivery).await;
            dispatcher.held().remove(&key);
            if dispatcher.lanes().done(lane) {
                dispatcher.engine.bells.deliveries.notify_one();
            }
            dispatcher.freed.notify_waiters();
        };
        tokio::spawn(work.instrument(span));
    }

    /// One signed request and its record.
    async fn attempt(&self, delivery: OwedDelivery) {
        let started = Instant::now();
        let sent = match self.outgoing(&delivery).await {
            Ok(outgoing) => self.egress.send(outgoing).await,
            Err(error) => {
                // Without secrets nothing can be signed; the lease is given back by the record.
                complain("reading signing secrets", &error);
                let next = self.unsigned(&delivery);
                let closed = crate::engine::ClosedAttempt {
                    delivery_id: delivery.key,
                    number: delivery.attempt,
                    outcome: "failed",
                    finished_at: self.engine.now().0,
                    error_code: Some("secrets_unavailable".to_owned()),
                    ..Default::default()
                };
                return self.record(&delivery, closed, next).await;
            }
        };
        let elapsed = started.elapsed();
        let millis = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        let now = self.engine.now();
        let Judged { closed, next, failure } =
            judge(&delivery, &sent, now, millis, (self.chance)());
        self.metrics.observe_attempt(closed.outcome, elapsed);
        match &failure {
            None => tracing::info!(
                event = delivery.event_type,
                outcome = closed.outcome,
                status = closed.response_status,
                ms = millis,
                "delivery"
            ),
            Some(failure) => tracing::warn!(
                event = delivery.event_type,
                outcome = closed.outcome,
                failure,
                ms = millis,
                "delivery"
            ),
        }
        self.record(&delivery, closed, next).await;
    }

    /// What follows when nothing could be signed: the schedule goes on as after any failure.
    fn unsigned(&self, delivery: &OwedDelivery) -> Next {
        let reason = "secrets_unavailable".to_owned();
        let schedule = delivery.receiver.format.schedule();
        let next = u32::try_from(delivery.try_number + 1).ok();
        match next.and_then(|next| schedule.delay_before(next)) {
            Some(wait) => Next::Retry { due_at: self.engine.now().plus(wait), failure: reason },
            None => {
                let status = crate::engine::delivery_status::EXHAUSTED;
                Next::End { status, reason, receiver_gone: false }
            }
        }
    }

    async fn outgoing(&self, delivery: &OwedDelivery) -> EngineResult<Outgoing> {
        let keys = self.secrets.of(&self.engine, delivery.application).await?;
        let webhook_id = delivery.event_id.to_string();
        let attempt = AttemptView {
            webhook_id: &webhook_id,
            number: u32::try_from(delivery.attempt).unwrap_or(u32::MAX),
            timestamp_seconds: self.engine.now().seconds(),
            event_type: &delivery.event_type,
            redelivery: None,
        };
        let previous =
            delivery.previous_failure.as_deref().map(|reason| PreviousFailure { reason });
        let receiver = &delivery.receiver;
        let mut headers = receiver.headers.clone();
        let signature = Signature::Standard;
        let format = &receiver.format;
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
    async fn record(
        &self,
        delivery: &OwedDelivery,
        closed: crate::engine::ClosedAttempt,
        next: Next,
    ) {
        let mut pause = Duration::from_millis(100);
        loop {
            let record = Record {
                delivery: delivery.key,
                subject: delivery.subject,
                token: delivery.token,
                closed: closed.clone(),
                next: next.clone(),
            };
            match self.engine.record(record).await {
                Ok(true) => return,
                Ok(false) => {
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

    /// Sends nothing new, waits up to `grace` for what is under way, and hands the rest back.
    pub async fn drain(&self, grace: Duration) {
        self.stopping.send_replace(true);
        let deadline = Instant::now() + grace;
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.held().is_empty() || tokio::time::timeout_at(deadline, freed).await.is_err() {
                break;
            }
        }
        let left: Vec<Key> = self.held().drain().collect();
        if !left.is_empty()
            && let Err(error) = self.engine.return_deliveries(left).await
        {
            complain("handing deliveries back", &error);
        }
    }

    /// Loops until `shutdown` says so. `beat` is called on every turn.
    pub async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>, beat: impl Fn()) {
        let mut last_look = Instant::now() - LOOK_PERIOD;
        let mut next_due: Option<Timestamp> = None;
        let mut strays_at = Instant::now();
        while !*shutdown.borrow() {
            beat();
            if strays_at.elapsed() >= STRAY_PERIOD {
                match self.return_strays().await {
                    Ok(()) => strays_at = Instant::now(),
                    Err(error) => complain("looking for strays", &error),
                }
            }
            let engine = Arc::clone(&self.engine);
            let rung = engine.bells.deliveries.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            let due = next_due.is_some_and(|due| due <= engine.now());
            if due || last_look.elapsed() >= LOOK_PERIOD {
                last_look = Instant::now();
                match self.look().await {
                    Ok(next) => next_due = next,
                    Err(error) => complain("looking for deliveries", &error),
                }
            }
            match self.step().await {
                Ok(Step::Claimed(_)) => continue,
                Ok(Step::Idle) => {}
                Err(error) => complain("claiming deliveries", &error),
            }
            // Clocks may jump, so the wait for a known time is bounded by the look.
            let wait = next_due
                .and_then(|due| u64::try_from(due.millis_since(engine.now()).max(1)).ok())
                .map_or(LOOK_PERIOD, |millis| Duration::from_millis(millis).min(LOOK_PERIOD));
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep(wait) => {}
                _ = shutdown.changed() => {}
            }
        }
    }
}
