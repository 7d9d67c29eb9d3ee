//! Retention of the feed: chunks of whose events nothing is left go.
//!
//! Looks by reading and writes only what goes. What is kept by a job that took long, by a file or
//! by a delivery nobody can send costs a look once in a while and not every minute.

use super::Engine;
use crate::engine::error::EngineResult;
use crate::engine::operation::subject;
use crate::ids::{Key, Timestamp};
use crate::store::feed::keeping::{Ages, OldChunks, old_chunks, remove};

/// Chunks that one step looks at.
const STEP_CHUNKS: i64 = 500;
/// Events in old ones after which it ends.
const STEP_EVENTS: i64 = 5_000;
/// Steps in a row with nothing old enough that end a pass. Writers draw keys in blocks, so keys
/// tell the order of chunks only roughly.
const FRESH_STEPS: usize = 40;
/// For this long after it became old a chunk is looked at in every pass: its jobs ended later than
/// it was made.
const SETTLING_MILLIS: i64 = 60 * 60 * 1_000;
/// How often a pass begins with the first chunk again.
const WHOLE_MILLIS: i64 = 6 * 60 * 60 * 1_000;

/// How far the passes of a process over the feed have come.
#[derive(Debug, Default)]
pub struct FeedPasses {
    /// Behind which chunk the next one starts, unless it is a whole one.
    start: Key,
    /// When the last one began that looked at all.
    whole_at: Option<Timestamp>,
    under_way: Option<Pass>,
}

#[derive(Debug)]
struct Pass {
    began: Timestamp,
    is_whole: bool,
    cursor: Key,
    fresh: usize,
    unsettled: Option<Key>,
}

/// One step of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedStep {
    /// Chunks that were looked at.
    pub looked_at: usize,
    /// Chunks that went.
    pub purged: usize,
    /// Whether this was the last step of the pass.
    pub done: bool,
}

impl FeedPasses {
    fn next_pass(&self, now: Timestamp) -> Pass {
        let is_whole = self.whole_at.is_none_or(|at| at.plus_millis(WHOLE_MILLIS) <= now);
        let cursor = if is_whole { 0 } else { self.start };
        Pass { began: now, is_whole, cursor, fresh: 0, unsettled: None }
    }

    /// Takes note of what a step found; whether it was the last one.
    fn learn(&mut self, mut pass: Pass, found: &OldChunks) -> bool {
        pass.unsettled = pass.unsettled.or(found.unsettled);
        pass.fresh = if found.fresh { pass.fresh + 1 } else { 0 };
        if let Some(next) = found.next.filter(|_| pass.fresh < FRESH_STEPS) {
            pass.cursor = next;
            self.under_way = Some(pass);
            return false;
        }
        self.start = pass.unsettled.map_or(pass.cursor, |first| first - 1);
        if pass.is_whole {
            self.whole_at = Some(pass.began);
        }
        true
    }
}

impl Engine {
    /// One step over the chunks of the feed that were made before a time. A pass that fails begins
    /// anew.
    pub async fn purge_feed(
        &self,
        before: Timestamp,
        passes: &mut FeedPasses,
    ) -> EngineResult<FeedStep> {
        let pass = passes.under_way.take().unwrap_or_else(|| passes.next_pass(self.now()));
        let cursor = pass.cursor;
        let ages = Ages { before: before.0, settled: before.plus_millis(-SETTLING_MILLIS).0 };
        let look = move |connection: &mut crate::store::Connection| {
            old_chunks(connection, ages, cursor, STEP_CHUNKS, STEP_EVENTS)
        };
        let found = self.store.read(look).await?;
        let gone = found.gone.clone();
        let purged = if gone.is_empty() {
            0
        } else {
            self.custom(vec![subject("retention", 0)], move |transaction, _, _| {
                Ok(remove(transaction, &gone)?)
            })
            .await?
        };
        let done = passes.learn(pass, &found);
        Ok(FeedStep { looked_at: found.looked_at, purged, done })
    }
}
