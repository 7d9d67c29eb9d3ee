//! Random steps of two nodes, with deaths, late workers and a clock that jumps both ways.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use ringback::clock::Clock;
use ringback::engine::{Caller, EngineError, EngineResult, Idempotency, NewJob, StoredJob};
use ringback::formats::Formats;
use ringback::ids::Key;
use ringback::lifecycle::{Command, Failure};
use ringback::store::{Connection, jobs};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::audit::audit;
use super::order::arrived_in_order;
use super::{register_endpoints, relay};
use crate::support::database::{Database, block_on, on_both};
use crate::support::node::{Node, bounded, callback, scripted_job};
use crate::support::receiver::{Receiver, Reply};

const CASES: u32 = 40;
const STEPS: std::ops::RangeInclusive<usize> = 20..=40;

#[derive(Clone, Debug)]
enum Act {
    /// Equal keys mean equal requests; odd ones join the open group.
    Submit {
        key: Option<u8>,
        chatty: bool,
        joins: bool,
        deadline: bool,
    },
    Batch {
        count: usize,
    },
    Claim {
        room: usize,
    },
    Succeed {
        lease: Index,
    },
    Fail {
        lease: Index,
        again: bool,
    },
    Progress {
        lease: Index,
        percent: u8,
    },
    Release {
        lease: Index,
    },
    Halt {
        lease: Index,
    },
    Stop {
        job: Index,
    },
    Trash {
        job: Index,
    },
    Retry {
        job: Index,
    },
    CloseGroup,
    StopGroup,
    Sweep,
    Send,
    Shift {
        seconds: i64,
    },
    Die {
        silently: bool,
    },
}

/// An act, and the node that does it.
fn acts() -> impl Strategy<Value = Vec<(usize, Act)>> {
    let index = any::<Index>;
    let act = prop_oneof![
        6 => (proptest::option::of(0u8..4), any::<bool>(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(key, chatty, joins, deadline)| Act::Submit { key, chatty, joins, deadline }),
        1 => (1usize..4).prop_map(|count| Act::Batch { count }),
        6 => (1usize..4).prop_map(|room| Act::Claim { room }),
        5 => index().prop_map(|lease| Act::Succeed { lease }),
        3 => (index(), any::<bool>()).prop_map(|(lease, again)| Act::Fail { lease, again }),
        1 => (index(), 0u8..=100).prop_map(|(lease, percent)| Act::Progress { lease, percent }),
        2 => index().prop_map(|lease| Act::Release { lease }),
        1 => index().prop_map(|lease| Act::Halt { lease }),
        3 => index().prop_map(|job| Act::Stop { job }),
        2 => index().prop_map(|job| Act::Trash { job }),
        2 => index().prop_map(|job| Act::Retry { job }),
        2 => Just(Act::CloseGroup),
        1 => Just(Act::StopGroup),
        4 => Just(Act::Sweep),
        4 => Just(Act::Send),
        3 => (-600i64..600).prop_map(|seconds| Act::Shift { seconds }),
        2 => any::<bool>().prop_map(|silently| Act::Die { silently }),
    ];
    prop::collection::vec((0usize..2, act), STEPS)
}

struct Play<'a> {
    database: &'a Database,
    connection: Connection,
    clock: Clock,
    nodes: Vec<Node>,
    caller: Caller,
    receiver: Receiver,
    group: Uuid,
    /// A queue of this play's own, should an earlier one have left something behind.
    queue: String,
    jobs: Vec<Uuid>,
    /// Every lease there ever was: a late worker may use it at any time.
    leases: Vec<(Key, i64)>,
    by_key: HashMap<u8, Uuid>,
    /// Final states as they were first seen.
    ends: HashMap<Uuid, String>,
}

