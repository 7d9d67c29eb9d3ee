//! Whether what runs here is still ours, and whether what is ours runs here.
//!
//! Must not know how jobs are claimed or run.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::Runner;
use crate::engine::{EngineError, EngineResult};
use crate::ids::Key;
use crate::lifecycle::{Command, Status};
use crate::telemetry::complain;

/// How often leases are compared with the database while something runs.
const LEASE_PERIOD: Duration = Duration::from_millis(500);

impl Runner {
    /// Watches leases until `shutdown`.
    pub async fn watch_leases(
        self: Arc<Self>,
        mut shutdown: watch::Receiver<bool>,
        beat: impl Fn(),
    ) {
        while !*shutdown.borrow() {
            beat();
            if let Err(error) = self.check_leases().await {
                complain("checking leases", &error);
            }
            let engine = &self.services.engine;
            tokio::select! {
                () = engine.bells.stops.notified() => {}
                () = tokio::time::sleep(LEASE_PERIOD) => {}
                _ = shutdown.changed() => {}
            }
        }
    }

    /// Ends work whose lease is gone.
    pub(super) fn lose(&self, key: Key, token: i64) {
        if let Some(running) = self.running().get(&key)
            && running.token == token
        {
            running.lost.store(true, Ordering::SeqCst);
            running.stop.send_replace(true);
            // Most often its end has just been stored, so this alarms nobody; when it is true, the
            // end of the try is refused and that is told.
            tracing::debug!(
                job_key = key,
                "the lease of a running job is not there; its work is dropped"
            );
        }
    }

    /// Compares running tries with the database: asked to stop, or not ours any more.
    pub async fn check_leases(&self) -> EngineResult<()> {
        let held: Vec<(Key, i64)> =
            self.running().iter().map(|(key, running)| (*key, running.token)).collect();
        if held.is_empty() {
            return Ok(());
        }
        let leases: HashMap<Key, (i64, i64)> = self
            .services
            .engine
            .leases_of(held.iter().map(|(key, _)| *key).collect())
            .await?
            .into_iter()
            .map(|lease| (lease.id, (lease.token, lease.status)))
            .collect();
        for (key, token) in held {
            match leases.get(&key) {
                Some((current, status)) if *current == token => {
                    if *status == Status::Stopping.number()
                        && let Some(running) = self.running().get(&key)
                    {
                        running.stop.send_replace(true);
                    }
                }
                // Its end may have been stored a moment ago; then nothing is lost by the mark.
                _ => self.lose(key, token),
            }
        }
        Ok(())
    }

    /// The node has been silent for too long: its leases may be somebody else's by now.
    pub fn drop_all(&self) {
        let held: Vec<(Key, i64)> =
            self.running().iter().map(|(key, running)| (*key, running.token)).collect();
        for (key, token) in held {
            self.lose(key, token);
        }
    }

    /// Gives up leases of this node that nobody here works on. A claim whose commit got no answer
    /// leaves such leases; no other node would touch them while this one is alive. Must not run
    /// beside `step`.
    pub async fn rescue_strays(&self) -> EngineResult<()> {
        let engine = &self.services.engine;
        let _shut = self.gate.shut().await;
        // Whatever was claimed before this read is among the running or has ended, and what has
        // ended since refuses its token.
        for lease in engine.own_leases().await? {
            if self.running().contains_key(&lease.id) {
                continue;
            }
            match engine.apply(lease.id, Command::Rescue { token: lease.token }).await {
                Ok(_) => tracing::warn!(job_key = lease.id, "nobody worked on a leased job"),
                Err(EngineError::Refused(_) | EngineError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
