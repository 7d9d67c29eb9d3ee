//! The sweeps: what nobody asked for but time brings. Dead nodes, deadlines, retention.
//!
//! Every sweep finds its work by looking, is safe to run on every node at once, and does a bounded
//! amount a call.

use super::Engine;
use super::error::{EngineError, EngineResult};
use super::health::TROUBLE_KEPT_MILLIS;
use super::operation::{Applied, subject};
use super::record::{free_orphans, give_back};
use crate::ids::{Key, Timestamp};
use crate::lifecycle::Command;
use crate::store::deliveries::phase;
use crate::store::retention::{self, Purgeable};
use crate::store::{Transaction, deliveries, events, jobs, lanes, nodes};

/// Rows a sweep touches in one call.
const SWEEP_ROWS: i64 = 500;

/// One page of a retention pass.
#[derive(Clone, Copy, Debug)]
pub struct PurgedPage {
    /// Subjects that went.
    pub purged: usize,
    /// Where the next page starts; `None` behind the last one.
    pub next: Option<Key>,
    /// Whether everything on the page is too young to go.
    pub fresh: bool,
}

/// The database's time where it has one, this machine's on SQLite.
pub(super) fn lease_time(transaction: &mut Transaction<'_>, now: Timestamp) -> EngineResult<i64> {
    Ok(transaction.database_now()?.unwrap_or(now.0))
}

impl Engine {
    /// Gives work of dead nodes back: jobs by the rules, deliveries to their lanes.
    pub async fn rescue(&self) -> EngineResult<usize> {
        Ok(self.rescue_jobs().await? + self.rescue_deliveries().await?)
    }

