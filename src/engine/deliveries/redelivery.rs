//! Deliveries that somebody asks for again, one or all that a filter means, and those that are given
//! up.

use std::collections::HashMap;

use uuid::Uuid;

use super::{DeliveryFilter, Engine};
use crate::engine::callers::Caller;
use crate::engine::error::{EngineError, EngineResult};
use crate::engine::operation::subject;
use crate::engine::record::follow;
use crate::ids::{Key, Timestamp};
use crate::store::deliveries;
use crate::store::deliveries::{LiveChange, LiveRow, manner, phase, status};

impl Engine {
    /// Owes a delivery again, from the start of its schedule: an ended one outside any order, one
    /// that holds up its endpoint in its place.
    pub async fn redeliver(&self, caller: &Caller, id: Uuid) -> EngineResult<()> {
        let key = self.own_delivery(caller, id).await?.id;
        let (again, lanes) = self.owe_again(vec![key]).await?;
        self.bells.ring_lanes(&lanes);
        match again {
            Again { owed: 1.., .. } => Ok(()),
            Again { live: 1.., .. } => Err(EngineError::DeliveryLive(id)),
            _ => Err(EngineError::ReceiverDeleted(id)),
        }
    }

    /// Gives up a delivery that holds up its endpoint, and goes on behind it.
    pub async fn skip_delivery(&self, caller: &Caller, id: Uuid) -> EngineResult<()> {
        let key = self.own_delivery(caller, id).await?.id;
        let lanes = self
            .custom(vec![subject("delivery", key)], move |transaction, _, now| {
                let row = deliveries::hold(transaction, &[key])?.into_iter().next();
                if row.is_none() && transaction.is_repeated() {
                    let ended = deliveries::find(transaction, id)?;
                    if ended.is_some_and(|ended| ended.reason.as_deref() == Some(SKIPPED)) {
                        return Ok(Vec::new());
                    }
                }
                let row = row
                    .filter(|row| row.phase == phase::BLOCKING)
                    .ok_or(EngineError::NotBlocking(id))?;
                let ended = row.ended(status::EXHAUSTED, Some(SKIPPED.to_owned()), now.0);
                let mut lanes = Vec::new();
                follow(transaction, &row, now, &mut lanes)?;
                deliveries::end(transaction, &[ended])?;
                deliveries::unblock(transaction, key, row.receiver_id)?;
                Ok(lanes)
            })
            .await?;
        self.bells.ring_lanes(&lanes);
        Ok(())
    }

    /// Owes deliveries again that a filter means, newest first, behind the one that was owed at a
    /// time with a key; with `dry_run` they are only counted.
    pub async fn redeliver_matching(
        &self,
        caller: &Caller,
        filter: &DeliveryFilter,
        before: (i64, Key),
        dry_run: bool,
    ) -> EngineResult<BulkRedelivery> {
        let among = self.among(caller, filter).await?;
        let mut done = BulkRedelivery { next: Some(before), ..BulkRedelivery::default() };
        for _ in 0..MOST_PAGES {
            let Some(before) = done.next.filter(|_| done.matched < MOST_REDELIVERED) else { break };
            let limit = MOST_REDELIVERED - done.matched;
            let (rows, next) = self.scan_deliveries(filter, among, before, limit).await?;
            done.matched += rows.len();
            done.next = next;
            let keys: Vec<Key> = rows.iter().map(|row| row.id).collect();
            if !dry_run && !keys.is_empty() {
                let (again, lanes) = self.owe_again(keys).await?;
                self.bells.ring_lanes(&lanes);
                done.redelivered += again.owed;
                done.still_owed += again.live;
                done.gone += rows.len() - again.owed - again.live;
            }
        }
        Ok(done)
    }

    async fn owe_again(&self, keys: Vec<Key>) -> EngineResult<(Again, Vec<i64>)> {
        let mut subjects: Vec<u64> = keys.iter().map(|key| subject("delivery", key)).collect();
        // Like a page of a replay it holds many rows: two such in one transaction could each hold
        // what another transaction's two want.
        subjects.push(subject("owed again", 0));
        self.custom(subjects, move |transaction, _, now| {
            // First what is live, and then its lasting row, as whoever records a try holds them.
            let live: HashMap<Key, LiveRow> = deliveries::hold(transaction, &keys)?
                .into_iter()
                .map(|row| (row.id, row))
                .collect();
            let routes = deliveries::hold_lasting(transaction, &keys)?;
            let (mut lanes, mut again, mut blocking) = (Vec::new(), Vec::new(), Vec::new());
            let mut owed = 0;
            for route in &routes {
                match live.get(&route.id) {
                    // Somebody has owed it again since.
                    None if route.status == status::LIVE => continue,
                    None => deliveries::revive(transaction, route, manner::REDELIVERY, now.0)?,
                    Some(row) if row.phase == phase::BLOCKING => {
                        blocking.push(row);
                        again.push(from_the_start(row, now));
                    }
                    // An earlier run of this request, whose commit got no answer.
                    Some(row) if transaction.is_repeated() && is_owed_again(row) => {}
                    Some(_) => continue,
                }
                owed += 1;
                if !lanes.contains(&route.lane) {
                    lanes.push(route.lane);
                }
            }
            deliveries::update_live(transaction, &again)?;
            blocking.sort_by_key(|row| row.receiver_id);
            for row in blocking {
                deliveries::unblock(transaction, row.id, row.receiver_id)?;
            }
            Ok((Again { owed, live: routes.len() - owed }, lanes))
        })
        .await
    }
}

fn from_the_start(row: &LiveRow, now: Timestamp) -> LiveChange {
    LiveChange { tries: 0, ..row.moved(phase::WAITING, now.0, None) }
}

/// Whether somebody has asked for it, as far as the row tells.
fn is_owed_again(row: &LiveRow) -> bool {
    let from_the_start = row.phase == phase::WAITING && row.tries == 0;
    row.manner == manner::REDELIVERY || (row.track.is_some() && from_the_start)
}

/// What became of deliveries that were to be owed again; the rest is not there any more, or its
/// endpoint is not.
struct Again {
    owed: usize,
    /// They were owed already.
    live: usize,
}

/// Why a delivery ended that held up its endpoint.
const SKIPPED: &str = "skipped";
/// Deliveries that one call owes again at most.
const MOST_REDELIVERED: usize = 10_000;
/// Pages that one call looks through at most.
const MOST_PAGES: usize = 200;

/// What a bulk redelivery came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulkRedelivery {
    /// Meant by the filter.
    pub matched: usize,
    /// Owed again now.
    pub redelivered: usize,
    /// Left out because they were owed already.
    pub still_owed: usize,
    /// Left out because their endpoint is deleted, or they have been purged.
    pub gone: usize,
    /// Where to go on, when there was more to look through.
    pub next: Option<(i64, Key)>,
}
