//! One node inside the test process: engine, runner and dispatcher on a manual clock, driven with
//! `step()`. The network is real loopback; job types are the product's plus a scripted one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use ringback::clock::Clock;
use ringback::delivery::{self, Dispatcher};
use ringback::egress::{Answer, Client, Method, Outgoing, Policy, ScriptedResolver, SendError};
use ringback::engine::{
    Caller, Checked, DeliveryFilter, Engine, JobType, LaneWish, NewCallback, NewJob, OwedDelivery,
    Parts, RateLimit, Sealer, SourceName, StoredJob, folded,
};
use ringback::files::Blobs;
use ringback::formats::{AttemptView, Formats, Signature};
use ringback::handlers::runner::{Limits, Runner, Step};
use ringback::handlers::{self, Context, Ending, Handler, Product, Services};
use ringback::ids::Timestamp;
use ringback::lifecycle::JobState;
use ringback::store::{Access, Connection, Location, Store};
use ringback::telemetry::Metrics;
use serde_json::Value;
use serde_json::value::RawValue;

use super::database::Database;

/// Long enough for debug builds on a machine that does other things, too.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a scripted job does: called for each try with its context.
pub type Script = Arc<dyn Fn(Context) -> BoxFuture<'static, Ending> + Send + Sync>;

/// `urn:job:test.scripted`: does what the test says.
#[derive(Clone, Default)]
pub struct Scripted {
    script: Arc<Mutex<Option<Script>>>,
}

impl Scripted {
    /// From now on tries do this.
    pub fn set<F, W>(&self, script: F)
    where
        F: Fn(Context) -> W + Send + Sync + 'static,
        W: Future<Output = Ending> + Send + 'static,
    {
        *self.script.lock().unwrap() = Some(Arc::new(move |context| Box::pin(script(context))));
    }
}

impl JobType for Scripted {
    fn name(&self) -> &'static str {
        "urn:job:test.scripted"
    }

    fn check(&self, specification: &Value, sources: &[SourceName]) -> Result<Checked, String> {
        Ok(Checked {
            specification: specification.clone(),
            secrets: Value::Null,
            sources: sources.to_vec(),
            outside_url: None,
        })
    }
}

impl Handler for Scripted {
    fn run(self: Arc<Self>, context: Context) -> BoxFuture<'static, Ending> {
        let script = self.script.lock().unwrap().clone();
        match script {
            Some(script) => script(context),
            None => Box::pin(async { Ending::Done(Product::of(RawValue::NULL.to_owned())) }),
        }
    }
}

/// One node.
pub struct Node {
    pub clock: Clock,
    pub engine: Arc<Engine>,
    pub runner: Arc<Runner>,
    pub dispatcher: Arc<Dispatcher>,
    pub services: Arc<Services>,
    pub scripted: Scripted,
    started_at: Timestamp,
    location: Location,
}

impl Node {
    /// A node that beats. Its clock starts at the present, since verifiers look at theirs,
    /// and it owns its shards.
    pub async fn start(database: &Database) -> Node {
        Node::start_with(database, Clock::manual(Clock::system().now()), Formats::standard_only())
            .await
    }

    /// The same with a clock and delivery formats of the test's choice.
    pub async fn start_with(database: &Database, clock: Clock, formats: Formats) -> Node {
        Node::start_among(database, clock, formats, |handlers| handlers).await
    }

