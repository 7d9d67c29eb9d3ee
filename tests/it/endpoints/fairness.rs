//! Nobody waits for somebody else's receiver: not another endpoint, not another application.
//! The dispatcher runs as it does in a server; times are the machine's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringback::delivery::Settings;
use ringback::engine::{Caller, EndpointSettings};
use tokio::sync::watch;

use super::{Endpoint, PATIENCE, World, address, events, register};
use crate::support::database::{Backend, Database, number, on_both};
use crate::support::node::{bounded, scripted_job};
use crate::support::receiver::Reply;
use crate::support::rude;

/// Longer than any of these tests: what hangs, hangs to the end.
const DEADLINE: Duration = Duration::from_secs(120);

/// Requests under way at once on a node here. The descriptors of a test process are counted.
const IN_FLIGHT: usize = 256;

/// Deliveries that the greedy application has waiting.
const QUEUED: i64 = 100_000;

/// How much longer another's first delivery may take because of them.
const DELAY: Duration = Duration::from_secs(1);

impl World {
    async fn hurried(database: &Database) -> World {
        let mut world = World::start(database).await;
        let settings = Settings { deadline: DEADLINE, in_flight: IN_FLIGHT, ..Settings::default() };
        world.send_by(settings).await;
        world
    }

    /// Sends in the background until the switch is dropped.
    fn run(&self) -> watch::Sender<bool> {
        let (switch, shutdown) = watch::channel(false);
        tokio::spawn(Arc::clone(&self.node.dispatcher).run(shutdown, || {}));
        switch
    }

    /// Applications that have an endpoint of their own each and have never been sent anything.
    async fn newcomers(&self) -> Vec<(Caller, String)> {
        let mut all = Vec::new();
        for number in 0..6 {
            let (caller, _) = self.node.application(&format!("newcomer {number}")).await;
            let path = format!("/newcomer/{number}");
            let settings =
                EndpointSettings { events: events(&["job.created"]), ..Default::default() };
            register(&self.node, &caller, address(&self.receiver.url(&path)), settings).await;
            all.push((caller, path));
        }
        all
    }

    /// How long somebody's first delivery takes while nobody else has anything to send.
    async fn undisturbed(&self, newcomer: &(Caller, String)) -> Duration {
        let (switch, shutdown) = watch::channel(false);
        let running = tokio::spawn(Arc::clone(&self.node.dispatcher).run(shutdown, || {}));
        let took = self.first_delivery(newcomer).await;
        self.node.settle_deliveries().await;
        switch.send_replace(true);
        running.await.expect("it ends");
        took
    }

    /// How long it takes until somebody's first delivery has arrived.
    async fn first_delivery(&self, (caller, path): &(Caller, String)) -> Duration {
        let begun = Instant::now();
        self.node.submit(caller, scripted_job()).await;
        let log = self.receiver.wait_for_on(path, 1, PATIENCE);
        log[0].arrived.duration_since(begun)
    }
}

/// This machine may be busy with something else for a moment, but not most of the time.
#[track_caller]
fn in_time(undisturbed: Duration, mut times: Vec<Duration>) {
    eprintln!("first deliveries after {times:?}, undisturbed {undisturbed:?}");
    times.sort_unstable();
    let median = times[times.len() / 2];
    assert!(median < undisturbed + DELAY, "{times:?}, undisturbed {undisturbed:?}");
}

on_both!(async one_that_hangs_holds_up_none_of_a_hundred);
async fn one_that_hangs_holds_up_none_of_a_hundred(database: Database) {
    let world = World::hurried(&database).await;
    world.receiver.on("/hang", [Reply::silence()]);
    let hanging = world.endpoint("/hang").await;
    world.events(150).await;
    let _running = world.run();
    world.receiver.wait_for_on("/hang", 64, PATIENCE);
    for number in 0..100 {
        world.endpoint(&format!("/{number}")).await;
    }
    world.events(3).await;
    let others = |path: &str| path != "/hang";
    world.receiver.wait_until("all of the hundred", PATIENCE, |log| {
        let arrived = log.iter().filter(|one| others(&one.path)).count();
        (arrived == 300).then_some(())
    });
    let statuses = world.statuses(&hanging).await;
    let hang = statuses.iter().filter(|status| **status == "sending").count();
    assert_eq!((hang, world.came("/hang")), (64, 64), "it hangs on all its slots");
}

on_both!(async thirty_that_hang_hold_up_none_of_a_hundred);
async fn thirty_that_hang_hold_up_none_of_a_hundred(database: Database) {
    let world = World::hurried(&database).await;
    for number in 0..30 {
        let path = format!("/hang/{number}");
        world.receiver.on(&path, [Reply::silence()]);
        world.endpoint(&path).await;
    }
    world.events(100).await;
    let _running = world.run();
    for number in 0..30 {
        world.receiver.wait_for_on(&format!("/hang/{number}"), 1, PATIENCE);
    }
    for number in 0..100 {
        world.endpoint(&format!("/well/{number}")).await;
    }
    world.events(3).await;
    world.receiver.wait_until("all of the hundred", PATIENCE, |log| {
        let arrived = log.iter().filter(|one| one.path.starts_with("/well")).count();
        (arrived == 300).then_some(())
    });
}

