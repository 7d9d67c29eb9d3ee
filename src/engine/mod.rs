//! The one door to state: every change of a job, group, file or delivery is a transaction here.
//!
//! A transaction holds the state change, its event and the deliveries it owes, or nothing. Nothing
//! is sent, spawned or waited for inside one; after it what was claimed is handed over and a bell is
//! rung. Must not know HTTP, sockets, handlers or faces.

mod applications;
mod apply;
mod bells;
mod catalog;
mod claim;
mod claim_deliveries;
mod core;
mod deliveries;
mod endpoints;
mod error;
mod execute;
mod feed;
mod files;
mod fronts;
mod gate;
mod groups;
mod health;
mod intake;
mod keeping;
mod ledger;
mod membership;
mod neighbours;
mod operation;
mod queries;
mod receivers;
mod record;
mod replay;
mod sealer;
mod stored;
mod submit;
mod takers;
mod view;

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub use applications::{Barred, Caller, NewApplication, SCOPES, lookup_of, parse_scopes};
pub use bells::Bells;
pub use catalog::{Catalog, Checked, JobType, MadeBy, SourceName};
pub use core::Core;
pub use deliveries::{
    AttemptView, BulkRedelivery, DELIVERY_STATUSES, DeliveryFilter, DeliveryView,
};
pub use endpoints::{
    Address, Backlog, BacklogView, EndpointPatch, EndpointSettings, EndpointStats, EndpointView,
    HeaderChanges, KeyRing, LaneView, Latency, MOST_ENDPOINTS, MOST_HEADER_BYTES, MOST_HEADERS,
    NewEndpoint, NewSecret, PublicKeyView, RateChange, Registered, SecretKind, SecretView,
    Triggered,
};
pub use error::{EngineError, EngineResult};
pub use feed::{FeedEvent, FeedFilter, FeedPage, FeedPasses, FeedStep};
pub use files::{Descriptor, Output};
pub use gate::Gate;
pub use health::TROUBLE_KEPT_MILLIS;
pub use intake::{BatchAnswer, NewJob, folded};
pub use keeping::PurgedPage;
pub use ledger::RECEIVER_GONE;
pub use membership::{NODE_LIFE, SHARDS, Sight, Standing};
pub use neighbours::LOOK_PERIOD;
pub use operation::{
    Applied, Claimed, ClaimedBatch, ClaimedJob, Health, Idempotency, LaneChange, LaneWish, Next,
    OwedDelivery, Record, Recorded, RenderPayload,
};
pub use queries::EventView;
pub use receivers::{ClientErrors, NewCallback, Ordering, RateLimit, Receiver, application_mark};
pub use replay::{REPLAY_QUEUE, REPLAY_TYPE, ReplayCount, ReplayOrder, ReplayProgress, ReplayStep};
pub use sealer::Sealer;
pub use stored::StoredJob;
pub use takers::{JobWish, TakesDeliveries, TakesJobs};
pub use view::job as job_view;

pub use crate::store::lists::{JobQuery, OrderBy};

use crate::clock::Clock;
use crate::formats::Formats;
pub use crate::formats::{Signature, SigningSecret};
use crate::ids::{Key, Timestamp};
use crate::lifecycle::Command;
use crate::store::deliveries as delivery_rows;
pub use crate::store::deliveries::manner as delivery_manner;
pub use crate::store::deliveries::status as delivery_status;
pub use crate::store::deliveries::{ClosedAttempt, Depth as DeliveryDepth};
use crate::store::jobs::{LeaseRow, QueueDepth};
pub use crate::store::lanes::LaneTrouble;
use crate::store::{
    Backend, Store, StoreError, Transaction, Writer, jobs, lanes, receivers as receiver_rows,
};
use membership::Membership;
use operation::{Apply, Claim, ClaimDeliveries, Custom, Operation, Outcome};

