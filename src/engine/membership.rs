//! This node among the others: its beats, which shards are its own, who else is gone.
//!
//! Must not know what is sent on a shard. A node's end shows in two ways: its beats stop, and on
//! Postgres its guard goes with its process, which is seen at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Engine;
use super::error::EngineResult;
use super::keeping::lease_time;
use super::neighbours::Neighbours;
use super::operation::subject;
use crate::ids::{Key, Timestamp};
use crate::store::guards::{self, Guard};
use crate::store::{Backend, StoreError, nodes};

/// Lanes are dealt to nodes in this many parts.
pub const SHARDS: i64 = 64;

/// How long a node counts as alive after its last beat.
pub const NODE_LIFE: Duration = Duration::from_secs(8);

/// A look that takes longer tells nothing.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// A node's place among the living.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Shards it sends for.
    pub shards: Vec<i64>,
    /// Shards it still owns and is to give up, as soon as it claims no more from them.
    pub surplus: Vec<i64>,
    /// Nodes alive, itself included.
    pub alive: i64,
    /// Whether others were found to be gone.
    pub others_ended: bool,
}

/// What a look at the other nodes came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Nothing new.
    Quiet,
    /// Somebody may be gone: another look soon will tell.
    Doubt,
    /// There is something to do for the next beat.
    News,
    /// This node's own guard is gone: others may take it for dead.
    GuardLost,
    /// This node has no guard and gets none.
    Unguarded,
}

/// What this node knows of its membership.
#[derive(Default)]
pub(super) struct Membership {
    seen: Mutex<Seen>,
    retiring: AtomicBool,
}

#[derive(Default)]
struct Seen {
    guard: Option<Guard>,
    neighbours: Neighbours,
    /// Nodes that seem to be gone.
    gone: Vec<Key>,
    /// Shards that this node may own beyond those that it has.
    room: i64,
}

impl Membership {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Says that this node is alive, and deals shards: free ones are taken up to a fair share.
    /// What is above the share is only named: nobody takes a shard over while this node may still
    /// claim from it.
    pub async fn beat(&self, started_at: Timestamp) -> EngineResult<Standing> {
        let leaving = self.membership.retiring.load(Ordering::SeqCst);
        let (guarded, gone) = {
            let seen = self.membership.seen();
            (seen.guard.is_some(), seen.gone.clone())
        };
        let (node, name) = (self.node, self.node_name.clone());
        let beat = self.custom(vec![subject("nodes", 0)], move |transaction, _, now| {
            let now = lease_time(transaction, now)?;
            let expires_at = Timestamp(now).plus(NODE_LIFE).0;
            // Shards are held first, in their order, so that two nodes never wait crosswise.
            let mut shards = nodes::shards(transaction)?;
            let mut ended = 0;
            for other in &gone {
                if guards::end_life(transaction, *other, now)? {
                    ended += 1;
                    // Those that this node has no room for are seen to be free by the others.
                    for shard in shards.iter_mut().filter(|shard| shard.node_id == Some(*other)) {
                        nodes::free_shard(transaction, shard.shard, *other)?;
                        shard.node_id = None;
                    }
                }
            }
            let (name, started_at) = (name.clone(), started_at.0);
            let beat = nodes::Beat { node, name, started_at, expires_at, guarded, leaving };
            nodes::beat(transaction, &beat)?;
            let alive = nodes::alive(transaction, now)?;
            let share = if leaving { 0 } else { (SHARDS + alive - 1) / alive.max(1) };
            let room = usize::try_from(share).unwrap_or(0);
            let mut standing = Standing { alive, ..Standing::default() };
            for shard in &shards {
                let free = shard.node_id.is_none()
                    || shard.owner_expires_at.is_none_or(|expires| expires <= now);
                if shard.node_id == Some(node) && standing.shards.len() >= room {
                    standing.surplus.push(shard.shard);
                } else if shard.node_id == Some(node) {
                    standing.shards.push(shard.shard);
                } else if free && standing.shards.len() < room {
                    nodes::take_shard(transaction, shard.shard, node)?;
                    standing.shards.push(shard.shard);
                }
            }
            standing.others_ended = ended > 0;
            Ok((standing, share))
        });
        let (standing, share) = beat.await?;
        let mut seen = self.membership.seen();
        seen.gone.clear();
        seen.room = share - i64::try_from(standing.shards.len()).unwrap_or(share);
        Ok(standing)
    }

    /// Gives shards up that this node claims from no more.
    pub async fn give_up(&self, shards: Vec<i64>) -> EngineResult<()> {
        let node = self.node;
        self.custom(vec![subject("nodes", 0)], move |transaction, _, _| {
            // In the order in which beats hold them.
            for shard in nodes::shards(transaction)? {
                if shards.contains(&shard.shard) {
                    nodes::free_shard(transaction, shard.shard, node)?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Looks at the other nodes by this one's guard, which is made when there is none. Without a
    /// guard a node's end shows by its beats alone, as on SQLite, where nobody else is.
    pub async fn look_around(&self) -> Sight {
        if self.backend() == Backend::Sqlite {
            return Sight::Quiet;
        }
        let guard = self.membership.seen().guard.take();
        let had_guard = guard.is_some();
        let (location, node) = (self.store.location().clone(), self.node);
        let look = tokio::task::spawn_blocking(move || {
            let mut guard = match guard {
                Some(guard) => guard,
                None => Guard::take(&location, node)?,
            };
            let view = guard.look()?;
            Ok::<_, StoreError>((guard, view))
        });
        // A look that comes too late is dropped together with its guard.
        let answer = tokio::time::timeout(LOOK_PATIENCE, look).await;
        let mut seen = self.membership.seen();
        let Ok(Ok(Ok((guard, view)))) = answer else {
            if had_guard {
                *seen =
                    Seen { room: seen.room, neighbours: Neighbours::again(), ..Seen::default() };
            }
            return if had_guard { Sight::GuardLost } else { Sight::Unguarded };
        };
        seen.guard = Some(guard);
        seen.gone = seen.neighbours.judge(&view.peers, Instant::now());
        let news = !had_guard || !seen.gone.is_empty() || (view.free_shards > 0 && seen.room > 0);
        match news {
            true => Sight::News,
            false if seen.neighbours.in_doubt() => Sight::Doubt,
            false => Sight::Quiet,
        }
    }

    /// From now on this node wants no lanes: its next beats name all its shards as surplus.
    pub fn retire(&self) {
        self.membership.retiring.store(true, Ordering::SeqCst);
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
}
