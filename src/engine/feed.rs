//! The feed: every event of an application in the order of its commits, for those who pull.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use uuid::Uuid;

use super::Engine;
use super::error::{EngineError, EngineResult};
use super::operation::subject;
use super::queries::EventView;
use super::stored::{read_id, read_json};
use crate::ids::{Key, Timestamp};
use crate::lifecycle::{EventType, pattern_matches};
use crate::store::deliveries::Placed;
use crate::store::events::FeedRow;
use crate::store::feed::{self, Chunk};
use crate::store::{Backend, Connection, StoreResult, deliveries, events};

/// Chunks that get their places in one transaction at most.
const PLACED_CHUNKS: i64 = 1_000;
/// Events in them after which no more are taken: all others wait for the relay meanwhile.
const PLACED_EVENTS: i64 = 5_000;
/// Chunks that one page looks at: a page may come back short, or empty, with its next position.
const LOOKED_AT: i64 = 200;

/// Which events a reader wants.
#[derive(Clone, Debug, Default)]
pub struct FeedFilter {
    /// Patterns; none for all.
    pub types: Vec<String>,
}

impl FeedFilter {
    fn wants(&self, event_type: Option<EventType>) -> bool {
        let Some(event_type) = event_type else { return self.types.is_empty() };
        self.types.is_empty()
            || self.types.iter().any(|pattern| pattern_matches(pattern, event_type))
    }
}

/// An event with its place.
pub struct FeedEvent {
    /// 1, 2, 3 … among all of the application.
    pub position: i64,
    /// The event.
    pub event: EventView,
}

/// One page.
pub struct FeedPage {
    /// In order.
    pub events: Vec<FeedEvent>,
    /// Where the next page starts.
    pub next: i64,
    /// Whether there may be more now.
    pub more: bool,
}

/// A place in the feed and what happened there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub(super) position: i64,
    pub(super) subject: Key,
    pub(super) sequence: i64,
    pub(super) event_type: Option<EventType>,
}

/// What lies behind a place: spots in order, and the last place that was looked at.
pub(super) fn spots_after(
    connection: &mut Connection,
    application: Key,
    after: i64,
    limit: usize,
    wants: impl Fn(Option<EventType>) -> bool,
) -> StoreResult<(Vec<Spot>, i64, bool)> {
    let chunks = feed::chunks_after(connection, application, after, LOOKED_AT)?;
    let full = i64::try_from(chunks.len()).unwrap_or(i64::MAX) >= LOOKED_AT;
    let mut found = Vec::new();
    let mut next = after;
    for Chunk { position, members, .. } in chunks {
        for (position, member) in (position..).zip(members) {
            if position <= after {
                continue;
            }
            if found.len() == limit {
                return Ok((found, next, true));
            }
            next = position;
            if wants(member.event_type) {
                found.push(Spot {
                    position,
                    subject: member.subject,
                    sequence: member.sequence,
                    event_type: member.event_type,
                });
            }
        }
    }
    Ok((found, next, full))
}

fn places(chunk: &Chunk) -> impl Iterator<Item = Placed> {
    (chunk.position..).zip(&chunk.members).map(|(position, member)| Placed {
        subject: member.subject,
        sequence: member.sequence,
        position,
    })
}

impl Engine {
    /// Gives places to committed events, on Postgres; whether there may be more to do.
    pub async fn relay(&self) -> EngineResult<bool> {
        if self.backend() == Backend::Sqlite {
            return Ok(false);
        }
        if !self.store.read(feed::is_waiting).await? {
            return Ok(false);
        }
        let (chunks, events, lanes): (usize, usize, Vec<i64>) = self
            .custom(vec![subject("feed", 0)], |transaction, _, _| {
                if !feed::become_relay(transaction)? {
                    return Ok((0, 0, Vec::new()));
                }
                let chunks = feed::place_waiting(transaction, PLACED_CHUNKS, PLACED_EVENTS)?;
                let awaited: Vec<Placed> =
                    chunks.iter().filter(|chunk| chunk.awaited).flat_map(places).collect();
                let lanes = deliveries::place(transaction, &awaited)?;
                let events = chunks.iter().map(|chunk| chunk.members.len()).sum();
                Ok((chunks.len(), events, lanes.into_iter().collect()))
            })
            .await?;
        if chunks > 0 {
            self.bells.feed.notify_waiters();
        }
        self.bells.ring_lanes(&lanes);
        let reached = |count, most| i64::try_from(count).unwrap_or(i64::MAX) >= most;
        Ok(reached(chunks, PLACED_CHUNKS) || reached(events, PLACED_EVENTS))
    }

    /// The newest place of an application's feed.
    pub async fn feed_head(&self, application: Key) -> EngineResult<i64> {
        Ok(self.store.read(move |connection| feed::head(connection, application)).await?)
    }

    /// Events of an application behind a place. A place beyond the newest is refused: it is of
    /// another feed, and what comes up to there would be missed.
    pub async fn feed_page(
        &self,
        application: Key,
        after: i64,
        filter: &FeedFilter,
        limit: usize,
    ) -> EngineResult<FeedPage> {
        let filter = filter.clone();
        let (head, page) = self
            .store
            .read(move |connection| {
                connection.snapshot(|connection| {
                    let head = feed::head(connection, application)?;
                    let wants = |event_type| filter.wants(event_type);
                    let (spots, next, more) =
                        spots_after(connection, application, after, limit, wants)?;
                    let pairs: Vec<(Key, i64)> =
                        spots.iter().map(|spot| (spot.subject, spot.sequence)).collect();
                    let rows = events::load(connection, &pairs)?;
                    Ok((head, (spots, rows, next, more)))
                })
            })
            .await?;
        if after < 0 || after > head {
            return Err(EngineError::BeyondFeed { given: after, head });
        }
        let (spots, rows, next, more) = page;
        let mut by_place: HashMap<(Key, i64), FeedRow> =
            rows.into_iter().map(|row| ((row.subject_id, row.sequence), row)).collect();
        let mut events = Vec::with_capacity(spots.len());
        for spot in spots {
            // What retention has removed leaves its place empty.
            if let Some(row) = by_place.remove(&(spot.subject, spot.sequence)) {
                events.push(FeedEvent { position: spot.position, event: event_view(row)? });
            }
        }
        Ok(FeedPage { events, next, more })
    }

    /// Tells those who follow the feed of what has just been committed.
    pub(super) fn tell_news(core: &super::Core, bells: &super::Bells) {
        if core.has_news.swap(false, Relaxed) {
            bells.relay.notify_one();
            bells.feed.notify_waiters();
        }
    }

    /// Removes old chunks of the feed behind a key of whose events nothing is left.
    pub async fn purge_feed(
        &self,
        before: Timestamp,
        after: Key,
    ) -> EngineResult<(usize, Option<Key>)> {
        self.custom(vec![subject("retention", 0)], move |transaction, _, _| {
            let page = feed::purge(transaction, before.0, after, 200)?;
            Ok((page.purged, page.next))
        })
        .await
    }
}

fn event_view(row: FeedRow) -> EngineResult<EventView> {
    let subject_id = row.subject_public_id.as_deref().map(read_id).transpose()?;
    Ok(EventView {
        id: read_id(&row.public_id)?,
        subject_type: row.subject_kind,
        subject_id: subject_id.unwrap_or(Uuid::nil()),
        sequence: row.sequence,
        event_type: row.event_type,
        timestamp: Timestamp(row.at),
        data: read_json("an event", &row.data)?,
    })
}
