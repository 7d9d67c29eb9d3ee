//! The feed of all events of an application, in the order of their commits.
//!
//! A transaction writes one chunk for each application it appended events of. On SQLite, which has
//! one writer, the chunk gets its place at once; on Postgres a relay gives places to chunks that
//! are committed, one relay at a time. Readers see only chunks with a place, so nothing ever comes
//! in behind them. Within a subject the order of chunks is that of its events: `drawn` grows while
//! the subject is held.

pub mod keeping;

use std::collections::{BTreeMap, HashMap};

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable};

use super::connection::Connection;
use super::error::{StoreError, StoreResult};
use super::location::Backend;
use super::rows::{Column, Kind, OnConflict, Rows};
use super::statement::Statement;
use crate::ids::Key;
use crate::lifecycle::EventType;

/// One event in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// What it is about.
    pub subject: Key,
    /// 1, 2, 3 … of that subject.
    pub sequence: i64,
    /// Its type; none when it is of a later version of this program.
    pub event_type: Option<EventType>,
}

/// Bytes of one member: two numbers and the place of its type among all types.
const WIDTH: usize = 17;

fn write(members: &[Member]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(members.len() * WIDTH);
    for member in members {
        bytes.extend(member.subject.to_le_bytes());
        bytes.extend(member.sequence.to_le_bytes());
        let number = member
            .event_type
            .and_then(|event_type| EventType::ALL.iter().position(|known| *known == event_type));
        bytes.push(number.and_then(|number| u8::try_from(number).ok()).unwrap_or(u8::MAX));
    }
    bytes
}

fn read(bytes: &[u8]) -> StoreResult<Vec<Member>> {
    let corrupt = || StoreError::Corrupt("a chunk of the feed is cut off".to_owned());
    if !bytes.len().is_multiple_of(WIDTH) {
        return Err(corrupt());
    }
    let number = |bytes: &[u8]| bytes.try_into().map(i64::from_le_bytes).map_err(|_| corrupt());
    bytes
        .chunks_exact(WIDTH)
        .map(|one| {
            let (subject, rest) = one.split_at(8);
            let (sequence, kind) = rest.split_at(8);
            let kind = kind.first().map(|kind| usize::from(*kind));
            Ok(Member {
                subject: number(subject)?,
                sequence: number(sequence)?,
                event_type: kind.and_then(|kind| EventType::ALL.get(kind)).copied(),
            })
        })
        .collect()
}

/// Events of one application that were appended together.
#[derive(Debug, Clone)]
pub struct NewChunk {
    /// Key.
    pub id: Key,
    /// Whose.
    pub application: Key,
    /// When.
    pub created_at: i64,
    /// In the order of appending.
    pub members: Vec<Member>,
    /// Whether deliveries wait for the places.
    pub awaited: bool,
}

#[derive(QueryableByName)]
struct Position {
    #[diesel(sql_type = BigInt)]
    position: i64,
}

const NEW_CHUNK: &[Column] = &[
    ("id", Kind::Int),
    ("application_id", Kind::Int),
    ("created_at", Kind::Int),
    ("size", Kind::Int),
    ("members", Kind::Bytes),
    ("awaited", Kind::Int),
    ("position", Kind::Int),
];

/// Appends a chunk; the place of its first event, where it has one at once.
pub fn append(connection: &mut Connection, chunk: &NewChunk) -> StoreResult<Option<i64>> {
    let size = i64::try_from(chunk.members.len()).unwrap_or(i64::MAX);
    let position = match connection.backend() {
        Backend::Sqlite => Some(advance(connection, chunk.application, size)?),
        Backend::Postgres => None,
    };
    let mut rows = Rows::new("feed_chunks", NEW_CHUNK);
    rows.push([
        chunk.id.into(),
        chunk.application.into(),
        chunk.created_at.into(),
        size.into(),
        write(&chunk.members).into(),
        chunk.awaited.into(),
        position.into(),
    ]);
    connection.insert(rows, OnConflict::Fail)?;
    Ok(position)
}

/// Takes the next `size` places of an application; the first of them.
fn advance(connection: &mut Connection, application: Key, size: i64) -> StoreResult<i64> {
    let sql = "INSERT INTO feed_heads (application_id, position) VALUES (?, ?) \
               ON CONFLICT (application_id) DO UPDATE \
               SET position = feed_heads.position + excluded.position RETURNING position";
    let row = connection.first::<Position>(Statement::new(sql).bind(application).bind(size))?;
    row.map(|row| row.position - size + 1)
        .ok_or_else(|| StoreError::Corrupt("the feed has no head".to_owned()))
}

/// How many places an application has given out.
pub fn head(connection: &mut Connection, application: Key) -> StoreResult<i64> {
    let sql = "SELECT position FROM feed_heads WHERE application_id = ?";
    let row = connection.first::<Position>(Statement::new(sql).bind(application))?;
    Ok(row.map_or(0, |row| row.position))
}

/// A chunk that has its place.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Place of the first event.
    pub position: i64,
    /// In order.
    pub members: Vec<Member>,
}

/// Whether this transaction is the relay until it ends.
pub fn become_relay(connection: &mut Connection) -> StoreResult<bool> {
    #[derive(QueryableByName)]
    struct Name {
        #[diesel(sql_type = diesel::sql_types::Text)]
        name: String,
    }
    let sql = format!("SELECT name FROM counters WHERE name = 'feed'{}", connection.skip_locked());
    let row = connection.first::<Name>(Statement::new(sql))?;
    Ok(row.is_some_and(|row| !row.name.is_empty()))
}

