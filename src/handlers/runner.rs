//! The loop that claims jobs, runs their handlers and applies how they ended.
//!
//! `step` claims what fits and starts it; everything else is bookkeeping around running tries. A
//! running job has a token; when it is lost, the work is stopped and whatever it brings is dropped.

mod attempt;
mod leases;
mod taking;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::Instrument;

use super::Handler;
use super::context::{Services, Stop};
use crate::clock::pause;
use crate::engine::{ClaimedJob, EngineResult, Gate, REPLAY_QUEUE};
use crate::ids::{Key, Timestamp};
use crate::telemetry::{Metrics, complain};

/// How the runner works.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Tries at once on this node.
    pub slots: usize,
    /// Tries at once of named queues on this node; others may use all slots.
    pub queue_slots: HashMap<String, usize>,
    /// Limit of one try when the job names none.
    pub timeout: Duration,
}

impl Limits {
    /// What the operator has set. Replays may take a quarter of the slots where that names nothing
    /// else: they can wait for their receivers for days.
    pub fn new(slots: usize, mut queue_slots: HashMap<String, usize>, timeout: Duration) -> Limits {
        queue_slots.entry(REPLAY_QUEUE.to_owned()).or_insert((slots / 4).max(1));
        Limits { slots, queue_slots, timeout }
    }
}

/// Tries of which nothing but the record of their end is left, a slot, with the one that works.
const MOST_A_SLOT: usize = 4;
/// The longest wait between two looks for work.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// How often leases are looked for that this node holds and knows nothing of.
const STRAY_PERIOD: Duration = Duration::from_secs(5);

/// A try that is under way.
struct Running {
    token: i64,
    queue: String,
    stop: watch::Sender<bool>,
    /// Set when the work must end because the node shuts down.
    released: Arc<AtomicBool>,
    /// Set when the lease has passed to somebody else.
    lost: Arc<AtomicBool>,
}

/// Drives handlers.
pub struct Runner {
    services: Arc<Services>,
    handlers: HashMap<&'static str, Arc<dyn Handler>>,
    metrics: Arc<Metrics>,
    limits: Limits,
    running: Mutex<HashMap<Key, Running>>,
    /// Queues that may have ready jobs.
    queues: Mutex<Vec<String>>,
    /// Tries under way, up to the record of their end.
    busy: AtomicUsize,
    /// Of those, the ones whose work goes on.
    working: AtomicUsize,
    /// Slots that are kept for claims under way, and whether somebody found none because of that.
    kept: Mutex<(usize, bool)>,
    /// What was wished for beside `step`.
    gate: Gate,
    freed: Notify,
    chance: Box<dyn Fn() -> f64 + Send + Sync>,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Claimed and started this many; there may be more at once.
    Started(usize),
    /// Nothing was ready.
    Idle,
    /// All slots are taken.
    Full,
}

