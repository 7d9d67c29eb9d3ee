//! What only the database knows of lanes: which have something due, what their last owners left, what
//! other nodes are sending.
//!
//! Claims nothing and sends nothing.

use super::Dispatcher;
use crate::engine::{EngineResult, FoundLanes};
use crate::ids::Timestamp;

impl Dispatcher {
    /// Looks for lanes with something due; when the next one will have something.
    pub async fn look(&self) -> EngineResult<Option<Timestamp>> {
        let FoundLanes { waiting, fresh } = self.engine.look_for_lanes().await?;
        let troubled = self.lanes().troubled();
        if !troubled.is_empty() {
            let troubles = self.engine.troubles_of(troubled).await?;
            self.lanes().learn_troubles(&troubles, self.engine.now());
        }
        if self.lanes().any_elsewhere() {
            self.learn_elsewhere().await?;
        }
        self.learn_changes().await?;
        let now = self.engine.now();
        let mut lanes = self.lanes();
        lanes.prune(&waiting.iter().map(|(lane, _)| *lane).collect(), now);
        lanes.mark_ordered(fresh);
        let mut next = None;
        for (lane, due) in waiting {
            if !lanes.owns(lane) {
                continue;
            }
            let at = lanes.not_before(lane).map_or(due, |closed| due.max(closed));
            if at <= now {
                lanes.mark([lane]);
            } else {
                next = Some(next.map_or(at, |known: Timestamp| known.min(at)));
            }
        }
        Ok(next)
    }

    /// Reads what the last owners of lanes left in the database, up to a gain of shards.
    pub(super) async fn take_over(&self, gain: u64) -> EngineResult<()> {
        self.learn_elsewhere().await?;
        let troubles = self.engine.troubled_lanes().await?;
        self.lanes().take_over(gain, &troubles);
        Ok(())
    }

    /// A lane whose next token is far away claims nothing, so it has to be told when its endpoint
    /// gets another limit.
    async fn learn_changes(&self) -> EngineResult<()> {
        let waiting = self.lanes().waiting_for_tokens(self.engine.now());
        if waiting.is_empty() {
            return Ok(());
        }
        let keys = waiting.iter().map(|(_, endpoint, _)| *endpoint).collect();
        let versions = self.engine.endpoint_versions(keys).await?;
        let mut lanes = self.lanes();
        for (lane, endpoint, known) in waiting {
            if versions.get(&endpoint).is_some_and(|version| *version != known) {
                lanes.outdate(lane);
            }
        }
        Ok(())
    }

    /// Reads what other nodes are sending.
    async fn learn_elsewhere(&self) -> EngineResult<()> {
        let leased = self.engine.sent_elsewhere().await?;
        self.lanes().learn_elsewhere(leased);
        Ok(())
    }
}
