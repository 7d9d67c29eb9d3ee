//! What those who do the work say: what they claim, how jobs go on and end, what attempts came to.
//!
//! Each is one operation, and then the bells of what it has made ready. What happens in the transaction
//! is `claim`, `apply`, `claim_deliveries` and `record`.

use std::sync::{Arc, Weak};

use super::error::EngineResult;
use super::files::Output;
use super::operation::{
    Applied, Apply, Claim, ClaimDeliveries, ClaimedBatch, LaneWish, Operation, Outcome,
    OwedDelivery, Record, Recorded, RenderPayload,
};
use super::stored::{StoredJob, json_null};
use super::takers::{TakesDeliveries, TakesJobs};
use super::{Engine, confused};
use crate::ids::Key;
use crate::lifecycle::{Command, Status};

impl Engine {
    /// From now on jobs are offered to `taker` as soon as they are ready.
    pub fn offer_jobs(&self, taker: Weak<dyn TakesJobs>) {
        self.core.takers.set_jobs(taker);
    }

    /// From now on deliveries are offered to `taker` as soon as they are due.
    pub fn offer_deliveries(&self, taker: Weak<dyn TakesDeliveries>) {
        self.core.takers.set_deliveries(taker);
    }

    /// Takes ready jobs for this node.
    pub async fn claim(
        &self,
        queues: Vec<(String, usize)>,
        limit: usize,
    ) -> EngineResult<ClaimedBatch> {
        let claim = Claim { node: self.node, node_name: self.node_name.clone(), queues, limit };
        match self.writer.execute(Operation::Claim(claim)).await? {
            Outcome::Claim(batch) => {
                self.tell_claimed(&batch);
                Ok(batch)
            }
            _ => Err(confused()),
        }
    }

    /// Rings for what a claim of jobs has made ready besides.
    pub fn tell_claimed(&self, batch: &ClaimedBatch) {
        self.bells.ring_lanes(&batch.lanes);
        batch.ended.iter().for_each(|job| self.bells.ring_end(*job));
    }

    /// One command on one job.
    pub async fn apply(&self, job: Key, command: Command) -> EngineResult<Applied> {
        self.apply_with(Apply::new(job, command)).await
    }

    /// The same on a job of a known application.
    pub async fn apply_of(
        &self,
        application: Key,
        job: Key,
        command: Command,
    ) -> EngineResult<Applied> {
        self.apply_with(Apply { application: Some(application), ..Apply::new(job, command) }).await
    }

    /// The end of good work on a claimed job: outputs are published in the same step, and `render`
    /// makes the result's payload of them.
    pub async fn succeed(
        &self,
        job: &Arc<StoredJob>,
        outputs: Vec<Output>,
        render: RenderPayload,
    ) -> EngineResult<Applied> {
        let token = job.state.token;
        let command = Command::Succeed { token, payload: json_null() };
        self.apply_with(Apply {
            outputs,
            render: Some(render),
            claimed: Some(Arc::clone(job)),
            application: Some(job.application),
            ..Apply::new(job.key, command)
        })
        .await
    }

    pub(super) async fn apply_with(&self, mut apply: Apply) -> EngineResult<Applied> {
        if let Some(application) = apply.application {
            apply.breadth = self.core.receivers.breadth(application);
        }
        match self.writer.execute(Operation::Apply(apply)).await? {
            Outcome::Apply(result) => {
                let applied = (*result)?;
                self.bells.ring_lanes(&applied.lanes);
                match applied.state.status {
                    status if status.is_final() => self.bells.ring_end(applied.id),
                    Status::Pending => {
                        self.bells.ring_queues([applied.queue.clone()]);
                    }
                    Status::Stopping => self.bells.stops.notify_one(),
                    _ => {}
                }
                Ok(applied)
            }
            _ => Err(confused()),
        }
    }

    /// Takes due deliveries for this node.
    pub async fn claim_deliveries(&self, lanes: Vec<LaneWish>) -> EngineResult<Vec<OwedDelivery>> {
        let claim = ClaimDeliveries { node: self.node, lanes };
        match self.writer.execute(Operation::ClaimDeliveries(claim)).await? {
            Outcome::ClaimDeliveries(claimed) => {
                self.bells.ring_lanes(&claimed.unfinished);
                Ok(claimed.owed)
            }
            _ => Err(confused()),
        }
    }

    /// Records what an attempt came to.
    pub async fn record(&self, record: Record) -> EngineResult<Recorded> {
        match self.writer.execute(Operation::Record(Box::new(record))).await? {
            Outcome::Record(recorded) => {
                self.bells.ring_lanes(&recorded.lanes);
                Ok(recorded)
            }
            _ => Err(confused()),
        }
    }
}