impl Runner {
    /// A runner over these handlers. `chance` gives numbers in 0..1 that spread retries.
    pub fn new(
        services: Arc<Services>,
        handlers: Vec<Arc<dyn Handler>>,
        metrics: Arc<Metrics>,
        limits: Limits,
        chance: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Runner {
        Runner {
            services,
            handlers: handlers.into_iter().map(|handler| (handler.name(), handler)).collect(),
            metrics,
            limits,
            running: Mutex::default(),
            queues: Mutex::default(),
            busy: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
            kept: Mutex::default(),
            gate: Gate::default(),
            freed: Notify::new(),
            chance: Box::new(chance),
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries under way.
    pub fn busy(&self) -> usize {
        self.busy.load(Ordering::SeqCst)
    }

    /// Keeps as many slots as are free for a claim. A slot is for work: while the end of one try is
    /// being recorded, another one may have it. What is still to be recorded is bounded, too.
    fn keep_room(&self) -> usize {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (slots, turned_away) = &mut *kept;
        let free = self.limits.slots.saturating_sub(self.working.load(Ordering::SeqCst));
        let unrecorded = self.limits.slots.saturating_mul(MOST_A_SLOT);
        let room = free.min(unrecorded.saturating_sub(self.busy())).saturating_sub(*slots);
        *turned_away |= room == 0 && *slots > 0;
        *slots += room;
        room
    }

    /// The claim is over, and what it brought has its slots. Whoever found none meanwhile looks again.
    fn give_room(&self, room: usize) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (slots, turned_away) = &mut *kept;
        *slots -= room;
        if std::mem::take(turned_away) {
            self.services.engine.bells.jobs.notify_one();
        }
    }

    /// Looks for work that no bell told of: jobs whose time has come, queues with ready jobs. When
    /// the next waiting job is due.
    pub async fn look(&self) -> EngineResult<Option<Timestamp>> {
        let (next, found) = self.services.engine.look_for_jobs().await?;
        self.note_queues(found);
        Ok(next)
    }

    fn note_queues(&self, found: impl IntoIterator<Item = String>) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        for queue in found {
            if !queues.contains(&queue) {
                queues.push(queue);
            }
        }
    }

    /// How many slots are left of those that queues have of their own.
    fn own_slots(&self) -> HashMap<&str, usize> {
        let own = self.limits.queue_slots.iter();
        let mut left: HashMap<&str, usize> =
            own.map(|(queue, slots)| (queue.as_str(), *slots)).collect();
        for running in self.running().values() {
            if let Some(slots) = left.get_mut(running.queue.as_str()) {
                *slots = slots.saturating_sub(1);
            }
        }
        left
    }

    /// Queues to ask with their free slots, a different one first each time.
    fn wanted(&self, room: usize) -> Vec<(String, usize)> {
        let own = self.own_slots();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if !queues.is_empty() {
            queues.rotate_left(1);
        }
        queues
            .iter()
            .filter_map(|queue| {
                let free = own.get(queue.as_str()).map_or(room, |left| room.min(*left));
                (free > 0).then(|| (queue.clone(), free))
            })
            .collect()
    }

    /// Claims what fits and starts it.
    pub async fn step(self: &Arc<Self>) -> EngineResult<Step> {
        self.note_queues(self.services.engine.bells.take_queues());
        let room = self.keep_room();
        if room == 0 {
            return Ok(Step::Full);
        }
        let step = self.claim(room).await;
        self.give_room(room);
        step
    }

    async fn claim(self: &Arc<Self>, room: usize) -> EngineResult<Step> {
        let wanted = self.wanted(room);
        if wanted.is_empty() {
            return Ok(Step::Idle);
        }
        let asked: Vec<String> = wanted.iter().map(|(queue, _)| queue.clone()).collect();
        let batch = self.services.engine.claim(wanted, room).await?;
        let started = batch.jobs.len();
        if started < room && !batch.more {
            // Queues that gave less than asked are empty until a bell or a look says otherwise.
            let given: Vec<&str> =
                batch.jobs.iter().map(|claimed| claimed.job.submission.queue.as_str()).collect();
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            queues.retain(|queue| !asked.contains(queue) || given.contains(&queue.as_str()));
        }
        for claimed in batch.jobs {
            self.start(claimed);
        }
        Ok(if started == 0 && !batch.more { Step::Idle } else { Step::Started(started) })
    }

    fn start(self: &Arc<Self>, claimed: ClaimedJob) {
        let job = &claimed.job;
        let (switch, stop) = Stop::new();
        let running = Running {
            token: job.state.token,
            queue: job.submission.queue.clone(),
            stop: switch,
            released: Arc::default(),
            lost: Arc::default(),
        };
        let (released, lost) = (Arc::clone(&running.released), Arc::clone(&running.lost));
        self.running().insert(job.key, running);
        self.busy.fetch_add(1, Ordering::SeqCst);
        self.working.fetch_add(1, Ordering::SeqCst);
        let span = tracing::info_span!(
            "job",
            job_id = %job.id,
            request_id = %job.submission.request_id,
            attempt = job.state.attempt
        );
        let runner = Arc::clone(self);
        let attempt = async move { runner.attempt(claimed, stop, released, lost).await };
        self.gate.spawn(attempt.instrument(span));
    }

    /// Waits until nothing runs, up to `grace`; then hands the rest back.
    pub async fn drain(&self, grace: Duration) {
        self.gate.close().await;
        if self.wait_idle(grace).await {
            return;
        }
        for running in self.running().values() {
            running.released.store(true, Ordering::SeqCst);
            running.stop.send_replace(true);
        }
        // Work honours a stop within two seconds; the rest is found by the lease.
        self.wait_idle(Duration::from_secs(3)).await;
    }

    async fn wait_idle(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.busy() == 0 {
                return true;
            }
            if tokio::time::timeout_at(deadline, freed).await.is_err() {
                return self.busy() == 0;
            }
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
                match self.rescue_strays().await {
                    Ok(()) => strays_at = Instant::now(),
                    Err(error) => complain("looking for strays", &error),
                }
            }
            let engine = Arc::clone(&self.services.engine);
            let rung = engine.bells.jobs.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            let due = next_due.is_some_and(|due| due <= engine.now());
            if due || last_look.elapsed() >= look_period {
                let began = Instant::now();
                match self.look().await {
                    Ok(next) => {
                        next_due = next;
                        look_period = pause(LOOK_PERIOD, began.elapsed());
                    }
                    Err(error) => complain("looking for jobs", &error),
                }
                last_look = Instant::now();
            }
            match self.step().await {
                Ok(Step::Started(_)) => continue,
                Ok(Step::Idle | Step::Full) => {}
                Err(error) => complain("claiming jobs", &error),
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
