//! Appended facts, and their renderings for receivers.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};

use super::connection::Connection;
use super::error::StoreResult;
use super::rows::{Column, Kind, OnConflict, Rows};
use super::statement::{Cell, Statement};
use crate::ids::Key;

/// One event on its way in.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// What it is about.
    pub subject_id: Key,
    /// 1, 2, 3 … of that subject.
    pub sequence: i64,
    /// Id outside.
    pub public_id: uuid::Uuid,
    /// job, group …
    pub subject_kind: &'static str,
    /// Owner.
    pub application_id: Key,
    /// Dotted name.
    pub event_type: &'static str,
    /// When.
    pub at: i64,
    /// JSON.
    pub data: String,
}

const NEW_EVENT: &[Column] = &[
    ("subject_id", Kind::Int),
    ("sequence", Kind::Int),
    ("public_id", Kind::Bytes),
    ("subject_kind", Kind::Text),
    ("application_id", Kind::Int),
    ("type", Kind::Text),
    ("at", Kind::Int),
    ("data", Kind::Text),
];

/// Appends events. A number that is taken is an error: the subject was not held.
pub fn append(connection: &mut Connection, events: &[NewEvent]) -> StoreResult<()> {
    let mut rows = Rows::new("events", NEW_EVENT);
    for event in events {
        rows.push([
            event.subject_id.into(),
            event.sequence.into(),
            event.public_id.into(),
            event.subject_kind.into(),
            event.application_id.into(),
            event.event_type.into(),
            event.at.into(),
            event.data.as_str().into(),
        ]);
    }
    connection.insert(rows, OnConflict::Fail)?;
    Ok(())
}

/// A stored event.
#[derive(Debug, Clone, QueryableByName)]
pub struct EventRow {
    /// 1, 2, 3 …
    #[diesel(sql_type = BigInt)]
    pub sequence: i64,
    /// Id outside.
    #[diesel(sql_type = Binary)]
    pub public_id: Vec<u8>,
    /// job, group …
    #[diesel(sql_type = Text)]
    pub subject_kind: String,
    /// Dotted name.
    #[diesel(sql_type = Text)]
    pub event_type: String,
    /// When.
    #[diesel(sql_type = BigInt)]
    pub at: i64,
    /// JSON.
    #[diesel(sql_type = Text)]
    pub data: String,
}

/// Events of a subject after a number, in order.
pub fn of_subject(
    connection: &mut Connection,
    subject: Key,
    after: i64,
    limit: i64,
) -> StoreResult<Vec<EventRow>> {
    let sql = "SELECT sequence, public_id, subject_kind, type AS event_type, at, data FROM events \
               WHERE subject_id = ? AND sequence > ? ORDER BY sequence LIMIT ?";
    connection.load(Statement::new(sql).bind(subject).bind(after).bind(limit))
}

/// An event of the feed.
#[derive(Debug, Clone, QueryableByName)]
pub struct FeedRow {
    /// What it is about.
    #[diesel(sql_type = BigInt)]
    pub subject_id: i64,
    /// 1, 2, 3 …
    #[diesel(sql_type = BigInt)]
    pub sequence: i64,
    /// Id outside.
    #[diesel(sql_type = Binary)]
    pub public_id: Vec<u8>,
    /// job, group …
    #[diesel(sql_type = Text)]
    pub subject_kind: String,
    /// Id of the subject outside; null when that has been purged since.
    #[diesel(sql_type = Nullable<Binary>)]
    pub subject_public_id: Option<Vec<u8>>,
    /// Dotted name.
    #[diesel(sql_type = Text)]
    pub event_type: String,
    /// When.
    #[diesel(sql_type = BigInt)]
    pub at: i64,
    /// JSON.
    #[diesel(sql_type = Text)]
    pub data: String,
}

