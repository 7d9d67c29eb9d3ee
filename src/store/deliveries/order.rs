//! The order of deliveries to one endpoint: who is first in a track, and who follows.
//!
//! Rows of an ordered endpoint come in as fresh. The owner of the lane looks at each once and puts
//! it behind its predecessor or, when there is none, makes it due. Whoever ends a row makes its
//! successor due in the same transaction.

use std::collections::{BTreeSet, HashMap};

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Nullable};

use super::live::KeyRow;
use super::{Place, phase, status};
use crate::ids::Key;
use crate::store::connection::Connection;
use crate::store::error::StoreResult;
use crate::store::rows::{Kind, Rows};
use crate::store::statement::Statement;

/// A row with its place.
#[derive(Debug, Clone, QueryableByName)]
pub struct OrderedRow {
    /// Key.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Lane.
    #[diesel(sql_type = BigInt)]
    pub lane: i64,
    /// What the order holds within.
    #[diesel(sql_type = BigInt)]
    pub track: i64,
    /// Place in it.
    #[diesel(sql_type = BigInt)]
    pub rank: i64,
    /// See [`phase`].
    #[diesel(sql_type = BigInt)]
    pub phase: i64,
}

/// Fresh rows of a lane that have their place, held for this transaction; with `of_all` only those in
/// the order of all, or only the others.
pub fn fresh(
    connection: &mut Connection,
    lane: i64,
    of_all: Option<bool>,
    limit: i64,
) -> StoreResult<Vec<OrderedRow>> {
    let chosen = match of_all {
        None => "",
        Some(true) => "AND track = 0",
        Some(false) => "AND track > 0",
    };
    let sql = format!(
        "SELECT id, lane, track, rank, phase FROM live_deliveries \
         WHERE phase = 3 AND lane = ? AND rank IS NOT NULL {chosen} ORDER BY id LIMIT ?{}",
        connection.skip_locked()
    );
    connection.load(Statement::new(sql).bind(lane).bind(limit))
}

/// What stands before a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// Nothing: the place is the first.
    None,
    /// A row that is held for this transaction, so that its end will see who follows.
    Held,
    /// A row that somebody else is just changing; to be looked at again.
    Changing,
}

/// The nearest row before a place.
pub fn predecessor(
    connection: &mut Connection,
    lane: i64,
    track: i64,
    rank: i64,
) -> StoreResult<Predecessor> {
    let sql = "SELECT id FROM live_deliveries WHERE lane = ? AND track = ? AND rank < ? \
               ORDER BY rank DESC LIMIT 1";
    let found =
        connection.first::<KeyRow>(Statement::new(sql).bind(lane).bind(track).bind(rank))?;
    let Some(row) = found else { return Ok(Predecessor::None) };
    let lock = connection.skip_locked();
    if lock.is_empty() {
        return Ok(Predecessor::Held);
    }
    let sql = format!("SELECT id FROM live_deliveries WHERE id = ?{lock}");
    let held = connection.first::<KeyRow>(Statement::new(sql).bind(row.id))?;
    Ok(if held.is_some() { Predecessor::Held } else { Predecessor::Changing })
}

/// The nearest row behind a place.
pub fn successor(
    connection: &mut Connection,
    lane: i64,
    track: i64,
    rank: i64,
) -> StoreResult<Option<OrderedRow>> {
    let sql = "SELECT id, lane, track, rank, phase FROM live_deliveries \
               WHERE lane = ? AND track = ? AND rank > ? ORDER BY rank LIMIT 1";
    connection.first(Statement::new(sql).bind(lane).bind(track).bind(rank))
}

/// Puts rows that are still fresh or behind into another phase, due at a time.
pub fn advance(
    connection: &mut Connection,
    keys: &[Key],
    to: i64,
    due_at: i64,
) -> StoreResult<usize> {
    let mut moved = 0;
    for key in keys {
        let sql =
            "UPDATE live_deliveries SET phase = ?, due_at = ? WHERE id = ? AND phase IN (3, 4)";
        let statement = Statement::new(sql).bind(to).bind(due_at).bind(*key);
        moved += connection.execute(statement)?;
    }
    Ok(moved)
}

/// Puts rows into a phase, due at a time. They are held in this transaction.
pub fn set_phases(connection: &mut Connection, changes: &[(Key, i64, i64)]) -> StoreResult<()> {
    let mut rows = Rows::keyed(
        "live_deliveries",
        1,
        &[("id", Kind::Int), ("phase", Kind::Int), ("due_at", Kind::Int)],
    );
    for (key, phase, due_at) in changes {
        rows.push([(*key).into(), (*phase).into(), (*due_at).into()]);
    }
    connection.update(rows)
}

