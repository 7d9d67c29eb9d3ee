//! Idle connections, kept for a short while.
//!
//! Must not decide which addresses may be used: whoever takes a connection names the addresses it
//! has just judged, and gets only a connection to one of those. So a changed DNS answer or policy
//! meets every request, reused connection or not.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;
use super::target::Target;

/// Shorter than what common servers allow an idle connection (Node and Apache: 5 s by default), so
/// that they rarely close one at the moment it is taken.
pub(super) const IDLE_LIFE: Duration = Duration::from_secs(4);
const MAX_PER_ADDRESS: usize = 128;
const MAX_TOTAL: usize = 512;

#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// Oldest first. Several hosts may share an address; a connection serves only the scheme and
    /// host it was opened for, because its certificate was checked for that name.
    by_address: HashMap<SocketAddr, Vec<(Connection, Instant)>>,
    total: usize,
    swept: Option<Instant>,
}

impl Pool {
    /// The youngest idle connection to `target` at one of these addresses.
    pub fn take(&self, target: &Target, judged: &[SocketAddr], now: Instant) -> Option<Connection> {
        let mut idle = self.lock();
        let Idle { by_address, total, .. } = &mut *idle;
        for address in judged {
            let Some(connections) = by_address.get_mut(address) else { continue };
            for index in (0..connections.len()).rev() {
                let (connection, since) = &connections[index];
                if is_spent(connection, *since, now) {
                    connections.remove(index);
                    *total -= 1;
                    continue;
                }
                // One that is not ready still writes a request nobody reads; it expires.
                let fits = connection.scheme == target.scheme && connection.host == target.host;
                if fits && connection.is_ready() {
                    *total -= 1;
                    return Some(connections.remove(index).0);
                }
            }
        }
        None
    }

    /// Keeps a connection whose response was read to its end.
    pub fn put(&self, connection: Connection, now: Instant) {
        if connection.is_closed() {
            return;
        }
        let mut idle = self.lock();
        if idle.total >= MAX_TOTAL {
            idle.remove_spent(now);
        }
        if idle.total >= MAX_TOTAL {
            return;
        }
        let connections = idle.by_address.entry(connection.address).or_default();
        if connections.len() < MAX_PER_ADDRESS {
            connections.push((connection, now));
            idle.total += 1;
        }
    }

    /// Closes what has been idle too long. Called by every connection's task, so it looks only
    /// where nobody has looked for a second.
    pub fn sweep(&self, now: Instant) {
        let mut idle = self.lock();
        if idle.swept.is_none_or(|swept| swept + Duration::from_secs(1) <= now) {
            idle.remove_spent(now);
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.lock().total
    }

    /// A panic while the lock was held can at worst have lost a connection.
    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn remove_spent(&mut self, now: Instant) {
        self.swept = Some(now);
        self.by_address.retain(|_, connections| {
            connections.retain(|(connection, since)| !is_spent(connection, *since, now));
            !connections.is_empty()
        });
        self.total = self.by_address.values().map(Vec::len).sum();
    }
}

fn is_spent(connection: &Connection, since: Instant, now: Instant) -> bool {
    connection.is_closed() || now.saturating_duration_since(since) >= IDLE_LIFE
}
