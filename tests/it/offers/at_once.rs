//! What is taken at once is written once and never read back: it has to be what a claim would have
//! read, in the order in which a claim would have taken it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use futures_util::future::join;
use ringback::engine::{
    Claimed, ClaimedBatch, ClaimedJob, JobWish, LaneWish, NewJob, OwedDelivery, Record,
    TakesDeliveries, TakesJobs,
};
use ringback::lifecycle::{Command, Status};
use serde_json::value::RawValue;

use crate::deliveries::received;
use crate::history::pass_through;
use crate::support::database::{Backend, Database, block_on, number, on_both};
use crate::support::node::{Node, callback, of_job, scripted_job, wish};

/// Takes what it is offered and does nothing with it.
struct Catcher {
    room: usize,
    jobs: Mutex<Vec<ClaimedJob>>,
    deliveries: Mutex<Vec<OwedDelivery>>,
}

impl Catcher {
    fn with_room(room: usize) -> Arc<Catcher> {
        Arc::new(Catcher { room, jobs: Mutex::default(), deliveries: Mutex::default() })
    }

    fn jobs(&self) -> Vec<ClaimedJob> {
        std::mem::take(&mut self.jobs.lock().unwrap())
    }

    fn deliveries(&self) -> Vec<OwedDelivery> {
        std::mem::take(&mut self.deliveries.lock().unwrap())
    }
}

impl TakesJobs for Catcher {
    fn wish(&self, queues: &BTreeSet<String>) -> Option<JobWish> {
        Some((queues.iter().map(|queue| (queue.clone(), self.room)).collect(), self.room))
    }

    fn take(self: Arc<Self>, _: JobWish, batch: Option<ClaimedBatch>) {
        self.jobs.lock().unwrap().extend(batch.into_iter().flat_map(|batch| batch.jobs));
    }
}

impl TakesDeliveries for Catcher {
    fn wish(&self, lanes: &BTreeSet<i64>) -> Vec<LaneWish> {
        let wish = |lane: &i64| LaneWish { lane: *lane, room: self.room, may_be_ordered: false };
        lanes.iter().map(wish).collect()
    }

    fn take(self: Arc<Self>, _: Vec<LaneWish>, claimed: Option<Claimed>) {
        self.deliveries.lock().unwrap().extend(claimed.into_iter().flat_map(|one| one.owed));
    }
}

fn with_priority(priority: i64) -> NewJob {
    NewJob { priority, ..scripted_job() }
}

/// All that a delivery is sent with.
fn shown(owed: &OwedDelivery) -> String {
    let ids = (owed.key, owed.id, owed.application, owed.receiver.key, owed.event_id, owed.job_id);
    let lease = (owed.token, owed.attempt, owed.try_number, &owed.previous_failure);
    let (version, kind) = (owed.secrets_version, (&owed.event_type, owed.manner));
    let rest = (owed.subject, owed.lane, &owed.request_id, &owed.body);
    format!("{:?}", (ids, lease, version, kind, rest))
}