#[derive(QueryableByName)]
struct Lane {
    #[diesel(sql_type = BigInt)]
    lane: i64,
}

/// Lanes with fresh rows, found by stepping from lane to lane.
pub fn fresh_lanes(connection: &mut Connection) -> StoreResult<Vec<i64>> {
    let sql = "WITH RECURSIVE t (lane) AS ( \
               SELECT MIN(lane) FROM live_deliveries WHERE phase = 3 \
               UNION ALL \
               SELECT (SELECT MIN(lane) FROM live_deliveries d WHERE d.phase = 3 AND d.lane > t.lane) \
               FROM t WHERE t.lane IS NOT NULL) SELECT t.lane FROM t WHERE t.lane IS NOT NULL";
    let rows = connection.load::<Lane>(Statement::new(sql))?;
    Ok(rows.into_iter().map(|row| row.lane).collect())
}

/// The first row of each track behind a lane and track, up to those of a lane, in order. Steps from
/// track to track in the index, so a long track costs no more than a short one.
pub fn heads(
    connection: &mut Connection,
    after: (i64, i64),
    last_lane: i64,
    limit: usize,
) -> StoreResult<Vec<OrderedRow>> {
    let sql = "WITH RECURSIVE t (id, number) AS ( \
               SELECT (SELECT d.id FROM live_deliveries d WHERE d.rank IS NOT NULL \
               AND (d.lane, d.track) > (?, ?) AND d.lane <= ? \
               ORDER BY d.lane, d.track, d.rank LIMIT 1), 1 \
               UNION ALL \
               SELECT (SELECT d.id FROM live_deliveries d WHERE d.rank IS NOT NULL \
               AND (d.lane, d.track) > (p.lane, p.track) AND d.lane <= ? \
               ORDER BY d.lane, d.track, d.rank LIMIT 1), t.number + 1 \
               FROM t JOIN live_deliveries p ON p.id = t.id WHERE t.number < ?) \
               SELECT l.id, l.lane, l.track, l.rank, l.phase FROM t \
               JOIN live_deliveries l ON l.id = t.id";
    let statement = Statement::new(sql).bind(after.0).bind(after.1).bind(last_lane);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows: Vec<OrderedRow> = connection.load(statement.bind(last_lane).bind(limit))?;
    rows.sort_by_key(|row| (row.lane, row.track));
    Ok(rows)
}

/// Makes a row fresh that waits behind nobody, if it still does; how many that are.
pub fn free(connection: &mut Connection, delivery: Key) -> StoreResult<usize> {
    let sql = "UPDATE live_deliveries SET phase = 3 WHERE id = ? AND phase = 4 AND NOT EXISTS (\
               SELECT 1 FROM live_deliveries p WHERE p.lane = live_deliveries.lane \
               AND p.track = live_deliveries.track AND p.rank < live_deliveries.rank)";
    connection.execute(Statement::new(sql).bind(delivery))
}

/// Gives rows that are held in this transaction another place in the order, or none.
pub fn put_in_place(
    connection: &mut Connection,
    places: &[(Key, Option<Place>)],
) -> StoreResult<()> {
    let columns = &[("id", Kind::Int), ("track", Kind::Int), ("rank", Kind::Int)];
    let mut rows = Rows::keyed("live_deliveries", 1, columns);
    for (key, place) in places {
        let rank = place.and_then(|place| place.rank);
        rows.push([(*key).into(), place.map(|place| place.track).into(), rank.into()]);
    }
    connection.update(rows)
}

/// Whether anything on a lane has a place in the order of all, and in the order of a subject.
pub fn orders(connection: &mut Connection, lane: i64) -> StoreResult<(bool, bool)> {
    #[derive(QueryableByName)]
    struct Orders {
        #[diesel(sql_type = Nullable<BigInt>)]
        of_all: Option<i64>,
        #[diesel(sql_type = Nullable<BigInt>)]
        of_subjects: Option<i64>,
    }
    let sql = "SELECT (SELECT id FROM live_deliveries WHERE lane = ? AND track = 0 \
               AND rank IS NOT NULL LIMIT 1) AS of_all, \
               (SELECT id FROM live_deliveries WHERE lane = ? AND track > 0 \
               AND rank IS NOT NULL LIMIT 1) AS of_subjects";
    let found = connection.first::<Orders>(Statement::new(sql).bind(lane).bind(lane))?;
    Ok(found.map_or((false, false), |row| (row.of_all.is_some(), row.of_subjects.is_some())))
}

