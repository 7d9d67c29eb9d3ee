//! The sweeps: what nobody asked for but time brings. Dead nodes, deadlines, shards, retention.
//!
//! Every sweep finds its work by looking, is safe to run on every node at once, and does a bounded
//! amount a call.

use std::sync::PoisonError;

use super::Engine;
use super::error::{EngineError, EngineResult};
use super::operation::{Applied, subject};
use super::record::{free_orphans, give_back};
use crate::ids::{Key, Timestamp};
use crate::lifecycle::Command;
use crate::store::retention::{self, Purgeable};
use crate::store::{Transaction, deliveries, jobs, lanes, nodes};

/// Lanes are dealt to nodes in this many parts.
pub const SHARDS: i64 = 64;

/// How long a node counts as alive after its last beat.
pub const NODE_LIFE_MILLIS: i64 = 8_000;

/// Rows a sweep touches in one call.
const SWEEP_ROWS: i64 = 500;

/// A node's place among the living.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Shards it owns.
    pub shards: Vec<i64>,
    /// Nodes alive, itself included.
    pub alive: i64,
}

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
fn lease_time(transaction: &mut Transaction<'_>, now: Timestamp) -> EngineResult<i64> {
    Ok(transaction.database_now()?.unwrap_or(now.0))
}

impl Engine {
    /// Says that this node is alive, and deals shards: free ones are taken up to a fair share.
    /// What is above the share is left out of the answer first and given up by the next beat:
    /// nobody takes a shard over while this node may still claim from it.
    pub async fn beat(&self, started_at: Timestamp) -> EngineResult<Standing> {
        let (node, name) = (self.node, self.node_name.clone());
        let leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let beat = self.custom(vec![subject("nodes", 0)], move |transaction, _, now| {
            let now = lease_time(transaction, now)?;
            let expires = now + NODE_LIFE_MILLIS * 1_000;
            // Shards are held first, in their order, so that two nodes never wait crosswise.
            let shards = nodes::shards(transaction)?;
            nodes::beat(transaction, node, &name, started_at.0, expires)?;
            let alive = nodes::alive(transaction, now)?.max(1);
            let share = (SHARDS + alive - 1) / alive;
            let (mut mine, mut surplus): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
            for shard in &shards {
                let held = shard.node_id == Some(node);
                let free = shard.node_id.is_none()
                    || shard.owner_expires_at.is_none_or(|expires| expires <= now);
                let room = i64::try_from(mine.len()).unwrap_or(i64::MAX) < share;
                if held && !room && leaving.contains(&shard.shard) {
                    nodes::assign_shard(transaction, shard.shard, None, shard.epoch + 1)?;
                } else if held && !room {
                    surplus.push(shard.shard);
                } else if held {
                    mine.push(shard.shard);
                } else if free && room {
                    nodes::assign_shard(transaction, shard.shard, Some(node), shard.epoch + 1)?;
                    mine.push(shard.shard);
                }
            }
            Ok((Standing { shards: mine, alive }, surplus))
        });
        let (standing, surplus) = beat.await?;
        *self.leaving.lock().unwrap_or_else(PoisonError::into_inner) = surplus;
        Ok(standing)
    }

    /// Says that this node has gone in good order.
    pub async fn leave(&self) -> EngineResult<()> {
        let node = self.node;
        self.custom(vec![subject("nodes", 0)], move |transaction, _, _| {
            nodes::leave(transaction, node)?;
            Ok(())
        })
        .await
    }

    /// On SQLite: whoever was there before is gone, since a file has one server.
    pub async fn forget_other_nodes(&self) -> EngineResult<()> {
        self.custom(vec![subject("nodes", 0)], |transaction, _, _| {
            nodes::clear(transaction)?;
            Ok(())
        })
        .await
    }

    /// Gives work of dead nodes back: jobs by the rules, deliveries to their lanes.
    pub async fn rescue(&self) -> EngineResult<usize> {
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
        let lanes = self
            .custom(vec![subject("delivery orphans", 0)], |transaction, _, now| {
                let database_now = lease_time(transaction, now)?;
                let lanes = free_orphans(transaction, database_now, now, SWEEP_ROWS)?;
                // Dead nodes are forgotten once nothing points to them.
                nodes::remove_dead(transaction, database_now - 60_000_000)?;
                Ok(lanes)
            })
            .await?;
        rescued += lanes.len();
        self.bells.ring_lanes(&lanes);
        Ok(rescued)
    }

    /// Gives unsent deliveries back that this node holds; others of the keys are left alone.
    pub async fn return_deliveries(&self, keys: Vec<Key>) -> EngineResult<()> {
        let node = self.node;
        let lanes = self
            .custom(vec![subject("delivery orphans", 0)], move |transaction, _, now| {
                // Another node may hold some by now: those are not ours to give.
                let mut mine = deliveries::hold_leased(transaction, node)?;
                mine.retain(|row| keys.contains(&row.id));
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
        let page = self
            .store
            .read(move |connection| match kind {
                "job" => retention::jobs_after(connection, cursor, SWEEP_ROWS),
                "group" => retention::groups_after(connection, cursor, SWEEP_ROWS),
                "endpoint" => retention::endpoints_after(connection, cursor, SWEEP_ROWS),
                _ => retention::files_after(connection, cursor, SWEEP_ROWS),
            })
            .await?;
        let mut done = PurgedPage {
            purged: 0,
            next: page.last().map(|last| last.id),
            fresh: page.iter().all(|row| row.created_at >= before.0),
        };
        let old: Vec<Purgeable> = page
            .into_iter()
            .filter(|row| row.completed_at.is_some_and(|end| end < before.0))
            .collect();
        if old.is_empty() {
            return Ok(done);
        }
        done.purged = self
            .custom(vec![subject("retention", 0)], move |transaction, _, now| {
                let keys: Vec<Key> = old.iter().map(|row| row.id).collect();
                // What still owes a delivery stays until it is sent or given up.
                let owing = retention::owing(transaction, &keys)?;
                let free: Vec<Purgeable> =
                    old.iter().filter(|row| !owing.contains(&row.id)).cloned().collect();
                retention::purge(transaction, kind, &free, "retention", now.0)?;
                Ok(free.len())
            })
            .await?;
        Ok(done)
    }

    /// Removes idempotency records and callbacks that are over; how many.
    pub async fn purge_leftovers(&self, callbacks_before: Timestamp) -> EngineResult<usize> {
        self.custom(vec![subject("retention", 0)], move |transaction, _, now| {
            let mut gone = retention::expire_idempotency(transaction, now.0, SWEEP_ROWS)?;
            gone += retention::purge_callbacks(transaction, callbacks_before.0, SWEEP_ROWS)?;
            gone += lanes::forget(transaction, callbacks_before.0, SWEEP_ROWS)?;
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