on_both!(async what_is_taken_at_once_is_what_a_claim_reads);
async fn what_is_taken_at_once_is_what_a_claim_reads(database: Database) {
    let node = Node::start(&database).await;
    let (caller, _) = node.application("shop").await;
    let catcher = Catcher::with_room(9);
    node.engine.offer_jobs(Arc::downgrade(&catcher) as _);
    node.engine.offer_deliveries(Arc::downgrade(&catcher) as _);
    let mut receiver = callback("http://127.0.0.1:9/hook");
    receiver.events = Some(vec!["job.*".to_owned()]);
    let job = NewJob {
        specification: serde_json::json!({"steps": [1, 2.50, "drei"]}),
        metadata: Some(RawValue::from_string(r#"{"order": 7}"#.to_owned()).expect("JSON")),
        expires_at: Some(node.engine.now().plus_millis(60_000)),
        timeout_seconds: Some(30),
        max_attempts: Some(4),
        callback: Some(receiver),
        ..with_priority(3)
    };
    let job = node.submit(&caller, job).await;

    let taken = catcher.jobs();
    assert_eq!(taken.len(), 1);
    let stored = node.job(&caller, job.id).await;
    assert_eq!(format!("{:?}", taken[0].job), format!("{stored:?}"));
    let leased = "SELECT COUNT(*) AS number FROM live_jobs WHERE phase = 2 AND node_id IS NOT NULL \
                  AND token = 1 AND attempt = 1";
    assert_eq!(number(&database, leased), 1);

    let mut at_once = catcher.deliveries();
    let names: Vec<&str> = at_once.iter().map(|owed| owed.event_type.as_str()).collect();
    assert_eq!(names, ["job.created", "job.started"]);
    let leased = "SELECT COUNT(*) AS number FROM live_deliveries l JOIN attempts a \
                  ON a.delivery_id = l.id WHERE l.phase = 1 AND l.node_id IS NOT NULL \
                  AND l.token = 1 AND l.attempts = 1 AND l.tries = 1 AND a.number = 1 \
                  AND a.outcome = 'started'";
    assert_eq!(number(&database, leased), 2);
    // As if they had been written first and not taken.
    let untaken = "DELETE FROM attempts; UPDATE live_deliveries \
                   SET phase = 0, node_id = NULL, token = 0, attempts = 0, tries = 0";
    database.connect().batch(untaken).expect("SQL of ours");
    let mut read = node.engine.claim_deliveries(vec![wish(at_once[0].lane)]).await.unwrap();
    at_once.sort_by_key(|owed| owed.key);
    read.sort_by_key(|owed| owed.key);
    let all = |owed: &[OwedDelivery]| -> Vec<String> { owed.iter().map(shown).collect() };
    assert_eq!(all(&at_once), all(&read));
}

on_both!(async what_is_new_takes_its_turn_among_what_waits);
async fn what_is_new_takes_its_turn_among_what_waits(database: Database) {
    let node = Node::start(&database).await;
    let (caller, _) = node.application("shop").await;
    let waiting = node.submit(&caller, with_priority(5)).await;
    let catcher = Catcher::with_room(2);
    node.engine.offer_jobs(Arc::downgrade(&catcher) as _);
    let new = [5, 9, 1].map(with_priority).to_vec();
    let batch = node.engine.submit_batch(&caller, new, None, None, "request").await.unwrap();
    let ids: Vec<_> = catcher.jobs().iter().map(|taken| taken.job.id).collect();
    assert_eq!(ids, [batch.jobs[1].id, waiting.id], "by priority, then by age");
    let left = node.engine.claim(vec![("default".to_owned(), 9)], 9).await.unwrap();
    let left: Vec<_> = left.jobs.iter().map(|claimed| claimed.job.id).collect();
    assert_eq!(left, [batch.jobs[0].id, batch.jobs[2].id]);
}

on_both!(async what_comes_too_late_ends_at_once);
async fn what_comes_too_late_ends_at_once(database: Database) {
    let node = Node::start(&database).await;
    let (caller, _) = node.application("shop").await;
    let catcher = Catcher::with_room(9);
    node.engine.offer_jobs(Arc::downgrade(&catcher) as _);
    node.engine.offer_deliveries(Arc::downgrade(&catcher) as _);
    let late = NewJob {
        expires_at: Some(node.engine.now().plus_millis(-1)),
        callback: Some(callback("http://127.0.0.1:9/hook")),
        ..scripted_job()
    };
    let late = node.submit(&caller, late).await.id;
    let in_time = node.submit(&caller, scripted_job()).await.id;
    let taken: Vec<_> = catcher.jobs().iter().map(|taken| taken.job.id).collect();
    assert_eq!(taken, [in_time]);
    assert_eq!(node.event_types(&caller, late).await, ["job.created", "job.failed"]);
    assert_eq!(node.job(&caller, late).await.state.status, Status::Error);
    assert_eq!(number(&database, "SELECT COUNT(*) AS number FROM live_jobs"), 1);
    let owed = catcher.deliveries();
    let names: Vec<&str> = owed.iter().map(|owed| owed.event_type.as_str()).collect();
    assert_eq!(names, ["job.failed"]);
}

/// On Postgres claims begin where the last one came to, once it is dear to begin at the start.
#[test]
fn what_something_new_pushes_out_is_found_by_the_next_claim() {
    let database = Database::fresh(Backend::Postgres);
    let mut bystander = database.connect();
    let begin = "SET idle_in_transaction_session_timeout = 0; \
                 BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current()";
    bystander.batch(begin).unwrap();
    block_on(async {
        let node = Node::start(&database).await;
        let (caller, _) = node.application("shop").await;
        let claim = async |room| node.engine.claim(vec![("default".to_owned(), room)], room).await;
        // While searches are cheap it learns how short they are.
        node.submit(&caller, with_priority(1)).await;
        claim(1).await.unwrap();
        let first = node.submit(&caller, with_priority(1)).await.id;
        pass_through(&mut database.connect(), "live_jobs", "ready_sequence = n");
        // Farther apart than what is committed late.
        node.clock.shift_millis(1_000);
        node.submit(&caller, with_priority(1)).await;
        let catcher = Catcher::with_room(2);
        node.engine.offer_jobs(Arc::downgrade(&catcher) as _);
        let new = [9, 9].map(with_priority).to_vec();
        let batch = node.engine.submit_batch(&caller, new, None, None, "request").await.unwrap();
        let taken: Vec<_> = catcher.jobs().iter().map(|taken| taken.job.id).collect();
        assert_eq!(taken, [batch.jobs[0].id, batch.jobs[1].id]);
        let next = claim(1).await.unwrap();
        assert_eq!(next.jobs.first().map(|claimed| claimed.job.id), Some(first));
    });
    drop(bystander);
}

/// On SQLite, where all that waits for a lock goes into one transaction, but for what had its turn
/// already.
#[test]
fn what_is_owed_to_a_receiver_that_declines_meanwhile_is_not_sent() {
    block_on(async {
        let database = Database::fresh(Backend::Sqlite);
        let node = Node::start(&database).await;
        let (caller, _) = node.application("shop").await;
        for _ in 0..3 {
            let mut receiver = callback("http://127.0.0.1:9/hook");
            receiver.events = Some(vec!["job.created".to_owned(), "job.succeeded".to_owned()]);
            let job = NewJob { callback: Some(receiver), ..scripted_job() };
            let job = node.submit(&caller, job).await.id;
            let working = node.engine.claim(vec![("default".to_owned(), 1)], 1).await.unwrap();
            let working = working.jobs.into_iter().next().expect("the job").job;
            let lane = node.engine.look_for_lanes().await.unwrap().waiting[0].0;
            let owed = node.engine.claim_deliveries(vec![wish(lane)]).await.unwrap().remove(0);
            let catcher = Catcher::with_room(9);
            node.engine.offer_deliveries(Arc::downgrade(&catcher) as _);

            let payload = RawValue::NULL.to_owned();
            let end = Command::Succeed { token: working.state.token, payload };
            let gone = Record { receiver_gone: true, ..received(&owed, node.engine.now().0) };
            let mut others = database.connect();
            others.batch("BEGIN IMMEDIATE").expect("SQL of ours");
            let both = join(node.engine.record(gone), node.engine.apply(working.key, end));
            let mut both = Box::pin(both);
            assert!(futures_util::poll!(&mut both).is_pending());
            others.batch("ROLLBACK").expect("SQL of ours");
            let (recorded, ended) = both.await;
            ended.expect("the job ends");
            assert!(recorded.expect("it is recorded").held);
            assert!(catcher.deliveries().is_empty(), "nothing is sent");
            let all = (i64::MAX, i64::MAX);
            let listed = node.engine.list_deliveries(&caller, &of_job(job), all, 10).await;
            let statuses = listed.unwrap().0.iter().map(|one| one.status).collect::<Vec<_>>();
            assert!(!statuses.contains(&"pending"), "{statuses:?}");
        }
    });
}
