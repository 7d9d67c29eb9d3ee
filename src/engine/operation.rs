//! Writes as values: everything that changes state is one of these, run by `execute`.

use std::any::Any;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::core::Core;
use super::error::EngineResult;
use super::execute::Besides;
use super::files::{Descriptor, Output};
use super::receivers::Receiver;
use super::stored::StoredJob;
use crate::ids::{Key, Timestamp};
use crate::lifecycle::{Command, JobState, Submission};
use crate::store::deliveries::ClosedAttempt;
use crate::store::lanes::LaneTrouble;
use crate::store::{Operation as StoreOperation, Transaction};

/// One write.
pub enum Operation {
    /// Jobs come in.
    Submit(Submit),
    /// A node takes ready jobs.
    Claim(Claim),
    /// A command on one job.
    Apply(Apply),
    /// A node takes due deliveries.
    ClaimDeliveries(ClaimDeliveries),
    /// What an attempt came to.
    Record(Box<Record>),
    /// Anything rarer: administration, sweeps.
    Custom(Custom),
}

/// The answer to one write.
pub enum Outcome {
    /// See `Operation::Submit`.
    Submit(EngineResult<Submitted>),
    /// See `Operation::Claim`.
    Claim(ClaimedBatch),
    /// See `Operation::Apply`.
    Apply(Box<EngineResult<Applied>>),
    /// See `Operation::ClaimDeliveries`.
    ClaimDeliveries(Claimed),
    /// See `Operation::Record`.
    Record(Recorded),
    /// See `Operation::Custom`.
    Custom(EngineResult<Box<dyn Any + Send>>),
}

/// One job on its way in, complete but for its key.
pub struct Draft {
    /// Id outside.
    pub id: Uuid,
    /// What was asked.
    pub submission: Arc<Submission>,
    /// The same as JSON: what event 1 holds.
    pub json: String,
    /// Callback.
    pub receiver: Option<Arc<Receiver>>,
    /// Id of event 1.
    pub event_id: Uuid,
    /// Sealed secrets of the specification.
    pub sealed: Option<Vec<u8>>,
}

/// Which group the jobs of a submission belong to.
#[derive(Clone)]
pub enum GroupChoice {
    /// Each alone.
    Alone,
    /// One that is there already, or that the caller names first.
    Join(Uuid),
    /// A new one that nobody else can join.
    Sealed {
        /// Its id.
        id: Uuid,
        /// Gets `group.completed`.
        receiver: Option<Arc<Receiver>>,
    },
}

/// An idempotency key with what it must be used for.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// As the caller gave it.
    pub key: String,
    /// Of method, path and body.
    pub hash: String,
}

/// See `Operation::Submit`.
pub struct Submit {
    /// Owner.
    pub application: Key,
    /// The jobs.
    pub drafts: Vec<Draft>,
    /// Their group.
    pub group: GroupChoice,
    /// The caller's key.
    pub idempotency: Option<Idempotency>,
    /// Endpoints that each job is announced to at most, as far as this node remembers.
    pub breadth: usize,
    /// When the request came.
    pub now: Timestamp,
    /// Ties log lines together.
    pub request_id: String,
}

impl Submit {
    /// The group that its jobs join.
    pub(super) fn joins(&self) -> Option<Uuid> {
        match self.group {
            GroupChoice::Join(id) => Some(id),
            _ => None,
        }
    }
}

/// What came of a submission.
pub enum Submitted {
    /// Committed now.
    New {
        /// Queues that have something to do.
        queues: Vec<String>,
        /// Lanes that have something to send.
        lanes: Vec<i64>,
    },
    /// Committed by an earlier request with the same key.
    Replay {
        /// job or group.
        kind: String,
        /// What it made.
        id: Uuid,
    },
}

/// See `Operation::Claim`.
pub struct Claim {
    /// Who.
    pub node: Key,
    /// For the event log.
    pub node_name: String,
    /// Queues in the order to look, with the free slots of each.
    pub queues: Vec<(String, usize)>,
    /// Jobs at most.
    pub limit: usize,
}