/// Events by subject and number, in no promised order; those that have been purged are left out.
pub fn load(connection: &mut Connection, wanted: &[(Key, i64)]) -> StoreResult<Vec<FeedRow>> {
    connection.load_by_pairs(
        "SELECT e.subject_id, e.sequence, e.public_id, e.subject_kind, \
         COALESCE(j.public_id, g.public_id, f.public_id, r.public_id) AS subject_public_id, \
         e.type AS event_type, e.at, e.data FROM @given \
         JOIN events e ON e.subject_id = given.one AND e.sequence = given.two \
         LEFT JOIN jobs j ON j.id = e.subject_id LEFT JOIN groups g ON g.id = e.subject_id \
         LEFT JOIN files f ON f.id = e.subject_id LEFT JOIN receivers r ON r.id = e.subject_id",
        wanted,
    )
}

#[derive(QueryableByName)]
struct Subject {
    #[diesel(sql_type = BigInt)]
    subject_id: i64,
}

/// Keeps retention from removing subjects until the end of this transaction; which it kept. Those
/// that retention is just at are left out, as are those that are gone.
pub fn keep(connection: &mut Connection, subjects: &[Key]) -> StoreResult<Vec<Key>> {
    firsts(connection, subjects, "FOR KEY SHARE SKIP LOCKED")
}

/// Which subjects are there, whoever is at them.
pub fn present(connection: &mut Connection, subjects: &[Key]) -> StoreResult<Vec<Key>> {
    firsts(connection, subjects, "")
}

/// Holds subjects that may be removed, so that nobody owes their events meanwhile.
pub fn hold(connection: &mut Connection, subjects: &[Key]) -> StoreResult<()> {
    firsts(connection, subjects, "ORDER BY subject_id FOR UPDATE").map(|_| ())
}

/// A subject stands and falls with its first event.
fn firsts(
    connection: &mut Connection,
    subjects: &[Key],
    lock: &'static str,
) -> StoreResult<Vec<Key>> {
    let sql = "SELECT subject_id FROM events WHERE sequence = 1 AND subject_id @key @lock";
    let keys = subjects.iter().map(|key| Cell::from(*key)).collect();
    let rows = connection.load_by_keys::<Subject>(sql, lock, keys)?;
    Ok(rows.into_iter().map(|row| row.subject_id).collect())
}

/// One rendering.
#[derive(Debug, Clone)]
pub struct NewBody {
    /// What the event is about.
    pub subject_id: Key,
    /// Which event.
    pub sequence: i64,
    /// For which delivery format.
    pub format: &'static str,
    /// As it will be sent.
    pub body: String,
}

const NEW_BODY: &[Column] = &[
    ("subject_id", Kind::Int),
    ("sequence", Kind::Int),
    ("format", Kind::Text),
    ("body", Kind::Text),
];

/// Stores renderings of new events.
pub fn insert_bodies(connection: &mut Connection, bodies: &[NewBody]) -> StoreResult<()> {
    connection.insert(rows_of(bodies), OnConflict::Fail)?;
    Ok(())
}

/// Stores renderings of events of the past; where another replay was first, its own stays.
pub fn add_bodies(connection: &mut Connection, bodies: &[NewBody]) -> StoreResult<()> {
    connection.insert(rows_of(bodies), OnConflict::Skip)?;
    Ok(())
}

fn rows_of(bodies: &[NewBody]) -> Rows {
    let mut rows = Rows::new("bodies", NEW_BODY);
    for body in bodies {
        rows.push([
            body.subject_id.into(),
            body.sequence.into(),
            body.format.into(),
            body.body.as_str().into(),
        ]);
    }
    rows
}

/// Whether an event has been rendered for a format.
pub fn has_body(
    connection: &mut Connection,
    subject: Key,
    sequence: i64,
    format: &str,
) -> StoreResult<bool> {
    #[derive(QueryableByName)]
    struct Found {
        #[diesel(sql_type = BigInt)]
        sequence: i64,
    }
    let sql = "SELECT sequence FROM bodies WHERE subject_id = ? AND sequence = ? AND format = ?";
    let statement = Statement::new(sql).bind(subject).bind(sequence).bind(format);
    Ok(connection.first::<Found>(statement)?.is_some_and(|found| found.sequence == sequence))
}
