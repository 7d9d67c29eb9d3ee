//! Live rows of deliveries on their way into the table: new ones, and changed ones. Must not know why.

use super::Place;
use crate::ids::Key;
use crate::store::connection::Connection;
use crate::store::error::StoreResult;
use crate::store::rows::{Column, Kind, OnConflict, Rows};

/// The live row of a delivery on its way in.
#[derive(Debug, Clone)]
pub struct LiveDelivery {
    /// Key.
    pub id: Key,
    /// Where limits and order apply.
    pub lane: i64,
    /// To whom.
    pub receiver_id: Key,
    /// See [`super::phase`].
    pub phase: i64,
    /// When the next try may start.
    pub due_at: i64,
    /// Lease.
    pub token: i64,
    /// Holder of the lease.
    pub node_id: Option<Key>,
    /// Attempts so far.
    pub attempts: i64,
    /// Tries since the schedule (re)started.
    pub tries: i64,
    /// See [`super::manner`].
    pub manner: i64,
    /// Among those of an ordered endpoint.
    pub place: Option<Place>,
}

impl LiveDelivery {
    /// The row after a change, before either is written. It has not failed yet.
    pub fn change(&mut self, change: &LiveChange) {
        self.phase = change.phase;
        self.due_at = change.due_at;
        self.token = change.token;
        self.node_id = change.node_id;
        self.attempts = change.attempts;
        self.tries = change.tries;
    }
}

const NEW_LIVE: &[Column] = &[
    ("id", Kind::Int),
    ("lane", Kind::Int),
    ("receiver_id", Kind::Int),
    ("phase", Kind::Int),
    ("due_at", Kind::Int),
    ("token", Kind::Int),
    ("node_id", Kind::Int),
    ("attempts", Kind::Int),
    ("tries", Kind::Int),
    ("manner", Kind::Int),
    ("track", Kind::Int),
    ("rank", Kind::Int),
];

/// Inserts live rows.
pub fn insert_live(
    connection: &mut Connection,
    deliveries: impl IntoIterator<Item = LiveDelivery>,
) -> StoreResult<()> {
    let mut rows = Rows::new("live_deliveries", NEW_LIVE);
    for delivery in deliveries {
        rows.push([
            delivery.id.into(),
            delivery.lane.into(),
            delivery.receiver_id.into(),
            delivery.phase.into(),
            delivery.due_at.into(),
            delivery.token.into(),
            delivery.node_id.into(),
            delivery.attempts.into(),
            delivery.tries.into(),
            delivery.manner.into(),
            delivery.place.map(|place| place.track).into(),
            delivery.place.and_then(|place| place.rank).into(),
        ]);
    }
    connection.insert(rows, OnConflict::Fail)
}

/// A changed live delivery.
#[derive(Debug, Clone)]
pub struct LiveChange {
    /// Key.
    pub id: Key,
    /// See [`super::phase`].
    pub phase: i64,
    /// When the next try may start.
    pub due_at: i64,
    /// Lease.
    pub token: i64,
    /// Holder of the lease.
    pub node_id: Option<Key>,
    /// Attempts so far.
    pub attempts: i64,
    /// Tries since the schedule (re)started.
    pub tries: i64,
    /// Code of the last failure.
    pub previous_failure: Option<String>,
}

const LIVE_CHANGE: &[Column] = &[
    ("id", Kind::Int),
    ("phase", Kind::Int),
    ("due_at", Kind::Int),
    ("token", Kind::Int),
    ("node_id", Kind::Int),
    ("attempts", Kind::Int),
    ("tries", Kind::Int),
    ("previous_failure", Kind::Text),
];

/// Writes changed live rows, held in this transaction.
pub fn update_live(connection: &mut Connection, changes: &[LiveChange]) -> StoreResult<()> {
    let mut rows = Rows::keyed("live_deliveries", 1, LIVE_CHANGE);
    for change in changes {
        rows.push([
            change.id.into(),
            change.phase.into(),
            change.due_at.into(),
            change.token.into(),
            change.node_id.into(),
            change.attempts.into(),
            change.tries.into(),
            change.previous_failure.clone().into(),
        ]);
    }
    connection.update(rows)
}