/// What an engine is built from.
pub struct Parts {
    /// Open and migrated.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Known job types.
    pub catalog: Catalog,
    /// Known delivery formats.
    pub formats: Formats,
    /// Secrets at rest.
    pub sealer: Sealer,
    /// Base of absolute URLs.
    pub public_url: String,
    /// An endpoint without a success for this long is disabled; after no time, never.
    pub disable_after: Duration,
    /// How fast deliveries may come to a receiver without a rate of its own.
    pub lane_rate: Option<RateLimit>,
    /// Told the size of every committed batch.
    pub observe_batch: Box<dyn Fn(usize) + Send + Sync>,
}

/// The door.
pub struct Engine {
    pub(self) core: Arc<Core>,
    store: Store,
    writer: Writer<Operation>,
    catalog: Catalog,
    /// Hints for the loops of this process.
    pub bells: Arc<Bells>,
    /// Unique to this boot.
    node: Key,
    node_name: String,
    membership: Membership,
    settling: endpoints::Settling,
}

/// Lanes that have something to send.
#[derive(Clone, Debug, Default)]
pub struct FoundLanes {
    /// Those with waiting deliveries, and when the first of each is due.
    pub waiting: Vec<(i64, Timestamp)>,
    /// Those of ordered endpoints to which something has just come.
    pub fresh: Vec<i64>,
}