    /// The same with handlers that the test makes of the product's.
    pub async fn start_among(
        database: &Database,
        clock: Clock,
        formats: Formats,
        choose: impl FnOnce(Vec<Arc<dyn Handler>>) -> Vec<Arc<dyn Handler>>,
    ) -> Node {
        let store = Store::open(database.url(), Access::Beside).expect("the database opens");
        let scripted = Scripted::default();
        let mut all = choose(handlers::all());
        all.push(Arc::new(scripted.clone()));
        let engine = Engine::start(Parts {
            store,
            clock: clock.clone(),
            catalog: handlers::catalog(&all),
            formats,
            sealer: Sealer::new(&[9; 32]).expect("a sealer"),
            public_url: "http://ringback.test".to_owned(),
            disable_after: Duration::from_secs(120 * 60 * 60),
            lane_rate: None,
            observe_batch: Box::new(|_| {}),
        })
        .await
        .expect("the engine starts");
        let engine = Arc::new(engine);
        let policy = Policy { allow: vec!["127.0.0.0/8".parse().unwrap()], ..Policy::default() };
        let egress = Client::new(policy, Arc::new(ScriptedResolver::new()));
        let temporary = database.folder().join("work");
        std::fs::create_dir_all(&temporary).expect("a work folder");
        let services = Arc::new(Services {
            engine: Arc::clone(&engine),
            blobs: Blobs::local(&database.folder().join("files")).expect("a folder of files"),
            egress: egress.clone(),
            temporary,
            max_file_bytes: 1 << 30,
            import_deadline: Duration::from_secs(30),
            archive_limits: handlers::archive::Limits::default(),
        });
        let metrics = Arc::new(Metrics::default());
        let limits =
            Limits { slots: 64, queue_slots: HashMap::new(), timeout: Duration::from_secs(60) };
        let runner = Runner::new(Arc::clone(&services), all, Arc::clone(&metrics), limits, || 0.0);
        let dispatcher = Dispatcher::new(
            Arc::clone(&engine),
            egress,
            metrics,
            delivery::Settings { deadline: PATIENCE, ..Default::default() },
            || 0.0,
        );
        let started_at = engine.now();
        let standing = engine.beat(started_at).await.expect("the node beats");
        dispatcher.set_shards(&standing.shards);
        Node {
            clock,
            engine,
            runner: Arc::new(runner),
            dispatcher: Arc::new(dispatcher),
            services,
            scripted,
            started_at,
            location: Location::parse(database.url()).expect("a location"),
        }
    }

    /// Says that the node is alive, takes its share of the lanes and gives up what is more.
    pub async fn beat(&self) {
        let standing = self.engine.beat(self.started_at).await.expect("the node beats");
        self.dispatcher.set_shards(&standing.shards);
        self.dispatcher.claims_ended().await;
        self.engine.give_up(standing.surplus).await.expect("it gives up what is too much");
    }

    /// A new application as its own caller, with its signing secret.
    pub async fn application(&self, name: &str) -> (Caller, String) {
        let scopes = vec!["*".to_owned()];
        let new = self.engine.create_application(name, &scopes, None, None).await.unwrap();
        let lookup = ringback::engine::lookup_of(&new.api_key);
        let caller = self.engine.authenticate(lookup).await.unwrap().expect("a caller");
        (caller, new.signing_secret)
    }

    /// Submits a job without idempotency key.
    pub async fn submit(&self, caller: &Caller, job: NewJob) -> StoredJob {
        self.engine.submit(caller, job, None, "request").await.expect("the job is taken")
    }

    /// Runs jobs until nothing is ready or running.
    pub async fn work(&self) {
        loop {
            self.runner.look().await.unwrap();
            match self.runner.step().await.unwrap() {
                Step::Started(_) | Step::Full => self.settle().await,
                Step::Idle if self.runner.busy() == 0 => return,
                Step::Idle => self.settle().await,
            }
        }
    }

    /// Waits until no try is running.
    pub async fn settle(&self) {
        bounded("running tries to end", || self.runner.busy() == 0).await;
    }

    /// Waits until no delivery is under way.
    pub async fn settle_deliveries(&self) {
        bounded("deliveries to end", || self.dispatcher.in_flight() == 0).await;
    }

    /// Sends what is due until nothing is due or under way.
    pub async fn send(&self) {
        loop {
            self.dispatcher.look().await.unwrap();
            let step = self.dispatcher.step().await.unwrap();
            self.settle_deliveries().await;
            if step == delivery::Step::Idle {
                return;
            }
        }
    }