/// What a claim brought.
#[derive(Default)]
pub struct ClaimedBatch {
    /// To be worked on.
    pub jobs: Vec<ClaimedJob>,
    /// Lanes that have something to send.
    pub lanes: Vec<i64>,
    /// Jobs that became final instead (their deadline had passed).
    pub ended: Vec<Uuid>,
    /// Whether ready jobs were left, since these already owe as many deliveries as one transaction
    /// should.
    pub more: bool,
    /// Whether there may be more ready jobs although these are fewer than there was room for.
    pub is_partial: bool,
}

/// A job with its lease.
pub struct ClaimedJob {
    /// The job, working.
    pub job: StoredJob,
    /// Secret values of its specification.
    pub secrets: Value,
}

/// Makes a result's payload from the files that were published with it.
pub type RenderPayload = Arc<dyn Fn(&[Descriptor]) -> Box<RawValue> + Send + Sync>;

/// See `Operation::Apply`.
pub struct Apply {
    /// Which job.
    pub job: Key,
    /// What to do.
    pub command: Command,
    /// Files to publish in the same step, when the command is taken.
    pub outputs: Vec<Output>,
    /// Makes the payload once those are there; replaces the command's own.
    pub render: Option<RenderPayload>,
    /// Only for this application's job.
    pub application: Option<Key>,
    /// The job as its claim gave it, for whoever has it: what never changes need not be read again.
    pub claimed: Option<Arc<StoredJob>>,
    /// Endpoints that it is announced to at most, as far as this node remembers.
    pub breadth: usize,
}

impl Apply {
    /// A command that publishes nothing.
    pub fn new(job: Key, command: Command) -> Apply {
        Apply {
            job,
            command,
            outputs: Vec::new(),
            render: None,
            application: None,
            claimed: None,
            breadth: 0,
        }
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Applied {
    /// Id outside.
    pub id: Uuid,
    /// The job afterwards.
    pub state: JobState,
    /// Its pool of work.
    pub queue: String,
    /// Lanes that have something to send.
    pub lanes: Vec<i64>,
}

/// See `Operation::ClaimDeliveries`.
pub struct ClaimDeliveries {
    /// Who.
    pub node: Key,
    /// Lanes that may have something due.
    pub lanes: Vec<LaneWish>,
}

/// What a sender wants of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneWish {
    /// Which.
    pub lane: i64,
    /// Deliveries at most.
    pub room: usize,
    /// Whether the lane may be of an ordered endpoint.
    pub may_be_ordered: bool,
}

/// What a claim of deliveries brought.
pub struct Claimed {
    /// To be sent.
    pub owed: Vec<OwedDelivery>,
    /// Lanes on which there was more to look at than one claim may, or something ended instead: to be
    /// asked again.
    pub unfinished: Vec<i64>,
    /// Lanes on which there may be more that is due although there was room for it.
    pub partial: Vec<i64>,
}

/// A delivery with its lease and everything to send it.
pub struct OwedDelivery {
    /// Key.
    pub key: Key,
    /// Id outside.
    pub id: Uuid,
    /// Owner.
    pub application: Key,
    /// To whom.
    pub receiver: Arc<Receiver>,
    /// The `webhook-id`.
    pub event_id: Uuid,
    /// Dotted name.
    pub event_type: String,
    /// Why it is owed: see `store::deliveries::manner`.
    pub manner: i64,
    /// Of the secrets that sign it.
    pub secrets_version: i64,
    /// About what.
    pub subject: Key,
    /// Lease.
    pub token: i64,
    /// Number of this attempt.
    pub attempt: i64,
    /// Number of this try since the schedule (re)started.
    pub try_number: i64,
    /// Code of the last failure.
    pub previous_failure: Option<String>,
    /// The rendering.
    pub body: String,
    /// Lane.
    pub lane: i64,
    /// Ties log lines together.
    pub request_id: String,
    /// The job it is about, if it is about one: for log lines too.
    pub job_id: Option<Uuid>,
}

/// What becomes of a delivery after an attempt.
#[derive(Clone, Debug)]
pub enum Next {
    /// It was received.
    Delivered,
    /// It is tried again.
    Retry {
        /// When.
        due_at: Timestamp,
        /// Stable code of the failure.
        failure: String,
    },
    /// It is given up.
    End {
        /// See `store::deliveries::status`.
        status: i64,
        /// Stable code.
        reason: String,
    },
    /// It is kept for when its endpoint is enabled again.
    Hold {
        /// Stable code of the failure.
        failure: String,
    },
}

/// What an attempt says of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It failed.
    Failing,
    /// It works.
    Well,
}

