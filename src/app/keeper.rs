//! The loops that keep a node in order: beats, sweeps, backlogs of endpoints, the relay of the feed.
//!
//! Each finds its work by looking and goes on after an error. Must not know how the parts were made.

mod retention;

use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Timeout};

use crate::clock::pause;
use crate::delivery::Dispatcher;
use crate::engine::{Engine, EngineResult, LOOK_PERIOD, NODE_LIFE, Sight, Standing};
use crate::handlers::runner::Runner;
use crate::ids::Timestamp;
use crate::ingress;
use crate::store::Backend;
use crate::telemetry::complain;

/// How often a node says that it is alive.
const BEAT_PERIOD: Duration = Duration::from_secs(1);
/// How soon it looks again when another node may be gone.
const DOUBT_PERIOD: Duration = Duration::from_millis(25);
/// How often dead nodes and deadlines are looked for.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);
/// How often events without a place in the feed are looked for when no bell rings.
const RELAY_PERIOD: Duration = Duration::from_millis(250);
/// How long committed events wait for others before they get their places.
const RELAY_PAUSE: Duration = Duration::from_millis(25);
/// A node that was not heard for this long stops its work, before others take that over.
fn fencing_time() -> Duration {
    NODE_LIFE.mul_f64(0.8)
}

/// Until when the database may take before a node that was `heard` last at that time has to fence
/// itself; one that has done that is in no hurry.
fn patience_ends(heard: Instant, now: Instant) -> Instant {
    let fenced = heard + fencing_time();
    if now < fenced { fenced } else { now + fencing_time() }
}

/// What the database answers, as long as this node can wait for it.
fn in_time<F: Future>(heard: Instant, answer: F) -> Timeout<F> {
    tokio::time::timeout_at(patience_ends(heard, Instant::now()), answer)
}

/// How long to wait before the next look; `alone` when nobody else is there to be looked at.
fn pause_after(sight: Sight, alone: bool) -> Duration {
    match sight {
        Sight::Doubt => DOUBT_PERIOD,
        // Whoever joins now judges this node by its guard.
        Sight::GuardLost | Sight::Unguarded => LOOK_PERIOD,
        Sight::Quiet | Sight::News if alone => BEAT_PERIOD,
        Sight::Quiet | Sight::News => LOOK_PERIOD,
    }
}

/// What the loops of a node share.
pub(super) struct Keeper {
    pub(super) engine: Arc<Engine>,
    pub(super) runner: Arc<Runner>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) state: web::Data<ingress::State>,
    pub(super) started_at: Timestamp,
    pub(super) retention_millis: i64,
}

/// The loops that claim, and the others.
pub(super) fn start_loops(
    keeper: Keeper,
    shutdown: &watch::Sender<bool>,
) -> (Vec<JoinHandle<()>>, Vec<JoinHandle<()>>) {
    let keeper = Arc::new(keeper);
    let beat = |name: &'static str| {
        let ready = Arc::clone(&keeper.state.ready);
        ready.register(name);
        move || ready.beat(name)
    };
    let claiming = vec![
        tokio::spawn(Arc::clone(&keeper.runner).run(shutdown.subscribe(), beat("runner"))),
        tokio::spawn(Arc::clone(&keeper.dispatcher).run(shutdown.subscribe(), beat("dispatcher"))),
    ];
    let others = vec![
        tokio::spawn(Arc::clone(&keeper.runner).watch_leases(shutdown.subscribe(), beat("leases"))),
        tokio::spawn(Arc::clone(&keeper).keep_alive(shutdown.subscribe(), beat("node"))),
        tokio::spawn(Arc::clone(&keeper).sweep(shutdown.subscribe(), beat("sweeper"))),
        tokio::spawn(Arc::clone(&keeper).settle(shutdown.subscribe(), beat("settler"))),
        tokio::spawn(Arc::clone(&keeper).relay(shutdown.subscribe(), beat("relay"))),
        tokio::spawn(Arc::clone(&keeper).retain(shutdown.subscribe())),
    ];
    (claiming, others)
}

