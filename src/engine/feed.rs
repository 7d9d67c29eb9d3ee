//! The feed: every event of an application in the order of its commits, for those who pull.

mod keeping;

pub use keeping::{FeedPasses, FeedStep};

use std::collections::HashMap;

use uuid::Uuid;

use super::Engine;
use super::error::{EngineError, EngineResult};
use super::operation::subject;
use super::queries::EventView;
use super::stored::read_id;
use crate::ids::Key;
use crate::lifecycle::{EventType, pattern_matches};
use crate::store::deliveries::Placed;
use crate::store::events::{EventRow, FeedRow};
use crate::store::feed::{self, Chunk};
use crate::store::{Backend, Connection, StoreResult, deliveries, events};

/// Chunks that get their places in one transaction at most.
const PLACED_CHUNKS: i64 = 1_000;
/// Events in them after which no more are taken: all others wait for the relay meanwhile.
const PLACED_EVENTS: i64 = 5_000;
/// Chunks that one page looks at: a page may come back short, or empty, with its next position.
const LOOKED_AT: i64 = 200;
/// Of those it reads so many first, since a chunk mostly holds several events, and then twice as
/// many each time.
const FIRST_SLICE: i64 = 8;

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
    let mut from = feed::chunk_at(connection, application, after.saturating_add(1))?;
    let (mut found, mut next) = (Vec::new(), after);
    let (mut left, mut slice) = (LOOKED_AT, FIRST_SLICE);
    while left > 0 {
        let asked = slice.min(left);
        let chunks = feed::chunks_from(connection, application, from, asked)?;
        let last = i64::try_from(chunks.len()).unwrap_or(i64::MAX) < asked;
        for Chunk { position, members } in chunks {
            for (position, member) in (position..).zip(members) {
                from = position.saturating_add(1);
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
        if last {
            return Ok((found, next, false));
        }
        (left, slice) = (left - asked, slice * 2);
    }
    Ok((found, next, true))
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
        let (chunks, events, lanes): (i64, i64, Vec<i64>) = self
            .custom(vec![subject("feed", 0)], |transaction, _, _| {
                if !feed::become_relay(transaction)? {
                    return Ok((0, 0, Vec::new()));
                }
                let placed = feed::place_waiting(transaction, PLACED_CHUNKS, PLACED_EVENTS)?;
                let awaited: Vec<Placed> = placed.awaited.iter().flat_map(places).collect();
                let lanes = deliveries::place(transaction, &awaited)?;
                Ok((placed.chunks, placed.events, lanes.into_iter().collect()))
            })
            .await?;
        if chunks > 0 {
            self.bells.feed.notify_waiters();
        }
        self.bells.ring_lanes(&lanes);
        Ok(chunks >= PLACED_CHUNKS || events >= PLACED_EVENTS)
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
}

fn event_view(row: FeedRow) -> EngineResult<EventView> {
    let subject_id = row.subject_public_id.as_deref().map(read_id).transpose()?;
    let row_of_subject = EventRow {
        sequence: row.sequence,
        public_id: row.public_id,
        subject_kind: row.subject_kind,
        event_type: row.event_type,
        at: row.at,
        data: row.data,
    };
    EventView::read(row_of_subject, subject_id.unwrap_or(Uuid::nil()))
}