    /// Sends a claimed delivery as the dispatcher would, and records nothing.
    pub async fn send_by_hand(&self, owed: &OwedDelivery) -> Result<Answer, SendError> {
        let ring = match owed.receiver.is_endpoint {
            true => self.engine.endpoint_keys(owed.receiver.key).await,
            false => self.engine.application_keys(owed.application).await,
        };
        let keys = ring.expect("keys").at(self.engine.now());
        let webhook_id = owed.event_id.to_string();
        let attempt = AttemptView {
            webhook_id: &webhook_id,
            number: u32::try_from(owed.attempt).unwrap(),
            timestamp_seconds: self.engine.now().seconds(),
            event_type: &owed.event_type,
            redelivery: None,
        };
        let format = &owed.receiver.format;
        let own = format.headers(&attempt, &keys, Signature::Standard, &owed.body, None);
        let mut headers = owed.receiver.headers.clone();
        headers.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value.into_owned())));
        let outgoing = Outgoing {
            method: Method::POST,
            url: owed.receiver.url.clone(),
            headers,
            body: owed.body.clone().into(),
            deadline: PATIENCE,
            body_cap: 1_024,
        };
        self.services.egress.send(outgoing).await.result
    }

    /// The job as it is stored now, after its events were folded and compared with it.
    pub async fn job(&self, caller: &Caller, id: uuid::Uuid) -> StoredJob {
        let job = self.engine.find_job(caller, id).await.expect("the job is there");
        self.check_fold(&job).await;
        job
    }

    /// Folding a job's events gives its stored row.
    pub async fn check_fold(&self, job: &StoredJob) {
        let mut connection = Connection::open(&self.location).expect("a connection");
        let folded = folded(&mut connection, job).expect("a log").expect("a first event");
        assert_eq!(told(&folded), told(&job.state), "log and row of job {} differ", job.id);
    }

    /// Types of a job's events, in order.
    pub async fn event_types(&self, caller: &Caller, id: uuid::Uuid) -> Vec<String> {
        let events = self.engine.job_events(caller, id, 0, 1_000).await.unwrap();
        events.into_iter().map(|event| event.event_type).collect()
    }
}

/// The part of a state that the events must tell.
pub type Told<'a> = (
    ringback::lifecycle::Status,
    (i64, i64, i64),
    Option<&'a ringback::lifecycle::JobResult>,
    Option<&'a ringback::lifecycle::Failure>,
    Option<Timestamp>,
    (Timestamp, Timestamp, Option<Timestamp>, Option<Timestamp>),
);

pub fn told(state: &JobState) -> Told<'_> {
    (
        state.status,
        (state.attempt, state.lost_nodes, state.sequence),
        state.result.as_ref(),
        state.failure.as_ref(),
        state.deleted_at,
        (state.run_at, state.updated_at, state.started_at, state.completed_at),
    )
}

/// Waits for a condition of this process, as long as only a defect takes.
pub async fn bounded(what: &str, mut holds: impl FnMut() -> bool) {
    // Looks that follow each other at once would take a core from what is waited for.
    let mut looks = tokio::time::interval(Duration::from_millis(1));
    let wait = async {
        while !holds() {
            looks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"));
}

/// A job of the scripted type.
pub fn scripted_job() -> NewJob {
    NewJob {
        job_type: "urn:job:test.scripted".to_owned(),
        specification: serde_json::json!({}),
        sources: Vec::new(),
        group_id: None,
        callback: None,
        metadata: None,
        priority: 0,
        queue: "default".to_owned(),
        run_at: None,
        expires_at: None,
        max_attempts: None,
        timeout_seconds: None,
    }
}

/// A callback to a URL, in the standard format with the default events.
pub fn callback(url: &str) -> NewCallback {
    let parsed = url::Url::parse(url).expect("a URL");
    NewCallback {
        url: url.to_owned(),
        shown_url: url.to_owned(),
        origin: parsed.origin().ascii_serialization(),
        headers: Vec::new(),
        events: None,
        format: "standard".to_owned(),
        rate_limit: None,
    }
}

/// A wish for whatever a lane has.
pub fn wish(lane: i64) -> LaneWish {
    LaneWish { lane, room: 64, may_be_ordered: true }
}

/// Deliveries about one job.
pub fn of_job(job: uuid::Uuid) -> DeliveryFilter {
    DeliveryFilter { job: Some(job), ..DeliveryFilter::default() }
}

/// Deliveries in some statuses.
pub fn in_statuses(statuses: &[String]) -> DeliveryFilter {
    DeliveryFilter { statuses: statuses.to_vec(), ..DeliveryFilter::default() }
}

/// A rate for a callback.
pub fn rate(per_second: f64, burst: u32) -> RateLimit {
    RateLimit { per_second, burst }
}
