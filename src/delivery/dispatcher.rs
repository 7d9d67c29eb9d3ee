//! The loop that claims due deliveries lane by lane, sends them, and records what came.

mod attempt;
mod looking;
mod taking;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::Instrument;

use super::breaker::BreakerSettings;
use super::bucket::Bucket;
use super::lanes::{LaneSettings, Lanes, Turn};
use super::secrets::Secrets;
use crate::clock::pause;
use crate::egress::Client;
use crate::engine::{
    ClientErrors, Engine, EngineResult, Gate, LaneWish, Next, OwedDelivery, RateLimit, Record,
};
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
    /// When a lane is closed.
    pub breaker: BreakerSettings,
    /// What an answer of 4xx means, unless a receiver says otherwise.
    pub client_errors: ClientErrors,
    /// The longest wait for a token with a lease taken; what has to wait longer is claimed later.
    pub longest_turn: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            lane_cap: 64,
            lane_rate: None,
            in_flight: 1_024,
            deadline: Duration::from_secs(20),
            body_cap: 64 * 1024,
            breaker: BreakerSettings::default(),
            client_errors: ClientErrors::Retry,
            longest_turn: Duration::from_secs(1),
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
    /// Held while a claim is under way.
    claiming: tokio::sync::Mutex<()>,
    /// What was wished for beside `step`.
    gate: Gate,
    freed: Notify,
    stopping: watch::Sender<bool>,
    /// Told when lanes are no longer ours.
    lost: watch::Sender<()>,
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
        let lanes = Lanes::new(LaneSettings {
            cap: settings.lane_cap,
            rate: settings.lane_rate,
            breaker: settings.breaker,
            in_flight: settings.in_flight,
            longest_turn: settings.longest_turn,
        });
        Dispatcher {
            engine,
            egress,
            metrics,
            settings,
            lanes: Mutex::new(lanes),
            secrets: Secrets::default(),
            held: Mutex::default(),
            claiming: tokio::sync::Mutex::default(),
            gate: Gate::default(),
            freed: Notify::new(),
            stopping: watch::Sender::new(false),
            lost: watch::Sender::new(()),
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
        let (lost, gained) = {
            let mut lanes = self.lanes();
            (lanes.set_shards(owned, self.engine.now()), lanes.to_learn().is_some())
        };
        if lost {
            self.lost.send_replace(());
        }
        if gained {
            self.engine.bells.deliveries.notify_one();
        }
    }

    /// Waits until no claim is under way that was begun before this call.
    pub async fn claims_ended(&self) {
        drop(self.claiming.lock().await);
        drop(self.gate.shut().await);
    }

    /// Deliveries leased here.
    pub fn in_flight(&self) -> usize {
        self.held().len()
    }

    /// Writes down which secrets have signed since the last call.
    pub async fn flush_secret_uses(&self) -> EngineResult<()> {
        let used = self.secrets.take_used();
        if used.is_empty() { Ok(()) } else { self.engine.touch_credentials(used).await }
    }

    /// Gives back leases of this node that nobody here sends. A claim whose commit got no answer
    /// leaves such leases; no other node would touch them while this one is alive. Must not run
    /// beside `step`.
    pub async fn return_strays(&self) -> EngineResult<()> {
        let _shut = self.gate.shut().await;
        // What ends while the database answers was held before, and is none.
        let before = self.held().clone();
        let mut strays = self.engine.own_deliveries().await?;
        {
            let held = self.held();
            strays.retain(|key| !before.contains(key) && !held.contains(key));
        }
        if !strays.is_empty() {
            tracing::warn!(count = strays.len(), "nobody sent leased deliveries");
            self.engine.return_deliveries(strays).await?;
        }
        Ok(())
    }

    /// Claims what is due and may be sent, and starts sending it.
    pub async fn step(self: &Arc<Self>) -> EngineResult<Step> {
        let _claiming = self.claiming.lock().await;
        let wanted = loop {
            let gain = {
                let mut lanes = self.lanes();
                let Some(gain) = lanes.to_learn() else {
                    lanes.mark(self.engine.bells.take_lanes());
                    break lanes.take_wanted(self.engine.now());
                };
                gain
            };
            self.take_over(gain).await?;
        };
        if wanted.is_empty() {
            return Ok(Step::Idle);
        }
        let owed = match self.engine.claim_deliveries(wanted.clone()).await {
            Ok(owed) => owed,
            Err(error) => {
                self.lanes().not_claimed(wanted.iter().map(|wish| wish.lane));
                return Err(error);
            }
        };
        let count = self.begin(&wanted, owed);
        // Among them those that this claim has not come to the end of.
        self.lanes().mark(self.engine.bells.take_lanes());
        // A lane with nothing due must not make the others wait for the next look.
        let idle = count == 0 && !self.lanes().any_wanted();
        Ok(if idle { Step::Idle } else { Step::Claimed(count) })
    }

    /// Starts sending what a claim has brought; how much that is.
    fn begin(self: &Arc<Self>, wanted: &[LaneWish], owed: Vec<OwedDelivery>) -> usize {
        let mut counts: HashMap<i64, usize> = HashMap::new();
        owed.iter().for_each(|delivery| *counts.entry(delivery.lane).or_default() += 1);
        let mut starts = Vec::with_capacity(owed.len());
        {
            let mut lanes = self.lanes();
            for wish in wanted {
                let count = counts.get(&wish.lane).copied().unwrap_or(0);
                lanes.claimed(wish.lane, wish.room, count);
            }
            for delivery in owed {
                let turn = lanes.admit(delivery.lane, &delivery.receiver, self.engine.now());
                starts.push((delivery, turn));
            }
        }
        let count = starts.len();
        for (delivery, turn) in starts {
            self.start(delivery, turn);
        }
        count
    }

    fn start(self: &Arc<Self>, delivery: OwedDelivery, turn: Turn) {
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
            let comes = match turn {
                Turn::Now => true,
                Turn::Soon(bucket) => dispatcher.turn_comes(&bucket, lane).await,
                Turn::Later => false,
            };
            if dispatcher.lanes().sending(lane) {
                dispatcher.engine.bells.deliveries.notify_one();
            }
            let record = if comes { Some(dispatcher.attempt(&delivery).await) } else { None };
            // A receiver that got it has room for another one while this is being recorded; what
            // else came may change what is sent next.
            let went_well = record.as_ref().is_some_and(is_plain_success);
            if went_well && dispatcher.lanes().answered(lane) {
                dispatcher.engine.bells.deliveries.notify_one();
            }
            if let Some(record) = record {
                dispatcher.record(record).await;
            } else if let Err(error) = dispatcher.engine.return_deliveries(vec![key]).await {
                complain("handing a delivery back", &error);
            }
            dispatcher.held().remove(&key);
            let more = {
                let mut lanes = dispatcher.lanes();
                let again = !went_well && lanes.answered(lane);
                lanes.done(lane) || again
            };
            if more {
                dispatcher.engine.bells.deliveries.notify_one();
            }
            dispatcher.freed.notify_waiters();
        };
        self.gate.spawn(work.instrument(span));
    }

    /// Waits for a token of a lane, for as long as that is ours and this node is not shutting down:
    /// the next owner has a bucket of its own. Whether there is one.
    async fn turn_comes(&self, bucket: &Bucket, lane: i64) -> bool {
        let (mut stopping, mut lost) = (self.stopping.subscribe(), self.lost.subscribe());
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => false,
            _ = lost.wait_for(|()| !self.lanes().owns(lane)) => false,
            () = bucket.take() => true,
        }
    }

    /// Sends nothing new, waits up to `grace` for what is under way, and hands the rest back.
    pub async fn drain(&self, grace: Duration) {
        self.stopping.send_replace(true);
        self.gate.close().await;
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
        self.take_offers();
        let (mut last_look, mut look_period) = (Instant::now() - LOOK_PERIOD, LOOK_PERIOD);
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
            // Lanes that were taken over have work that no bell of this process told of.
            let due = next_due.is_some_and(|due| due <= engine.now())
                || self.lanes().to_learn().is_some();
            if due || last_look.elapsed() >= look_period {
                let began = Instant::now();
                match self.look().await {
                    Ok(next) => {
                        next_due = next;
                        look_period = pause(LOOK_PERIOD, began.elapsed());
                    }
                    Err(error) => complain("looking for deliveries", &error),
                }
                last_look = Instant::now();
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
        self.gate.close().await;
    }
}

/// Whether a receiver has taken what it was sent and said nothing else.
fn is_plain_success(record: &Record) -> bool {
    matches!(record.next, Next::Delivered) && record.disable.is_none() && !record.receiver_gone
}