/// What an attempt means for the others on its lane.
#[derive(Clone, Debug)]
pub enum LaneChange {
    /// Nothing may be tried for a while.
    Close(LaneTrouble),
    /// It works again.
    Open {
        /// Which.
        lane: i64,
        /// Grows with every change of the lane.
        number: i64,
    },
}

/// See `Operation::Record`.
#[derive(Clone, Debug)]
pub struct Record {
    /// Delivery.
    pub delivery: Key,
    /// To whom.
    pub receiver: Key,
    /// Of the receiver's row when the delivery was claimed.
    pub receiver_version: i64,
    /// About what.
    pub subject: Key,
    /// Lease.
    pub token: i64,
    /// The attempt.
    pub closed: ClosedAttempt,
    /// What follows.
    pub next: Next,
    /// Whether a callback wants nothing more: that ends the rest of its job's deliveries.
    pub receiver_gone: bool,
    /// Why the endpoint is disabled by this attempt, if it is.
    pub disable: Option<&'static str>,
    /// What it says of the endpoint, unless that is known.
    pub health: Option<Health>,
    /// What it means for its lane, if anything changes.
    pub lane: Option<LaneChange>,
    /// Whether others may stand behind it.
    pub is_in_order: bool,
}

impl Record {
    /// Whether anything follows from it.
    fn is_plain(&self) -> bool {
        matches!(self.next, Next::Delivered)
            && !self.is_in_order
            && !self.receiver_gone
            && self.disable.is_none()
            && self.health.is_none()
            && self.lane.is_none()
    }
}

/// What came of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Whether the lease still held. If not, nothing was written.
    pub held: bool,
    /// Lanes that have something to send now.
    pub lanes: Vec<i64>,
}

/// Runs inside the writer; must refuse before it writes, since refusals are not undone, and must not
/// refuse what it finds done by itself in a transaction that `is_repeated`.
pub type CustomRun = Box<
    dyn Fn(&mut Transaction<'_>, &Core, Timestamp) -> EngineResult<Box<dyn Any + Send>>
        + Send
        + Sync,
>;

/// See `Operation::Custom`.
pub struct Custom {
    /// Hashes of what it changes.
    pub subjects: Vec<u64>,
    /// The work.
    pub run: CustomRun,
}

/// A hash that names a subject of a kind among operations.
pub fn subject(kind: &str, id: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    kind.hash(&mut hasher);
    id.hash(&mut hasher);
    hasher.finish()
}

impl StoreOperation for Operation {
    type Outcome = Outcome;
    type Aside = Besides;

    fn subjects(&self, add: &mut dyn FnMut(u64)) {
        match self {
            Operation::Submit(submit) => {
                if let Some(idempotency) = &submit.idempotency {
                    add(subject("idempotency", (submit.application, &idempotency.key)));
                }
                if let Some(id) = submit.joins() {
                    add(subject("group", id));
                }
            }
            // One at a time: a second one would find only what the first one had no room for.
            Operation::Claim(_) => add(subject("claim", 0)),
            Operation::Apply(apply) => add(subject("job", apply.job)),
            Operation::ClaimDeliveries(claim) => {
                claim.lanes.iter().for_each(|wish| add(subject("lane", wish.lane)));
            }
            Operation::Record(record) => {
                add(subject("delivery", record.delivery));
                if record.disable.is_some() {
                    add(subject("endpoint", record.receiver));
                }
                if record.receiver_gone {
                    add(subject("deliveries of", record.subject));
                }
            }
            Operation::Custom(custom) => custom.subjects.iter().for_each(|hash| add(*hash)),
        }
    }

    fn weight(&self) -> usize {
        match self {
            Operation::Submit(submit) => submit.drafts.len().max(1) * (1 + submit.breadth),
            Operation::Claim(claim) => claim.limit.max(1),
            Operation::Apply(apply) => 1 + apply.outputs.len() + apply.breadth,
            Operation::ClaimDeliveries(claim) => claim.lanes.iter().map(|wish| wish.room).sum(),
            Operation::Record(_) => 1,
            Operation::Custom(_) => 4,
        }
    }

    fn may_wait(&self) -> bool {
        matches!(self, Operation::Record(record) if record.is_plain())
    }
}
