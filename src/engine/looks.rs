//! What the loops of a node ask the database: what is ready, what is leased to whom, which lanes are
//! in trouble, how much waits.
//!
//! Nothing is claimed here, and nothing changes but that jobs whose time has come are ready.

use std::collections::HashMap;

use super::error::EngineResult;
use super::health::TROUBLE_KEPT_MILLIS;
use super::operation::subject;
use super::{Engine, claim};
use crate::ids::{Key, Timestamp};
use crate::store::deliveries::Depth;
use crate::store::jobs::{LeaseRow, QueueDepth};
use crate::store::lanes::LaneTrouble;
use crate::store::{Connection, deliveries, jobs, lanes, nodes, receivers};

/// Lanes that have something to send.
#[derive(Clone, Debug, Default)]
pub struct FoundLanes {
    /// Those with waiting deliveries, and when the first of each is due.
    pub waiting: Vec<(i64, Timestamp)>,
    /// Those of ordered endpoints to which something has just come.
    pub fresh: Vec<i64>,
}

impl Engine {
    /// Makes waiting jobs ready whose time has come; when the next one is due, and the queues that
    /// have ready jobs, found by looking.
    pub async fn look_for_jobs(&self) -> EngineResult<(Option<Timestamp>, Vec<String>)> {
        loop {
            let (next, queues) = self
                .store
                .read(|connection| {
                    Ok((jobs::next_due(connection)?, jobs::ready_queues(connection)?))
                })
                .await?;
            let next = next.map(Timestamp);
            if next.is_none_or(|due| due > self.now()) {
                return Ok((next, queues));
            }
            let subjects = vec![subject("claim", 0)];
            let promoted =
                self.custom(subjects, |transaction, _, now| Ok(claim::promote(transaction, now)?));
            if promoted.await? == 0 {
                // Another node holds them just now.
                return Ok((None, queues));
            }
        }
    }

    /// Lanes that have something to send, found by looking.
    pub async fn look_for_lanes(&self) -> EngineResult<FoundLanes> {
        let (waiting, fresh) = self
            .store
            .read(|connection| {
                Ok((deliveries::lanes(connection)?, deliveries::fresh_lanes(connection)?))
            })
            .await?;
        let waiting = waiting.into_iter().map(|row| (row.lane, Timestamp(row.due_at))).collect();
        Ok(FoundLanes { waiting, fresh })
    }

    /// Leases that this node holds, as the database has them.
    pub async fn own_leases(&self) -> EngineResult<Vec<LeaseRow>> {
        let node = self.node;
        Ok(self.store.read(move |connection| jobs::leased_by(connection, node)).await?)
    }

    /// Those of the jobs that this node has leased, as the database has them.
    pub async fn leases_of(&self, keys: Vec<Key>) -> EngineResult<Vec<LeaseRow>> {
        let node = self.node;
        Ok(self.store.read(move |connection| jobs::leases_of(connection, node, &keys)).await?)
    }

    /// Deliveries that this node has leased, as the database has them.
    pub async fn own_deliveries(&self) -> EngineResult<Vec<Key>> {
        let node = self.node;
        Ok(self.store.read(move |connection| deliveries::leased_by(connection, node)).await?)
    }

    /// How many deliveries of each lane other nodes that are alive are just sending.
    pub async fn sent_elsewhere(&self) -> EngineResult<HashMap<i64, usize>> {
        let (node, now) = (self.node, self.now());
        let rows = self
            .store
            .read(move |connection| {
                let now = connection.database_now()?.unwrap_or(now.0);
                deliveries::leased_elsewhere(connection, node, now)
            })
            .await?;
        let counted =
            |row: deliveries::LeasedRow| (row.lane, usize::try_from(row.count).unwrap_or_default());
        Ok(rows.into_iter().map(counted).collect())
    }

    /// Lanes in trouble, as the last owner left them.
    pub async fn troubled_lanes(&self) -> EngineResult<Vec<LaneTrouble>> {
        let since = self.now().plus_millis(-TROUBLE_KEPT_MILLIS);
        Ok(self.store.read(move |connection| lanes::troubled(connection, since.0)).await?)
    }

    /// What the database has of these lanes.
    pub async fn troubles_of(&self, lanes: Vec<i64>) -> EngineResult<Vec<LaneTrouble>> {
        Ok(self.store.read(move |connection| lanes::troubles_of(connection, lanes)).await?)
    }

    /// The versions that these endpoints have now.
    pub async fn endpoint_versions(&self, keys: Vec<Key>) -> EngineResult<HashMap<Key, i64>> {
        Ok(self.store.read(move |connection| receivers::versions(connection, &keys)).await?)
    }

    /// How many nodes are at work on the database, this one among them once it beats.
    pub async fn nodes_alive(&self) -> EngineResult<i64> {
        let now = self.now();
        let look = move |connection: &mut Connection| {
            let now = connection.database_now()?.unwrap_or(now.0);
            nodes::alive(connection, now)
        };
        Ok(self.store.read(look).await?)
    }

    /// Live jobs by queue and phase, for metrics.
    pub async fn queue_depths(&self) -> EngineResult<Vec<QueueDepth>> {
        Ok(self.store.read(jobs::depths).await?)
    }

    /// What is owed, in numbers, for metrics.
    pub async fn delivery_depth(&self) -> EngineResult<Depth> {
        Ok(self.store.read(deliveries::depth).await?)
    }
}