    async fn rescue_jobs(&self) -> EngineResult<usize> {
        let now = self.core.clock.now();
        let orphans = self
            .store
            .read(move |connection| {
                let now = connection.database_now()?.unwrap_or(now.0);
                jobs::orphaned(connection, now, SWEEP_ROWS)
            })
            .await?;
        let mut rescued = 0;
        for lease in orphans {
            match self.apply(lease.id, Command::Rescue { token: lease.token }).await {
                Ok(_) => rescued += 1,
                Err(EngineError::Refused(_) | EngineError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rescued)
    }

    /// Gives deliveries of dead nodes back to their lanes; how many.
    pub async fn rescue_deliveries(&self) -> EngineResult<usize> {
        let lanes = self
            .custom(vec![subject("delivery orphans", 0)], |transaction, _, now| {
                let database_now = lease_time(transaction, now)?;
                let lanes = free_orphans(transaction, database_now, now, SWEEP_ROWS)?;
                // Dead nodes are forgotten once nothing points to them.
                nodes::remove_dead(transaction, database_now - 60_000_000)?;
                Ok(lanes)
            })
            .await?;
        self.bells.ring_lanes(&lanes);
        Ok(lanes.len())
    }

    /// Gives unsent deliveries back that this node holds; others of the keys are left alone.
    pub async fn return_deliveries(&self, keys: Vec<Key>) -> EngineResult<()> {
        let node = self.node;
        let lanes = self
            .custom(vec![subject("delivery orphans", 0)], move |transaction, _, now| {
                // Another node may hold some by now: those are not ours to give.
                let mut mine = deliveries::hold(transaction, &keys)?;
                mine.retain(|row| row.phase == phase::LEASED && row.node_id == Some(node));
                tracing::debug!(node, deliveries = mine.len(), "handed back");
                Ok(give_back(transaction, &mine, "unknown", "sender_stopped", now)?)
            })
            .await?;
        self.bells.ring_lanes(&lanes);
        Ok(())
    }

    /// Ends jobs whose deadline passed before they could start.
    pub async fn expire(&self) -> EngineResult<Vec<Applied>> {
        let now = self.core.clock.now();
        let keys =
            self.store.read(move |connection| jobs::expired(connection, now.0, SWEEP_ROWS)).await?;
        let mut ended = Vec::new();
        for key in keys {
            match self.apply(key, Command::Expire).await {
                Ok(applied) => ended.push(applied),
                Err(EngineError::Refused(_) | EngineError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ended)
    }

    /// Purges one page of what ended before `before`, starting behind `cursor`.
    pub async fn purge_jobs(&self, before: Timestamp, cursor: Key) -> EngineResult<PurgedPage> {
        self.purge("job", before, cursor).await
    }

    /// The same for groups without jobs.
    pub async fn purge_groups(&self, before: Timestamp, cursor: Key) -> EngineResult<PurgedPage> {
        self.purge("group", before, cursor).await
    }

    /// The same for deleted files of which nothing is left.
    pub async fn purge_files(&self, before: Timestamp, cursor: Key) -> EngineResult<PurgedPage> {
        self.purge("file", before, cursor).await
    }

    /// The same for deleted endpoints.
    pub async fn purge_endpoints(
        &self,
        before: Timestamp,
        cursor: Key,
    ) -> EngineResult<PurgedPage> {
        self.purge("endpoint", before, cursor).await
    }

    async fn purge(
        &self,
        kind: &'static str,
        before: Timestamp,
        cursor: Key,
    ) -> EngineResult<PurgedPage> {
        let (page, owing) = self
            .store
            .read(move |connection| {
                let page = match kind {
                    "job" => retention::jobs_after(connection, cursor, SWEEP_ROWS),
                    "group" => retention::groups_after(connection, cursor, SWEEP_ROWS),
                    "endpoint" => retention::endpoints_after(connection, cursor, SWEEP_ROWS),
                    _ => retention::files_after(connection, cursor, SWEEP_ROWS),
                }?;
                let ended = page.iter().filter(|row| is_over(row, before));
                let ended: Vec<Key> = ended.map(|row| row.id).collect();
                let owing = retention::owing(connection, &ended)?;
                Ok((page, owing))
            })
            .await?;
        let mut done = PurgedPage {
            purged: 0,
            next: page.last().map(|last| last.id),
            fresh: page.iter().all(|row| row.created_at >= before.0),
        };
        // What still owes a delivery stays until it is sent or given up.
        let old: Vec<Purgeable> = page
            .into_iter()
            .filter(|row| is_over(row, before) && !owing.contains(&row.id))
            .collect();
        if old.is_empty() {
            return Ok(done);
        }
        done.purged = self
            .custom(vec![subject("retention", 0)], move |transaction, _, now| {
                let keys: Vec<Key> = old.iter().map(|row| row.id).collect();
                // Since the look a job may have come to the trash, and somebody may have asked for a
                // delivery again, or for one that there never was.
                retention::hold(transaction, kind, &keys)?;
                events::hold(transaction, &keys)?;
                let owing = retention::hold_owing(transaction, &keys)?;
                let free: Vec<Purgeable> =
                    old.iter().filter(|row| !owing.contains(&row.id)).cloned().collect();
                retention::purge(transaction, kind, &free, "retention", now.0)?;
                Ok(free.len())
            })
            .await?;
        Ok(done)
    }

    /// Removes idempotency records, callbacks and troubles of lanes that are over; how many.
    pub async fn purge_leftovers(&self, callbacks_before: Timestamp) -> EngineResult<usize> {
        self.custom(vec![subject("retention", 0)], move |transaction, _, now| {
            let mut gone = retention::expire_idempotency(transaction, now.0, SWEEP_ROWS)?;
            gone += retention::purge_callbacks(transaction, callbacks_before.0, SWEEP_ROWS)?;
            let troubles_before = now.plus_millis(-TROUBLE_KEPT_MILLIS).0;
            gone += lanes::forget(transaction, troubles_before, SWEEP_ROWS)?;
            Ok(gone)
        })
        .await
    }

    /// Superseded versions that no live job reads: their bytes may go.
    pub async fn unread_versions(&self, before: Timestamp) -> EngineResult<Vec<uuid::Uuid>> {
        let read = move |connection: &mut crate::store::Connection| {
            retention::unread_versions(connection, before.0, SWEEP_ROWS)
        };
        Ok(self.store.read(read).await?)
    }

    /// Forgets versions whose bytes are gone.
    pub async fn forget_versions(&self, ids: Vec<uuid::Uuid>) -> EngineResult<()> {
        self.custom(vec![subject("retention", 0)], move |transaction, _, _| {
            retention::forget_versions(transaction, &ids)?;
            Ok(())
        })
        .await
    }

    /// Which keys of bytes belong to no version.
    pub async fn unknown_versions(&self, ids: Vec<uuid::Uuid>) -> EngineResult<Vec<uuid::Uuid>> {
        Ok(self.store.read(move |connection| retention::unknown_versions(connection, &ids)).await?)
    }
}

fn is_over(subject: &Purgeable, before: Timestamp) -> bool {
    subject.completed_at.is_some_and(|end| end < before.0)
}