impl Keeper {
    /// Looks at the other nodes, beats, and fences this node when its beats do not get through: by
    /// then its leases may be somebody else's.
    async fn keep_alive(self: Arc<Self>, mut shutdown: watch::Receiver<bool>, beat: impl Fn()) {
        let mut heard = Instant::now();
        let mut next_beat = Instant::now();
        let mut alone = false;
        // Beats go on during shutdown, for as long as work is winding down.
        loop {
            let sight = self.engine.look_around().await;
            if sight == Sight::GuardLost {
                // Whoever takes this node for dead now must not find it sending.
                tracing::warn!("the session that guards this node is gone; making another");
                self.dispatcher.set_shards(&[]);
            }
            if matches!(sight, Sight::News | Sight::GuardLost) || next_beat <= Instant::now() {
                next_beat = Instant::now() + BEAT_PERIOD;
                if let Some(standing) = self.say_alive(&mut heard).await {
                    beat();
                    alone = standing.alive <= 1;
                    // A database that falls silent meanwhile must not keep this node from fencing
                    // itself; what is left undone comes with the next beat.
                    match in_time(heard, self.stand(standing)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => complain("dealing lanes", &error),
                        Err(_) => tracing::error!("dealing lanes took too long"),
                    }
                }
            }
            if heard.elapsed() > fencing_time() && self.engine.backend() == Backend::Postgres {
                self.fence();
            }
            let ending = *shutdown.borrow();
            let idle = self.runner.busy() == 0 && self.dispatcher.in_flight() == 0;
            if ending && idle {
                return;
            }
            let pause = pause_after(sight, alone && !ending);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = shutdown.changed(), if !ending => next_beat = Instant::now(),
            }
        }
    }

    /// Beats once. After a silence longer than a node's life everything here may be somebody else's.
    async fn say_alive(&self, heard: &mut Instant) -> Option<Standing> {
        let began = Instant::now();
        let beat = self.engine.beat(self.started_at);
        let standing = match in_time(*heard, beat).await {
            Ok(Ok(standing)) => standing,
            Ok(Err(error)) => {
                complain("beating", &error);
                return None;
            }
            Err(_) => {
                tracing::error!("beating took too long");
                return None;
            }
        };
        let silent = began.duration_since(*heard);
        if silent > NODE_LIFE {
            tracing::warn!(
                seconds = silent.as_secs_f64(),
                "this node was silent for longer than its life; its work is dropped"
            );
            self.fence();
        }
        *heard = began;
        Some(standing)
    }

    /// Sends for these shards and no others. What is too much is given up as soon as nothing of it
    /// can be claimed here any more; the work of those who ended goes on first.
    async fn stand(&self, standing: Standing) -> EngineResult<()> {
        let Standing { shards, surplus, others_ended, .. } = standing;
        if others_ended {
            let count = self.engine.rescue_deliveries().await?;
            tracing::warn!(deliveries = count, "another node is gone; its lanes are taken over");
        }
        self.dispatcher.set_shards(&shards);
        if surplus.is_empty() {
            return Ok(());
        }
        // When a claim takes long, the next beat names the surplus again.
        match tokio::time::timeout(BEAT_PERIOD, self.dispatcher.claims_ended()).await {
            Ok(()) => self.engine.give_up(surplus).await,
            Err(_) => Ok(()),
        }
    }

    fn fence(&self) {
        self.dispatcher.set_shards(&[]);
        self.runner.drop_all();
    }

    /// Finds what dead nodes left and what is past its deadline; notes uses of keys.
    async fn sweep(self: Arc<Self>, mut shutdown: watch::Receiver<bool>, beat: impl Fn()) {
        let mut flushed = Instant::now();
        while !*shutdown.borrow() {
            beat();
            let began = Instant::now();
            let mut period = SWEEP_PERIOD;
            match self.engine.rescue().await {
                Ok(0) => period = pause(SWEEP_PERIOD, began.elapsed()),
                Ok(count) => tracing::warn!(count, "gave work of dead nodes back"),
                Err(error) => complain("rescuing", &error),
            }
            if let Err(error) = self.engine.expire().await {
                complain("expiring", &error);
            }
            if flushed.elapsed() > Duration::from_secs(10) {
                flushed = Instant::now();
                if let Err(error) = self.state.auth.flush_uses(&self.engine).await {
                    complain("noting uses of keys", &error);
                }
                if let Err(error) = self.dispatcher.flush_secret_uses().await {
                    complain("noting uses of secrets", &error);
                }
                if let Err(error) = self.engine.free_stuck().await {
                    complain("looking for stuck deliveries", &error);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                _ = shutdown.changed() => {}
            }
        }
    }

    /// Brings backlogs of endpoints in line with their state. A long one must not keep the sweep
    /// from its work, so it has a loop of its own.
    async fn settle(self: Arc<Self>, mut shutdown: watch::Receiver<bool>, beat: impl Fn()) {
        while !*shutdown.borrow() {
            beat();
            let rung = self.engine.bells.settling.notified();
            if let Err(error) = self.engine.settle_backlogs().await {
                complain("settling backlogs", &error);
            }
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep(SWEEP_PERIOD) => {}
                _ = shutdown.changed() => {}
            }
        }
    }

    /// Gives committed events their places in the feed. Runs on every node; the database lets one
    /// at a time do it.
    async fn relay(self: Arc<Self>, mut shutdown: watch::Receiver<bool>, beat: impl Fn()) {
        let period = match self.engine.backend() {
            // There the commit itself gives them.
            Backend::Sqlite => BEAT_PERIOD,
            Backend::Postgres => RELAY_PERIOD,
        };
        while !*shutdown.borrow() {
            beat();
            let rung = self.engine.bells.relay.notified();
            let began = Instant::now();
            match self.engine.relay().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => complain("placing events in the feed", &error),
            }
            // Less of a pause than for a look that finds nothing most of the time.
            let relay_pause = pause(RELAY_PAUSE, began.elapsed() / 4);
            tokio::select! {
                // What is committed meanwhile gets its place in the same transaction.
                () = rung => tokio::time::sleep(relay_pause).await,
                () = tokio::time::sleep(period) => {}
                _ = shutdown.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_database_is_given_up_before_a_lease_can_be_over() {
        let heard = Instant::now();
        assert!(fencing_time() < NODE_LIFE);
        for silent in (0..20_000).step_by(100).map(Duration::from_millis) {
            let (now, fenced) = (heard + silent, silent >= fencing_time());
            let expected = if fenced { now } else { heard } + fencing_time();
            assert_eq!(patience_ends(heard, now), expected, "after {silent:?}");
        }
    }

    #[test]
    fn a_node_without_guard_goes_on_looking_for_one_though_nobody_is_there() {
        for (sight, alone, among_others) in [
            (Sight::Quiet, BEAT_PERIOD, LOOK_PERIOD),
            (Sight::News, BEAT_PERIOD, LOOK_PERIOD),
            (Sight::Doubt, DOUBT_PERIOD, DOUBT_PERIOD),
            (Sight::GuardLost, LOOK_PERIOD, LOOK_PERIOD),
            (Sight::Unguarded, LOOK_PERIOD, LOOK_PERIOD),
        ] {
            let pauses = (pause_after(sight, true), pause_after(sight, false));
            assert_eq!(pauses, (alone, among_others), "{sight:?}");
        }
    }
}