/// Every row of a table that a condition names, `count` times more, changed like that.
fn multiply(database: &Database, table: &str, condition: &str, count: i64, changes: &str) {
    let unique = match database.backend() {
        Backend::Sqlite => "randomblob(16)",
        Backend::Postgres => "decode(md5(random()::text || clock_timestamp()::text || n), 'hex')",
    };
    let changes = changes.replace("UNIQUE", unique).replace("FAR", "n * 1000000000");
    let sql = format!(
        "CREATE TEMP TABLE copies AS WITH RECURSIVE numbers (n) AS \
         (SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}) \
         SELECT t.*, n FROM {table} t, numbers WHERE {condition}; \
         UPDATE copies SET {changes}; ALTER TABLE copies DROP COLUMN n; \
         INSERT INTO {table} SELECT * FROM copies; DROP TABLE copies"
    );
    database.connect().batch(&sql).expect("SQL of ours");
}

/// Gives an endpoint so many more like it, each with a lane of its own, and owes them all so many
/// events: as the system itself would leave it, only faster.
async fn queue(world: &World, database: &Database, endpoint: &Endpoint, endpoints: i64) {
    let key = world.view(endpoint).await.key;
    if endpoints > 1 {
        let changes = "id = id + FAR, public_id = UNIQUE, digest = digest || n, lane = lane + n";
        multiply(database, "receivers", &format!("id = {key}"), endpoints - 1, changes);
        let changes = "id = id + FAR, public_id = UNIQUE, receiver_id = receiver_id + FAR";
        let its_secrets = format!("receiver_id = {key}");
        multiply(database, "credentials", &its_secrets, endpoints - 1, changes);
        let stamp = "UPDATE applications SET version = version + 1";
        database.connect().batch(stamp).expect("SQL of ours");
    }
    world.event().await;
    let more = QUEUED / endpoints - 1;
    let its_own = "subject_id IN (SELECT subject_id FROM deliveries WHERE status = 0)";
    multiply(database, "bodies", its_own, more, "subject_id = subject_id + FAR");
    let changes = "id = id + FAR, public_id = UNIQUE, subject_id = subject_id + FAR";
    multiply(database, "deliveries", "status = 0", more, changes);
    multiply(database, "live_deliveries", "TRUE", more, "id = id + FAR");
    let sql = "SELECT COUNT(*) AS number FROM live_deliveries";
    assert_eq!(number(database, sql), QUEUED);
}

on_both!(async thousands_of_hanging_lanes_delay_nobody_else);
async fn thousands_of_hanging_lanes_delay_nobody_else(database: Database) {
    let world = World::hurried(&database).await;
    let newcomers = world.newcomers().await;
    let mute = rude::Receiver::start_mute().await;
    let settings = EndpointSettings { events: events(&["job.created"]), ..Default::default() };
    let url = address(&mute.url("/hang"));
    let greedy = register(&world.node, &world.caller, url, settings).await;
    let undisturbed = world.undisturbed(&newcomers[0]).await;
    queue(&world, &database, &greedy, 2_000).await;
    let _running = world.run();
    // The first while they rush in, the others while nothing of theirs moves any more.
    let mut times = vec![world.first_delivery(&newcomers[1]).await];
    bounded("half of all slots to be taken", || mute.connections() >= IN_FLIGHT / 2).await;
    for newcomer in &newcomers[2..] {
        times.push(world.first_delivery(newcomer).await);
    }
    assert!(world.node.dispatcher.in_flight() <= IN_FLIGHT / 2 + newcomers.len());
    in_time(undisturbed, times);
}

on_both!(async a_long_queue_of_one_lane_delays_nobody_else);
async fn a_long_queue_of_one_lane_delays_nobody_else(database: Database) {
    let world = World::hurried(&database).await;
    let newcomers = world.newcomers().await;
    world.receiver.on("/slow", [Reply::ok().after(Duration::from_millis(250))]);
    let greedy = world.endpoint("/slow").await;
    let undisturbed = world.undisturbed(&newcomers[0]).await;
    queue(&world, &database, &greedy, 1).await;
    let _running = world.run();
    world.receiver.wait_for_on("/slow", 100, PATIENCE);
    let mut times = Vec::new();
    for newcomer in &newcomers[1..] {
        times.push(world.first_delivery(newcomer).await);
    }
    in_time(undisturbed, times);
    assert!(world.came("/slow") < 10_000, "there was a queue all the time");
}
