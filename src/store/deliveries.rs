//! Deliveries: the lasting row, and the live one while it is owed.
//!
//! What is asked of the live ones is in `live`, their order in `order`, the backlog of endpoints in
//! `backlog`, the tries in `attempts`, what the API shows in `shown`, how live rows are written in
//! `writing`.

mod attempts;
mod backlog;
mod live;
mod order;
mod shown;
mod writing;

pub use attempts::*;
pub use backlog::*;
pub use live::*;
pub use order::*;
pub use shown::*;
pub use writing::*;

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Nullable};

use super::connection::Connection;
use super::error::StoreResult;
use super::receivers;
use super::rows::{Column, Kind, OnConflict, Rows};
use super::statement::{Cell, Statement};
use crate::ids::Key;

/// What became of a delivery.
pub mod status {
    /// Still owed.
    pub const LIVE: i64 = 0;
    /// Received.
    pub const DELIVERED: i64 = 1;
    /// All tries used up.
    pub const EXHAUSTED: i64 = 2;
    /// The address may not be spoken to.
    pub const REFUSED: i64 = 3;
    /// Given up for a reason of its receiver or subject.
    pub const CANCELLED: i64 = 4;
}

/// Where a live delivery stands.
pub mod phase {
    /// Waits for its time.
    pub const WAITING: i64 = 0;
    /// A node sends it.
    pub const LEASED: i64 = 1;
    /// Its endpoint is disabled.
    pub const HELD: i64 = 2;
    /// Just come to an ordered endpoint.
    pub const FRESH: i64 = 3;
    /// Behind another in the order.
    pub const BEHIND: i64 = 4;
    /// Exhausted, and holding up a strict endpoint.
    pub const BLOCKING: i64 = 5;
}

/// Why a delivery is owed. All but the first stand outside the order.
pub mod manner {
    /// Its event happened.
    pub const EVENT: i64 = 0;
    /// Somebody asked for it again.
    pub const REDELIVERY: i64 = 1;
    /// Part of a replay.
    pub const REPLAY: i64 = 2;
    /// A test of one endpoint.
    pub const PING: i64 = 3;
    /// A test with an example.
    pub const TRIGGER: i64 = 4;
}

/// The track of everything that a strict endpoint is owed; others are keys of subjects.
pub const STRICT_TRACK: i64 = 0;

/// A place in an order of deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// What the order holds within: a subject, or 0 for the whole endpoint.
    pub track: i64,
    /// Known once the event has its place in the feed.
    pub rank: Option<i64>,
}

/// A delivery on its way in.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// Key.
    pub id: Key,
    /// Id outside.
    pub public_id: uuid::Uuid,
    /// Owner.
    pub application_id: Key,
    /// To whom.
    pub receiver_id: Key,
    /// Whether that is an endpoint.
    pub is_endpoint: bool,
    /// About what.
    pub subject_id: Key,
    /// Which event.
    pub sequence: i64,
    /// The event's id outside: the `webhook-id`.
    pub event_id: uuid::Uuid,
    /// Dotted name.
    pub event_type: String,
    /// See [`manner`].
    pub manner: i64,
    /// See [`phase`].
    pub phase: i64,
    /// Among those of an ordered endpoint.
    pub place: Option<Place>,
    /// Where limits and order apply.
    pub lane: i64,
    /// Ties log lines together.
    pub request_id: String,
    /// When.
    pub created_at: i64,
    /// When the first try may start.
    pub due_at: i64,
}

impl NewDelivery {
    /// The row that stands while it is owed.
    pub fn live(&self) -> LiveDelivery {
        LiveDelivery {
            id: self.id,
            lane: self.lane,
            receiver_id: self.receiver_id,
            phase: self.phase,
            due_at: self.due_at,
            token: 0,
            node_id: None,
            attempts: 0,
            tries: 0,
            manner: self.manner,
            place: self.place,
        }
    }
}

const NEW_DELIVERY: &[Column] = &[
    ("id", Kind::Int),
    ("public_id", Kind::Bytes),
    ("application_id", Kind::Int),
    ("receiver_id", Kind::Int),
    ("endpoint_id", Kind::Int),
    ("subject_id", Kind::Int),
    ("sequence", Kind::Int),
    ("event_id", Kind::Bytes),
    ("event_type", Kind::Text),
    ("manner", Kind::Int),
    ("status", Kind::Int),
    ("attempts", Kind::Int),
    ("token", Kind::Int),
    ("request_id", Kind::Text),
    ("created_at", Kind::Int),
];

/// Inserts owed deliveries.
pub fn insert(connection: &mut Connection, deliveries: &[NewDelivery]) -> StoreResult<()> {
    insert_lasting(connection, deliveries)?;
    insert_live(connection, deliveries.iter().map(NewDelivery::live))
}

/// Inserts the lasting rows of owed deliveries alone.
pub fn insert_lasting(connection: &mut Connection, deliveries: &[NewDelivery]) -> StoreResult<()> {
    let mut lasting = Rows::new("deliveries", NEW_DELIVERY);
    for delivery in deliveries {
        lasting.push([
            delivery.id.into(),
            delivery.public_id.into(),
            delivery.application_id.into(),
            delivery.receiver_id.into(),
            delivery.is_endpoint.then_some(delivery.receiver_id).into(),
            delivery.subject_id.into(),
            delivery.sequence.into(),
            delivery.event_id.into(),
            delivery.event_type.as_str().into(),
            delivery.manner.into(),
            status::LIVE.into(),
            0i64.into(),
            0i64.into(),
            delivery.request_id.as_str().into(),
            delivery.created_at.into(),
        ]);
    }
    connection.insert(lasting, OnConflict::Fail)
}