/// Whether a delivery goes to a strict endpoint.
pub fn is_to_strict(connection: &mut Connection, delivery: Key) -> StoreResult<bool> {
    let sql = "SELECT r.id FROM live_deliveries l JOIN receivers r ON r.id = l.receiver_id \
               WHERE l.id = ? AND r.ordering = 'strict'";
    Ok(connection.first::<KeyRow>(Statement::new(sql).bind(delivery))?.is_some())
}

/// An event with its place in the feed.
#[derive(Debug, Clone, Copy)]
pub struct Placed {
    /// What it is about.
    pub subject: Key,
    /// Which event of that.
    pub sequence: i64,
    /// Where it stands.
    pub position: i64,
}

/// Gives the deliveries of events to strict endpoints their ranks; the lanes they are on. Takes two
/// statements on Postgres, however many events there are.
pub fn place(connection: &mut Connection, events: &[Placed]) -> StoreResult<BTreeSet<i64>> {
    #[derive(QueryableByName)]
    struct Unplaced {
        #[diesel(sql_type = BigInt)]
        id: i64,
        #[diesel(sql_type = BigInt)]
        lane: i64,
        #[diesel(sql_type = BigInt)]
        subject_id: i64,
        #[diesel(sql_type = BigInt)]
        sequence: i64,
    }
    let mut sql = "SELECT l.id, l.lane, d.subject_id, d.sequence FROM @given \
                   JOIN deliveries d ON d.subject_id = given.one AND d.sequence = given.two \
                   JOIN live_deliveries l ON l.id = d.id \
                   WHERE l.track = 0 AND l.rank IS NULL ORDER BY l.id"
        .to_owned();
    let lock = connection.for_update();
    if !lock.is_empty() {
        sql.push_str(lock);
        sql.push_str(" OF l");
    }
    let pairs: Vec<(Key, i64)> = events.iter().map(|one| (one.subject, one.sequence)).collect();
    let positions: HashMap<(Key, i64), i64> =
        events.iter().map(|one| ((one.subject, one.sequence), one.position)).collect();
    let mut rows = Rows::keyed("live_deliveries", 1, &[("id", Kind::Int), ("rank", Kind::Int)]);
    let mut lanes = BTreeSet::new();
    for row in connection.load_by_pairs::<Unplaced>(&sql, &pairs)? {
        let position = positions.get(&(row.subject_id, row.sequence)).copied();
        rows.push([row.id.into(), position.into()]);
        lanes.insert(row.lane);
    }
    connection.update(rows)?;
    Ok(lanes)
}

/// Puts an exhausted delivery in its endpoint's way; whether that can be held up, and by this one.
pub fn block(connection: &mut Connection, delivery: Key, receiver: Key) -> StoreResult<bool> {
    let sql = "UPDATE receivers SET blocked_by = ? WHERE id = ? AND ordering = 'strict' \
               AND deleted_at IS NULL \
               AND discard_before <= (SELECT created_at FROM deliveries WHERE id = ?)";
    let statement = Statement::new(sql).bind(delivery).bind(receiver).bind(delivery);
    Ok(connection.execute(statement)? > 0)
}

/// Rows of a track that are looked at for another one that blocks. Those stand before all that wait,
/// and are no more than were once under way together.
const IN_THE_WAY: i64 = 1_000;

/// Takes a delivery out of its endpoint's way, behind which another may be. It blocks no more.
pub fn unblock(connection: &mut Connection, delivery: Key, receiver: Key) -> StoreResult<()> {
    let sql = "UPDATE receivers SET blocked_by = (SELECT first.id FROM (\
               SELECT l.id, l.phase, l.rank FROM live_deliveries l WHERE l.lane = receivers.lane \
               AND l.track = 0 AND l.rank IS NOT NULL ORDER BY l.rank LIMIT ?) AS first \
               WHERE first.phase = 5 ORDER BY first.rank LIMIT 1) \
               WHERE id = ? AND blocked_by = ?";
    let statement = Statement::new(sql).bind(IN_THE_WAY).bind(receiver).bind(delivery);
    connection.execute(statement)?;
    Ok(())
}

/// What becomes of a delivery that holds up its endpoint when it is given up: its last try tells
/// whether it was refused.
pub fn status_of_blocking(
    connection: &mut Connection,
    delivery: Key,
    attempt: i64,
) -> StoreResult<i64> {
    let sql = "SELECT delivery_id AS id FROM attempts WHERE delivery_id = ? AND number = ? \
               AND outcome = 'refused'";
    let refused = connection.first::<KeyRow>(Statement::new(sql).bind(delivery).bind(attempt))?;
    Ok(if refused.is_some() { status::REFUSED } else { status::EXHAUSTED })
}

/// Whether a phase is one of waiting for others.
pub fn waits_for_others(number: i64) -> bool {
    number == phase::FRESH || number == phase::BEHIND
}
