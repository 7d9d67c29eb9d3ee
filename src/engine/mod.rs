//! The one door to state: every change of a job, group, file or delivery is a transaction here.
//!
//! A transaction holds the state change, its event and the deliveries it owes, or nothing. Nothing
//! is sent, spawned or waited for inside one; after it what was claimed is handed over and a bell is
//! rung. Must not know HTTP, sockets, handlers or faces.

mod applications;
mod apply;
mod bells;
mod callers;
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
mod holding;
mod intake;
mod keeping;
mod ledger;
mod looks;
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
mod unwritten;
mod view;
mod work;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub use applications::NewApplication;
pub use bells::Bells;
pub use callers::{Barred, Caller, SCOPES, lookup_of, parse_scopes};
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
pub use intake::{BatchAnswer, NewJob};
pub use keeping::PurgedPage;
pub use ledger::RECEIVER_GONE;
pub use looks::FoundLanes;
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
pub use stored::{StoredJob, folded};
pub use takers::{JobWish, TakesDeliveries, TakesJobs};
pub use view::job as job_view;

pub use crate::store::lists::{JobQuery, OrderBy};

use crate::clock::Clock;
use crate::formats::Formats;
pub use crate::formats::{Signature, SigningSecret};
use crate::ids::{Key, Timestamp};
pub use crate::store::deliveries::manner as delivery_manner;
pub use crate::store::deliveries::status as delivery_status;
pub use crate::store::deliveries::{ClosedAttempt, Depth as DeliveryDepth};
pub use crate::store::lanes::LaneTrouble;
use crate::store::{Backend, Store, StoreError, Transaction, Writer};
use membership::Membership;
use operation::{Custom, Operation, Outcome};

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
        let (rung, observe) = (Arc::clone(&bells), parts.observe_batch);
        let committed = move |operations, besides: execute::Besides| {
            besides.taken.hand_over();
            observe(operations);
            if besides.has_news {
                rung.ring_news();
            }
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
}

/// The place name under which page tokens are sealed.
const TOKEN: &str = "page token";

fn confused() -> EngineError {
    EngineError::Store(StoreError::Corrupt("an operation got another's answer".to_owned()))
}