/// The end of a delivery.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Key.
    pub id: Key,
    /// See [`status`].
    pub status: i64,
    /// Attempts made.
    pub attempts: i64,
    /// Last lease.
    pub token: i64,
    /// Why, unless delivered.
    pub reason: Option<String>,
    /// When.
    pub completed_at: i64,
}

const ENDED: &[Column] = &[
    ("id", Kind::Int),
    ("status", Kind::Int),
    ("attempts", Kind::Int),
    ("token", Kind::Int),
    ("reason", Kind::Text),
    ("completed_at", Kind::Int),
];

/// Ends deliveries: their live rows go, the lasting ones tell how it ended.
pub fn end(connection: &mut Connection, ended: &[Ended]) -> StoreResult<()> {
    let mut live = Rows::keyed("live_deliveries", 1, &[("id", Kind::Int)]);
    let mut lasting = Rows::keyed("deliveries", 1, ENDED);
    for delivery in ended {
        live.push([delivery.id.into()]);
        lasting.push([
            delivery.id.into(),
            delivery.status.into(),
            delivery.attempts.into(),
            delivery.token.into(),
            delivery.reason.clone().into(),
            delivery.completed_at.into(),
        ]);
    }
    connection.delete(live)?;
    connection.update(lasting)?;
    Ok(())
}

/// Puts an ended delivery back among the live ones, outside any order, to start its schedule again:
/// it is asked for and due at `due_at`, and after whatever was discarded, whatever a clock says.
/// One that is gone, or owed by now, is left alone: a live row without its lasting one could never
/// be claimed, and would stand first in its lane for ever.
pub fn revive(
    connection: &mut Connection,
    route: &RouteRow,
    manner: i64,
    due_at: i64,
) -> StoreResult<()> {
    let sql = "UPDATE deliveries SET status = 0, reason = NULL, completed_at = NULL, manner = ?, \
               asked_at = ? WHERE id = ? AND status <> 0";
    let asked_at = due_at.max(route.discard_before);
    let statement = Statement::new(sql).bind(manner).bind(asked_at);
    if connection.execute(statement.bind(route.id))? == 0 {
        return Ok(());
    }
    let live = LiveDelivery {
        id: route.id,
        lane: route.lane,
        receiver_id: route.receiver_id,
        phase: phase::WAITING,
        due_at,
        token: route.token,
        node_id: None,
        attempts: route.attempts,
        tries: 0,
        manner,
        place: None,
    };
    insert_live(connection, std::iter::once(live))
}

/// To whom a delivery goes and on which lane, held for this transaction.
#[derive(Debug, Clone, QueryableByName)]
pub struct RouteRow {
    /// Key.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// To whom.
    #[diesel(sql_type = BigInt)]
    pub receiver_id: i64,
    /// Lane.
    #[diesel(sql_type = BigInt)]
    pub lane: i64,
    /// See [`status`].
    #[diesel(sql_type = BigInt)]
    pub status: i64,
    /// Attempts so far.
    #[diesel(sql_type = BigInt)]
    pub attempts: i64,
    /// Last lease.
    #[diesel(sql_type = BigInt)]
    pub token: i64,
    /// The receiver again when it is an endpoint.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub endpoint_id: Option<i64>,
    /// What it was owed earlier was discarded.
    #[diesel(sql_type = BigInt)]
    pub discard_before: i64,
}

/// Holds the lasting rows of deliveries, and the callbacks they go to, and tells their routes. Those
/// whose receiver has been deleted are left out.
pub fn hold_lasting(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<RouteRow>> {
    let mut routes: Vec<RouteRow> = connection.load_by_keys(
        "SELECT d.id, d.receiver_id, r.lane, d.status, d.attempts, d.token, d.endpoint_id, \
         r.discard_before \
         FROM deliveries d JOIN receivers r ON r.id = d.receiver_id \
         WHERE r.deleted_at IS NULL AND d.id @key @lock",
        "ORDER BY d.id FOR UPDATE OF d",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )?;
    // An endpoint stays while anything was ever owed to it; a callback goes when nothing is.
    let callbacks = routes.iter().filter(|route| route.endpoint_id.is_none());
    let mut callbacks: Vec<Key> = callbacks.map(|route| route.receiver_id).collect();
    callbacks.sort_unstable();
    callbacks.dedup();
    let kept = receivers::keep(connection, &callbacks)?;
    routes.retain(|route| route.endpoint_id.is_some() || kept.contains(&route.receiver_id));
    Ok(routes)
}

/// The delivery of an event to a receiver.
pub fn of_event(
    connection: &mut Connection,
    subject: Key,
    sequence: i64,
    receiver: Key,
) -> StoreResult<Option<RouteRow>> {
    let sql = "SELECT d.id, d.receiver_id, r.lane, d.status, d.attempts, d.token, d.endpoint_id, \
               r.discard_before \
               FROM deliveries d JOIN receivers r ON r.id = d.receiver_id \
               WHERE d.subject_id = ? AND d.sequence = ? AND d.receiver_id = ?";
    connection.first(Statement::new(sql).bind(subject).bind(sequence).bind(receiver))
}