/// Whether a chunk waits for its place.
pub fn is_waiting(connection: &mut Connection) -> StoreResult<bool> {
    let sql = "SELECT drawn AS position FROM feed_chunks WHERE position IS NULL LIMIT 1";
    Ok(connection.first::<Position>(Statement::new(sql))?.is_some())
}

/// What the relay has placed.
pub struct PlacedChunks {
    /// How many.
    pub chunks: i64,
    /// Events in them.
    pub events: i64,
    /// Those for whose places deliveries wait.
    pub awaited: Vec<Chunk>,
}

/// Gives committed chunks their places, in the order in which they were drawn: at most `chunks`, and
/// none behind those that hold `events` together. Only for the relay.
pub fn place_waiting(
    connection: &mut Connection,
    chunks: i64,
    events: i64,
) -> StoreResult<PlacedChunks> {
    #[derive(QueryableByName)]
    struct Waiting {
        #[diesel(sql_type = BigInt)]
        id: i64,
        #[diesel(sql_type = BigInt)]
        application_id: i64,
        #[diesel(sql_type = BigInt)]
        size: i64,
        #[diesel(sql_type = Nullable<Binary>)]
        awaited_members: Option<Vec<u8>>,
    }
    let sql = "SELECT id, application_id, size, \
               CASE WHEN awaited = 1 THEN members END AS awaited_members FROM feed_chunks \
               WHERE id IN (SELECT id FROM (SELECT id, \
               CAST(SUM(size) OVER (ORDER BY drawn) AS BIGINT) - size AS before \
               FROM (SELECT id, size, drawn FROM feed_chunks WHERE position IS NULL \
               ORDER BY drawn LIMIT ?) AS waiting) AS counted WHERE before < ?) ORDER BY drawn";
    let rows = connection.load::<Waiting>(Statement::new(sql).bind(chunks).bind(events))?;
    // One statement for the head of an application, however many of its chunks there are.
    let mut sizes: BTreeMap<Key, i64> = BTreeMap::new();
    for row in &rows {
        *sizes.entry(row.application_id).or_default() += row.size;
    }
    let mut next = HashMap::new();
    for (application, size) in sizes {
        next.insert(application, advance(connection, application, size)?);
    }
    let mut places = Rows::keyed("feed_chunks", 1, &[("id", Kind::Int), ("position", Kind::Int)]);
    let mut placed = PlacedChunks { chunks: 0, events: 0, awaited: Vec::new() };
    for row in rows {
        let position = next.entry(row.application_id).or_insert(0);
        places.push([row.id.into(), (*position).into()]);
        if let Some(bytes) = row.awaited_members {
            placed.awaited.push(Chunk { position: *position, members: read(&bytes)? });
        }
        *position += row.size;
        placed.chunks += 1;
        placed.events += row.size;
    }
    connection.update(places)?;
    Ok(placed)
}

/// The place where the chunk begins that holds a place, or the last one before it.
pub fn chunk_at(connection: &mut Connection, application: Key, position: i64) -> StoreResult<i64> {
    let sql = "SELECT position FROM feed_chunks WHERE application_id = ? AND position <= ? \
               ORDER BY position DESC LIMIT 1";
    let row = connection.first::<Position>(Statement::new(sql).bind(application).bind(position))?;
    Ok(row.map_or(0, |row| row.position))
}

/// Chunks of an application that begin at a place or behind it, in order.
pub fn chunks_from(
    connection: &mut Connection,
    application: Key,
    from: i64,
    limit: i64,
) -> StoreResult<Vec<Chunk>> {
    #[derive(QueryableByName)]
    struct ChunkRow {
        #[diesel(sql_type = BigInt)]
        position: i64,
        #[diesel(sql_type = Binary)]
        members: Vec<u8>,
    }
    let sql = "SELECT position, members FROM feed_chunks \
               WHERE application_id = ? AND position >= ? ORDER BY position LIMIT ?";
    let statement = Statement::new(sql).bind(application).bind(from).bind(limit);
    let chunk = |row: ChunkRow| Ok(Chunk { position: row.position, members: read(&row.members)? });
    connection.load::<ChunkRow>(statement)?.into_iter().map(chunk).collect()
}

/// The place before the first event that may have happened since a time.
pub fn before_time(connection: &mut Connection, application: Key, since: i64) -> StoreResult<i64> {
    let sql = "SELECT MIN(position) AS position FROM (SELECT position FROM feed_chunks \
               WHERE application_id = ? AND created_at >= ? AND position IS NOT NULL \
               ORDER BY created_at LIMIT 100) AS found";
    #[derive(QueryableByName)]
    struct Least {
        #[diesel(sql_type = Nullable<BigInt>)]
        position: Option<i64>,
    }
    let found = connection.first::<Least>(Statement::new(sql).bind(application).bind(since))?;
    match found.and_then(|row| row.position) {
        Some(position) => Ok(position - 1),
        None => head(connection, application),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_survive_being_written_and_read() {
        let members: Vec<Member> = EventType::ALL
            .iter()
            .enumerate()
            .map(|(number, event_type)| Member {
                subject: i64::MAX - number as i64,
                sequence: number as i64,
                event_type: Some(*event_type),
            })
            .collect();
        assert_eq!(read(&write(&members)).unwrap(), members);
        assert!(read(&[0; 16]).is_err());
        let later = [[1; 16].as_slice(), &[200]].concat();
        assert_eq!(read(&later).unwrap()[0].event_type, None);
    }
}
