//! Nodes that die or fall silent: others go on, and nobody's late word counts.

use std::time::Instant;

use ringback::clock::Clock;
use serde_json::Value;

use super::book::Book;
use super::{PATIENCE, SETTINGS, events_of, types_of, wait_for_starts};
use crate::support::database::{Backend, Database, on_both};
use crate::support::http::Client;
use crate::support::node::{Node, callback, of_job, scripted_job, wish};
use crate::support::process::{Application, Server};
use crate::support::receiver::Receiver;
use crate::support::wait::eventually;

const SEED: u64 = 20_260_102;
/// Work of a dead node goes on within so many seconds.
const TAKEOVER: f64 = 15.0;
/// How long jobs last that have to be at work when their node dies, seconds.
const LONG: f64 = 15.0;

/// The time of an event in seconds.
fn seconds_of(event: &Value) -> f64 {
    let text = event["timestamp"].as_str().expect("a time");
    let time = chrono::DateTime::parse_from_rfc3339(text).expect("RFC 3339");
    time.timestamp_micros() as f64 / 1e6
}

/// The present in seconds.
fn now() -> f64 {
    Clock::system().now().0 as f64 / 1e6
}

/// Waits until all these jobs have been started a second time; that none of it was too long after
/// their node `died`. When it was is what the events say: this test may look late.
#[track_caller]
fn taken_over(client: &Client, jobs: &[String], died: f64) {
    jobs.iter().for_each(|job| wait_for_starts(client, job, 2, PATIENCE));
    let restart = |job: &String| {
        let events = events_of(client, job);
        let mut starts = events.iter().filter(|event| event["type"] == "job.started");
        seconds_of(starts.nth(1).expect("a second start")) - died
    };
    let longest = jobs.iter().map(restart).fold(0.0, f64::max);
    eprintln!("taken over after {longest:.3} s");
    assert!(longest <= TAKEOVER, "taken over after {longest} s");
}

#[test]
fn work_of_a_killed_node_goes_on_within_15_seconds() {
    let database = Database::fresh(Backend::Postgres);
    let application = Application::create(&database, "shop");
    let book = Book::open(&application, 4, SEED);
    let mut first = Server::on(&database, &SETTINGS);
    let client = first.client_of(&application);
    let jobs: Vec<String> = (0..20).flat_map(|_| book.place(&client, &book.single(LONG))).collect();
    jobs.iter().for_each(|job| wait_for_starts(&client, job, 1, PATIENCE));
    let second = Server::on(&database, &SETTINGS);
    first.sigkill();
    let killed = now();

    let client = second.client_of(&application);
    taken_over(&client, &jobs, killed);
    let account = book.settle(PATIENCE);
    assert_eq!(account.jobs, 20);
    for job in &jobs {
        let events = events_of(&client, job);
        let whole = ["job.created", "job.started", "job.rescued", "job.started", "job.succeeded"];
        assert_eq!(types_of(&events), whole);
        let job = client.get(&format!("/v1/jobs/{job}")).expect(200).json();
        assert_eq!(job["attempt"], 1, "a try that died with its node does not count");
    }
    book.inspect(&client, 20);
}

#[test]
fn a_node_that_was_frozen_past_its_leases_changes_nothing() {
    let database = Database::fresh(Backend::Postgres);
    let application = Application::create(&database, "shop");
    let book = Book::open(&application, 8, SEED + 10);
    let first = Server::on(&database, &SETTINGS);
    let on_first = first.client_of(&application);
    let jobs: Vec<String> =
        (0..20).flat_map(|_| book.place(&on_first, &book.single(LONG))).collect();
    jobs.iter().for_each(|job| wait_for_starts(&on_first, job, 1, PATIENCE));
    let begun = Instant::now();
    let second = Server::on(&database, &SETTINGS);
    let on_second = second.client_of(&application);
    // Under load, so that it is frozen with transactions open and webhooks on their way.
    let clients = [
        book.load(on_first.clone(), SEED + 1),
        book.load(on_first.clone(), SEED + 2),
        book.load(on_second.clone(), SEED + 3),
    ];
    let before = book.received();
    eventually("the load has begun", PATIENCE, || (book.received() > before + 20).then_some(()));

    first.freeze();
    taken_over(&on_second, &jobs, now());
    // Its tries are over by its own clock, so it speaks up at once, while the other works.
    eventually("its tries are over", PATIENCE, || {
        (begun.elapsed().as_secs_f64() > LONG).then_some(())
    });
    first.thaw();
    let answer = eventually("it works again", PATIENCE, || {
        on_first.request("GET", "/readyz").try_send().ok().filter(|answer| answer.status == 200)
    });
    drop(answer);
    book.stop();
    clients.into_iter().for_each(|client| client.join().expect("every request is answered"));

    // Both go on.
    for client in [&on_first, &on_second] {
        for _ in 0..20 {
            book.place(client, &book.single(0.05));
        }
    }
    let account = book.settle(PATIENCE);
    eprintln!("{} jobs, {} repeats", account.jobs, account.repeats);
    assert!(account.given_up.is_empty(), "{:?}", account.given_up);
    for job in &jobs {
        let events = events_of(&on_second, job);
        let whole = ["job.created", "job.started", "job.rescued", "job.started", "job.succeeded"];
        assert_eq!(types_of(&events), whole);
        let started = events.iter().rev().find(|event| event["type"] == "job.started");
        let worked =
            seconds_of(events.last().expect("an end")) - seconds_of(started.expect("a start"));
        assert!(worked >= LONG - 0.1, "ended after {worked} s: by the one that was late");
    }
    let alone = [&on_first, &on_second].map(|client| client.get("/readyz").status);
    assert_eq!(alone, [200, 200]);
    book.inspect(&on_first, 20);
}