/// The answer, unless the act was refused by the rules.
fn allowed<T>(result: EngineResult<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(
            EngineError::Refused(_)
            | EngineError::NotRetryable(_)
            | EngineError::GroupSealed(_)
            | EngineError::NotFound { .. },
        ) => None,
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

async fn start(database: &Database, clock: &Clock) -> Node {
    Node::start_with(database, clock.clone(), Formats::standard_only()).await
}

impl Play<'_> {
    async fn begin<'a>(database: &'a Database, is_over: &Arc<AtomicBool>) -> Play<'a> {
        let clock = Clock::manual(Clock::system().now());
        let nodes = vec![start(database, &clock).await, start(database, &clock).await];
        // A play that failed has left its own behind, and they own lanes.
        nodes[0].engine.forget_other_nodes().await.unwrap();
        nodes[0].beat().await;
        nodes[1].beat().await;
        let (caller, _) = nodes[0].application("shop").await;
        let receiver = Receiver::start();
        let is_over = Arc::clone(is_over);
        for path in ["/hook", "/none", "/per-job", "/strict"] {
            let is_over = Arc::clone(&is_over);
            receiver.on_with(path, move |request| {
                let is_bad = request.number % 4 == 3 && !is_over.load(Ordering::SeqCst);
                if is_bad { Reply::status(503) } else { Reply::ok() }
            });
        }
        register_endpoints(&nodes[0], &caller, &receiver).await;
        Play {
            connection: database.connect(),
            database,
            clock,
            nodes,
            queue: caller.application_id.to_string(),
            caller,
            receiver,
            group: ringback::ids::new_id(),
            jobs: Vec::new(),
            leases: Vec::new(),
            by_key: HashMap::new(),
            ends: HashMap::new(),
        }
    }

    fn job(&self, chatty: bool, joins: bool, deadline: bool) -> NewJob {
        let mut job = scripted_job();
        let mut hook = callback(&self.receiver.url("/hook"));
        hook.events = chatty.then(|| vec!["job.*".to_owned()]);
        job.callback = Some(hook);
        job.queue.clone_from(&self.queue);
        job.group_id = joins.then_some(self.group);
        let now = self.nodes[0].engine.now();
        job.expires_at = deadline.then(|| now.plus_millis(60_000));
        job
    }

    async fn act(&mut self, node: usize, act: Act) {
        match act {
            Act::Submit { key, chatty, joins, deadline } => {
                let joins = key.map_or(joins, |key| key % 2 == 1);
                self.submit(node, key, self.job(chatty, joins, deadline)).await;
            }
            Act::Batch { count } => {
                let drafts = (0..count).map(|_| self.job(false, false, false)).collect();
                let hook = Some(callback(&self.receiver.url("/hook")));
                let engine = &self.nodes[node].engine;
                let batch = engine.submit_batch(&self.caller, drafts, hook, None, "r").await;
                self.jobs.extend(batch.unwrap().jobs.iter().map(|job| job.id));
            }
            Act::Claim { room } => {
                let engine = &self.nodes[node].engine;
                let batch = engine.claim(vec![(self.queue.clone(), room)], room).await.unwrap();
                let leases = batch.jobs.iter().map(|claimed| &claimed.job);
                self.leases.extend(leases.map(|job| (job.key, job.state.token)));
            }
            Act::Succeed { lease } => {
                let payload = RawValue::NULL.to_owned();
                self.command(node, lease, |token| Command::Succeed { token, payload }).await;
            }
            Act::Fail { lease, again } => {
                let retry_at = again.then(|| self.nodes[0].engine.now().plus_millis(2_000));
                let failure = Failure::new("unlucky", "drawn");
                let fail = |token| Command::Fail { token, failure, retry_at };
                self.command(node, lease, fail).await;
            }
            Act::Progress { lease, percent } => {
                let fraction = f64::from(percent) / 100.0;
                self.command(node, lease, |token| Command::Progress { token, fraction }).await;
            }
            Act::Release { lease } => {
                self.command(node, lease, |token| Command::Release { token }).await;
            }
            Act::Halt { lease } => {
                self.command(node, lease, |token| Command::Halt { token }).await;
            }
            Act::Stop { job } => {
                if let Some(id) = self.pick(&job) {
                    allowed(self.nodes[node].engine.stop(&self.caller, id).await);
                }
            }
            Act::Trash { job } => {
                if let Some(id) = self.pick(&job) {
                    allowed(self.nodes[node].engine.trash(&self.caller, id).await);
                }
            }
            Act::Retry { job } => {
                if let Some(id) = self.pick(&job) {
                    let engine = &self.nodes[node].engine;
                    let new = allowed(engine.retry(&self.caller, id, None, "r").await);
                    self.jobs.extend(new.map(|job| job.id));
                }
            }
            Act::CloseGroup => {
                allowed(self.nodes[node].engine.close_group(&self.caller, self.group).await);
            }
            Act::StopGroup => {
                allowed(self.nodes[node].engine.stop_group(&self.caller, self.group).await);
            }
            Act::Sweep => self.sweep(node).await,
            Act::Send => {
                relay(&self.nodes[node]).await;
                let dispatcher = &self.nodes[node].dispatcher;
                dispatcher.look().await.unwrap();
                dispatcher.step().await.unwrap();
                bounded("deliveries to end", || dispatcher.in_flight() == 0).await;
            }
            Act::Shift { seconds } => self.clock.shift_millis(seconds * 1_000),
            Act::Die { silently } => self.die(node, silently).await,
        }
    }

    async fn submit(&mut self, node: usize, key: Option<u8>, job: NewJob) {
        let idempotency =
            key.map(|key| Idempotency { key: format!("key {key}"), hash: key.to_string() });
        let engine = &self.nodes[node].engine;
        let answer = allowed(engine.submit(&self.caller, job, idempotency, "r").await);
        let known = key.and_then(|key| self.by_key.get(&key).copied());
        match (known, answer) {
            (Some(known), answer) => {
                let id = answer.map(|job| job.id);
                assert_eq!(id, Some(known), "an accepted request is answered as before");
            }
            (None, Some(job)) => {
                self.jobs.push(job.id);
                key.map(|key| self.by_key.insert(key, job.id));
            }
            (None, None) => {}
        }
    }

    fn pick(&self, index: &Index) -> Option<Uuid> {
        (!self.jobs.is_empty()).then(|| *index.get(&self.jobs))
    }

    async fn command(&self, node: usize, lease: Index, make: impl FnOnce(i64) -> Command) {
        if !self.leases.is_empty() {
            let (key, token) = *lease.get(&self.leases);
            allowed(self.nodes[node].engine.apply(key, make(token)).await);
        }
    }

    /// What time brings: beats, deaths seen, jobs due, deadlines.
    async fn sweep(&self, node: usize) {
        let node = &self.nodes[node];
        node.beat().await;
        node.engine.rescue().await.unwrap();
        node.engine.look_for_jobs().await.unwrap();
        node.engine.expire().await.unwrap();
    }

    async fn die(&mut self, place: usize, silently: bool) {
        let node = &self.nodes[place];
        if silently {
            let name = node.engine.node_name();
            let sql = format!("UPDATE nodes SET expires_at = 0 WHERE name = '{name}'");
            self.connection.batch(&sql).expect("SQL");
        } else {
            node.engine.leave().await.unwrap();
        }
        node.engine.close();
        self.nodes[place] = start(self.database, &self.clock).await;
    }

    fn stored(&mut self, id: Uuid) -> StoredJob {
        let row = jobs::find(&mut self.connection, id).expect("a read").expect("the job");
        StoredJob::read(row).expect("a job")
    }

    /// Final states stay as they were when they were first seen.
    fn watch_ends(&mut self) {
        for id in self.jobs.clone() {
            let state = self.stored(id).state;
            if state.status.is_final() {
                let end = format!(
                    "{:?}",
                    (
                        state.status,
                        state.attempt,
                        state.lost_nodes,
                        state.result,
                        state.failure,
                        state.started_at,
                        state.completed_at
                    )
                );
                let first = self.ends.entry(id).or_insert_with(|| end.clone());
                assert_eq!(*first, end, "a final state has changed");
            } else {
                assert!(!self.ends.contains_key(&id), "a final job lives again");
            }
        }
    }

    /// Lets everything come to its end.
    async fn end(&mut self) {
        self.clock.shift_millis(60_000);
        self.sweep(0).await;
        self.sweep(1).await;
        // Work that was claimed on a node that lives ends there.
        for (key, token) in self.leases.clone() {
            let payload = RawValue::NULL.to_owned();
            let end = Command::Succeed { token, payload };
            allowed(self.nodes[0].engine.apply(key, end).await);
        }
        for _ in 0..20 {
            self.clock.shift_millis(25 * 3_600 * 1_000);
            for place in 0..2 {
                self.sweep(place).await;
            }
            for node in &self.nodes {
                node.work().await;
                relay(node).await;
                node.send().await;
            }
            if self.is_quiet() {
                return;
            }
        }
        panic!("it never ends");
    }

    fn is_quiet(&mut self) -> bool {
        use ringback::store::deliveries::of_application;
        let application = self.caller.application;
        let owed = of_application(&mut self.connection, application, (i64::MAX, i64::MAX), 10_000)
            .unwrap();
        let all_sent = owed.iter().all(|delivery| delivery.phase.is_none());
        let ids = self.jobs.clone();
        all_sent && ids.into_iter().all(|id| self.stored(id).state.status.is_final())
    }
}

async fn play(database: &Database, acts: Vec<(usize, Act)>) {
    let is_over = Arc::new(AtomicBool::new(false));
    let mut play = Play::begin(database, &is_over).await;
    for (node, act) in acts {
        play.act(node, act).await;
        play.watch_ends();
    }
    is_over.store(true, Ordering::SeqCst);
    play.end().await;
    play.watch_ends();
    let application = play.caller.application;
    audit(&mut play.connection, &play.nodes[0], application, &play.receiver).await;
    arrived_in_order(&play.nodes[0], &play.caller, &play.receiver).await;
    for node in &play.nodes {
        node.engine.leave().await.unwrap();
        node.engine.close();
    }
}

on_both!(random_steps_of_two_nodes_keep_the_guarantees);
fn random_steps_of_two_nodes_keep_the_guarantees(database: Database) {
    let config = Config {
        cases: CASES,
        max_shrink_iters: 100,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let outcome = runner.run(&acts(), |acts| {
        block_on(play(&database, acts));
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