impl Engine {
    /// Starts the writers. The node is known to nobody until it beats.
    pub async fn start(parts: Parts) -> EngineResult<Engine> {
        let core = Arc::new(Core {
            clock: parts.clock,
            sealer: parts.sealer,
            formats: parts.formats,
            public_url: parts.public_url,
            receivers: receivers::ReceiverCache::default(),
            takers: takers::Takers::default(),
            queues: fronts::Fronts::default(),
            lanes: fronts::Fronts::default(),
            has_news: AtomicBool::new(false),
            disable_after_millis: i64::try_from(parts.disable_after.as_millis())
                .ok()
                .filter(|millis| *millis > 0),
            lane_rate: parts.lane_rate,
        });
        let bells = Arc::new(Bells::default());
        let shared = Arc::clone(&core);
        let executor =
            Arc::new(move |transaction: &mut Transaction<'_>, operations: &[&Operation], run| {
                execute::execute(&shared, transaction, operations, run)
            });
        let (told, rung, observe) = (Arc::clone(&core), Arc::clone(&bells), parts.observe_batch);
        let committed = move |operations, taken: takers::Taken| {
            taken.hand_over();
            observe(operations);
            Engine::tell_news(&told, &rung);
        };
        let writer = Writer::start(parts.store.location(), executor, committed)?;
        let mut engine = Engine {
            core,
            store: parts.store,
            writer,
            catalog: parts.catalog,
            bells,
            node: 0,
            node_name: format!("node-{}", crate::ids::new_id().simple()),
            membership: Membership::default(),
            settling: endpoints::Settling::default(),
        };
        engine.agree_on_master_key().await?;
        engine.node = engine.custom(Vec::new(), |transaction, _, _| Ok(transaction.key()?)).await?;
        engine.core.takers.set_node(engine.node, &engine.node_name);
        Ok(engine)
    }

    /// Refuses a master key that is not the one the database was set up with: everything sealed
    /// would be unreadable, and what this node seals would be unreadable to the others.
    async fn agree_on_master_key(&self) -> EngineResult<()> {
        const PLACE: &str = "master key";
        let offered = self
            .core
            .sealer
            .seal(PLACE, PLACE.as_bytes())
            .map_err(|error| EngineError::Store(StoreError::Corrupt(error.to_string())))?;
        let agreed = self
            .custom(Vec::new(), move |transaction, _, _| {
                Ok(crate::store::nodes::agree(transaction, PLACE, &offered)?)
            })
            .await?;
        self.core.sealer.open(PLACE, &agreed).map(|_| ()).map_err(|_| {
            EngineError::Invalid(
                "this master key is not the one that the database was set up with; give that one \
                 as RINGBACK_MASTER_KEY or as master.key in the data folder"
                    .to_owned(),
            )
        })
    }

    /// The time, as the engine sees it.
    pub fn now(&self) -> Timestamp {
        self.core.clock.now()
    }

    /// The clock itself.
    pub fn clock(&self) -> &Clock {
        &self.core.clock
    }

    /// Known job types.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Known delivery formats.
    pub fn formats(&self) -> &Formats {
        &self.core.formats
    }

    /// Base of absolute URLs.
    pub fn public_url(&self) -> &str {
        &self.core.public_url
    }

    /// Name of this node in the event log.
    pub fn node_name(&self) -> &str {
        &self.node_name
    }

    /// Which database.
    pub fn backend(&self) -> Backend {
        self.store.location().backend
    }

    /// Whether the database answers with the right schema.
    pub async fn check(&self) -> EngineResult<bool> {
        Ok(self.store.migrations_current().await?)
    }

    /// Bytes as text that only this installation can read again: what a page token holds.
    pub fn seal_token(&self, plain: &[u8]) -> EngineResult<String> {
        let sealed = self.core.sealer.seal(TOKEN, plain).map_err(|error| {
            EngineError::Store(StoreError::Corrupt(format!("a page token: {error}")))
        })?;
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// What was sealed as a token; nothing when it is not one of ours.
    pub fn open_token(&self, text: &str) -> Option<Vec<u8>> {
        self.core.sealer.open(TOKEN, &URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }

    /// Whether an error only says that this process is shutting down.
    pub fn is_closing(error: &EngineError) -> bool {
        matches!(error, EngineError::Store(StoreError::Closed))
    }

    /// Runs what is waiting and ends the writers. Later writes are refused.
    pub fn close(&self) {
        self.writer.close();
    }

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
        let command = Command::Succeed { token, payload: stored::json_null() };
        self.apply_with(Apply {
            outputs,
            render: Some(render),
            claimed: Some(Arc::clone(job)),
            application: Some(job.application),
            ..Apply::new(job.key, command)
        })
        .await
    }

    pub(self) async fn apply_with(&self, mut apply: Apply) -> EngineResult<Applied> {
        if let Some(application) = apply.application {
            apply.breadth = self.core.receivers.breadth(application);
        }
        match self.writer.execute(Operation::Apply(apply)).await? {
            Outcome::Apply(result) => {
                let applied = (*result)?;
                self.bells.ring_lanes(&applied.lanes);
                match applied.state.status {
                    status if status.is_final() => self.bells.ring_end(applied.id),
                    crate::lifecycle::Status::Pending => {
                        self.bells.ring_queues([applied.queue.clone()]);
                    }
                    crate::lifecycle::Status::Stopping => self.bells.stops.notify_one(),
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

    /// A rarer write. It must refuse before it writes.
    pub(self) async fn custom<T, F>(&self, subjects: Vec<u64>, run: F) -> EngineResult<T>
    where
        T: Send + 'static,
        F: Fn(&mut Transaction<'_>, &Core, Timestamp) -> EngineResult<T> + Send + Sync + 'static,
    {
        let run = Box::new(move |transaction: &mut Transaction<'_>, core: &Core, now| {
            run(transaction, core, now).map(|value| Box::new(value) as Box<dyn Any + Send>)
        });
        match self.writer.execute(Operation::Custom(Custom { subjects, run })).await? {
            Outcome::Custom(result) => {
                result?.downcast::<T>().map(|value| *value).map_err(|_| confused())
            }
            _ => Err(confused()),
        }
    }

    /// Makes waiting jobs ready whose time has come; when the next one is due, and the queues that
    /// have ready jobs, found by looking.
    pub async fn look_for_jobs(&self) -> EngineResult<(Option<Timestamp>, Vec<String>)> {
        loop {
            let (next, queues) = self
                .store
                .read(|connection| {
                    Ok((jobs::next_due(connection)?, jobs::ready_queues(connection)?))
                })
                .await?;
            let next = next.map(Timestamp);
            if next.is_none_or(|due| due > self.now()) {
                return Ok((next, queues));
            }
            let subjects = vec![operation::subject("claim", 0)];
            let promoted =
                self.custom(subjects, |transaction, _, now| Ok(claim::promote(transaction, now)?));
            if promoted.await? == 0 {
                // Another node holds them just now.
                return Ok((None, queues));
            }
        }
    }

    /// Leases that this node holds, as the database has them.
    pub async fn own_leases(&self) -> EngineResult<Vec<LeaseRow>> {
        let node = self.node;
        Ok(self.store.read(move |connection| jobs::leased_by(connection, node)).await?)
    }

    /// Those of the jobs that this node has leased, as the database has them.
    pub async fn leases_of(&self, keys: Vec<Key>) -> EngineResult<Vec<LeaseRow>> {
        let node = self.node;
        Ok(self.store.read(move |connection| jobs::leases_of(connection, node, &keys)).await?)
    }

    /// Deliveries that this node has leased, as the database has them.
    pub async fn own_deliveries(&self) -> EngineResult<Vec<Key>> {
        let node = self.node;
        Ok(self.store.read(move |connection| delivery_rows::leased_by(connection, node)).await?)
    }

    /// How many deliveries of each lane other nodes that are alive are just sending.
    pub async fn sent_elsewhere(&self) -> EngineResult<HashMap<i64, usize>> {
        let (node, now) = (self.node, self.now());
        let rows = self
            .store
            .read(move |connection| {
                let now = connection.database_now()?.unwrap_or(now.0);
                delivery_rows::leased_elsewhere(connection, node, now)
            })
            .await?;
        let counted = |row: delivery_rows::LeasedRow| {
            (row.lane, usize::try_from(row.count).unwrap_or_default())
        };
        Ok(rows.into_iter().map(counted).collect())
    }

    /// Lanes in trouble, as the last owner left them.
    pub async fn troubled_lanes(&self) -> EngineResult<Vec<LaneTrouble>> {
        let since = self.now().plus_millis(-TROUBLE_KEPT_MILLIS);
        Ok(self.store.read(move |connection| lanes::troubled(connection, since.0)).await?)
    }

    /// What the database has of these lanes.
    pub async fn troubles_of(&self, lanes: Vec<i64>) -> EngineResult<Vec<LaneTrouble>> {
        Ok(self.store.read(move |connection| lanes::troubles_of(connection, lanes)).await?)
    }

    /// The versions that these endpoints have now.
    pub async fn endpoint_versions(&self, keys: Vec<Key>) -> EngineResult<HashMap<Key, i64>> {
        Ok(self.store.read(move |connection| receiver_rows::versions(connection, &keys)).await?)
    }

    /// Lanes that have something to send, found by looking.
    pub async fn look_for_lanes(&self) -> EngineResult<FoundLanes> {
        let (waiting, fresh) = self
            .store
            .read(|connection| {
                Ok((delivery_rows::lanes(connection)?, delivery_rows::fresh_lanes(connection)?))
            })
            .await?;
        let waiting = waiting.into_iter().map(|row| (row.lane, Timestamp(row.due_at))).collect();
        Ok(FoundLanes { waiting, fresh })
    }

    /// Live jobs by queue and phase, for metrics.
    pub async fn queue_depths(&self) -> EngineResult<Vec<QueueDepth>> {
        Ok(self.store.read(jobs::depths).await?)
    }

    /// What is owed, in numbers, for metrics.
    pub async fn delivery_depth(&self) -> EngineResult<DeliveryDepth> {
        Ok(self.store.read(delivery_rows::depth).await?)
    }
}

/// The place name under which page tokens are sealed.
const TOKEN: &str = "page token";

fn confused() -> EngineError {
    EngineError::Store(StoreError::Corrupt("an operation got another's answer".to_owned()))
}