on_both!(async a_claim_without_an_answer_leaves_nothing_behind);
async fn a_claim_without_an_answer_leaves_nothing_behind(database: Database) {
    let receiver = Receiver::start();
    let node = Node::start(&database).await;
    let (caller, secret) = node.application("shop").await;
    receiver.trust(&secret);
    let mut job = scripted_job();
    job.callback = Some(callback(&receiver.url("/hook")));
    let job = node.submit(&caller, job).await;
    // Nobody learns what was claimed, as when the connection breaks during COMMIT.
    let queues = vec![("default".to_owned(), 10)];
    assert_eq!(node.engine.claim(queues, 10).await.expect("a claim").jobs.len(), 1);
    assert_eq!(node.engine.rescue().await.expect("a sweep"), 0, "its node is alive");
    node.runner.rescue_strays().await.expect("a look");
    node.work().await;
    let types = node.event_types(&caller, job.id).await;
    let whole = ["job.created", "job.started", "job.rescued", "job.started", "job.succeeded"];
    assert_eq!(types, whole);

    let lanes = node.engine.look_for_lanes().await.expect("lanes").waiting;
    let wanted = lanes.iter().map(|(lane, _)| wish(*lane)).collect();
    assert_eq!(node.engine.claim_deliveries(wanted).await.expect("a claim").len(), 1);
    assert_eq!(node.engine.rescue().await.expect("a sweep"), 0, "its node is alive");
    node.dispatcher.return_strays().await.expect("a look");
    node.send().await;
    assert_eq!(receiver.log().len(), 1);
    let (deliveries, _) = node
        .engine
        .list_deliveries(&caller, &of_job(job.id), (i64::MAX, i64::MAX), 10)
        .await
        .expect("a list");
    let detail = node.engine.find_delivery(&caller, deliveries[0].id).await.expect("a delivery");
    let outcomes: Vec<String> =
        detail.attempt_log.expect("a log").into_iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, ["unknown", "delivered"]);
}

on_both!(async another_nodes_deliveries_are_not_ours_to_give_back);
async fn another_nodes_deliveries_are_not_ours_to_give_back(database: Database) {
    let receiver = Receiver::start();
    let (late, heir) = (Node::start(&database).await, Node::start(&database).await);
    let (caller, secret) = late.application("shop").await;
    receiver.trust(&secret);
    let mut job = scripted_job();
    job.callback = Some(callback(&receiver.url("/hook")));
    late.submit(&caller, job).await;
    late.work().await;
    let wanted = || async {
        let lanes = heir.engine.look_for_lanes().await.expect("lanes").waiting;
        lanes.iter().map(|(lane, _)| wish(*lane)).collect::<Vec<_>>()
    };
    let first = late.engine.claim_deliveries(wanted().await).await.expect("a claim");
    late.engine.leave().await.expect("it counts as dead");
    assert_eq!(heir.engine.rescue().await.expect("a sweep"), 1);
    let second = heir.engine.claim_deliveries(wanted().await).await.expect("a claim");
    assert_eq!((first.len(), second.len()), (1, 1));

    let keys = vec![first[0].key];
    late.engine.return_deliveries(keys.clone()).await.expect("nothing to give");
    assert_eq!(heir.engine.own_deliveries().await.expect("leases"), keys, "the heir keeps it");
    heir.engine.return_deliveries(keys).await.expect("its own");
    assert!(heir.engine.own_deliveries().await.expect("leases").is_empty());
}

on_both!(a_node_that_was_frozen_alone_takes_its_work_up_again);
fn a_node_that_was_frozen_alone_takes_its_work_up_again(database: Database) {
    let application = Application::create(&database, "shop");
    let book = Book::open(&application, 4, SEED + 20);
    let server = Server::on(&database, &SETTINGS);
    let client = server.client_of(&application);
    // Longer than a node's life, so that they are at work when it wakes.
    let jobs: Vec<String> = (0..5).flat_map(|_| book.place(&client, &book.single(10.0))).collect();
    jobs.iter().for_each(|job| wait_for_starts(&client, job, 1, PATIENCE));
    server.freeze();
    let mut connection = database.connect();
    eventually("its leases are over", PATIENCE, || {
        let now = ringback::clock::Clock::system().now().0;
        let probe = format!("SELECT 1 / (SELECT COUNT(*) FROM nodes WHERE expires_at < {now})");
        match database.backend() {
            Backend::Postgres => connection.batch(&probe).ok(),
            // Division by zero is null here.
            Backend::Sqlite => {
                let probe = format!(
                    "CREATE TEMP TABLE IF NOT EXISTS probe (dead INTEGER CHECK (dead > 0)); \
                     INSERT INTO probe SELECT COUNT(*) FROM nodes WHERE expires_at < {now}"
                );
                connection.batch(&probe).ok()
            }
        }
    });
    drop(connection);
    server.thaw();
    let account = book.settle(PATIENCE);
    assert_eq!((account.jobs, account.given_up.len()), (5, 0));
    book.inspect(&client, 5);
}
