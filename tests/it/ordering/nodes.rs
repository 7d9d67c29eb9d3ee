//! The order over several nodes: with many writers at once, and when the one that sends goes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ringback::clock::Clock;
use ringback::engine::{Caller, Next, Ordering};
use ringback::formats::Formats;

use super::{claim, record, told, tried_once};
use crate::support::database::{Backend, Database, block_on, on_both};
use crate::support::loops::Loops;
use crate::support::node::{Node, bounded, scripted_job};
use crate::support::receiver::{Receiver, Reply};
use crate::support::shop::{Shop, ids, ordered, register, whole_feed};
use crate::support::wait::eventually_async;

const PATIENCE: Duration = Duration::from_secs(60);

/// Two nodes at work on Postgres, and several endpoints, so that both have lanes to send on.
struct Pair {
    database: Database,
    nodes: [Arc<Node>; 2],
    caller: Caller,
    receiver: Receiver,
}

const PATHS: [&str; 4] = ["/a", "/b", "/c", "/d"];
/// Where another endpoint is told in the order of each job.
const PER_JOB: &str = "/per-job";

impl Pair {
    async fn start() -> Pair {
        let database = Database::fresh(Backend::Postgres);
        let start = || Node::start_with(&database, Clock::system(), Formats::standard_only());
        let nodes = [Arc::new(start().await), Arc::new(start().await)];
        // The second one takes what the first one gives up.
        nodes[0].beat().await;
        nodes[1].beat().await;
        let receiver = Receiver::start();
        let (caller, _) = nodes[0].application("shop").await;
        for path in PATHS.into_iter().chain([PER_JOB]) {
            let ordering = if path == PER_JOB { Ordering::PerJob } else { Ordering::Strict };
            let settings = ordered(ordering, &[0, 0, 0, 0]);
            register(&nodes[0], &caller, &receiver, path, settings).await;
            let mut requests = 0;
            receiver.on_with(path, move |_| {
                requests += 1;
                if requests % 50 == 20 { Reply::status(400) } else { Reply::ok() }
            });
        }
        Pair { database, nodes, caller, receiver }
    }

    /// So many tasks on both nodes submit so many jobs each.
    async fn write(&self, writers: usize, jobs: usize) {
        let writers = (0..writers).map(|number| {
            let (node, caller) = (Arc::clone(&self.nodes[number % 2]), self.caller.clone());
            tokio::spawn(async move {
                for _ in 0..jobs {
                    node.submit(&caller, scripted_job()).await;
                }
            })
        });
        for writer in futures_util::future::join_all(writers).await {
            writer.expect("every job is taken");
        }
    }

    /// The feed, once so many jobs have ended and every endpoint has got all about them.
    async fn settled(&self, jobs: usize) -> Vec<String> {
        eventually_async("all of it to arrive", PATIENCE, async || {
            let feed = whole_feed(&self.nodes[1], &self.caller).await;
            let ends = feed.iter().filter(|one| one.event.event_type == "job.succeeded").count();
            let has_all = |path: &&str| self.different(path) >= feed.len();
            let whole = PATHS.iter().chain([&PER_JOB]).all(has_all);
            let ids = || feed.iter().map(|one| one.event.id.to_string()).collect();
            (ends == jobs && whole).then(ids)
        })
        .await
    }

    fn different(&self, path: &str) -> usize {
        ids(&self.receiver.log_of(path)).into_iter().collect::<HashSet<_>>().len()
    }

    /// Everybody was told in order.
    fn check(&self, feed: &[String]) {
        PATHS.iter().for_each(|path| assert_eq!(self.told(path), feed, "{path}"));
        let mut jobs: HashMap<String, i64> = HashMap::new();
        for (job, sequence) in told(&self.receiver.log_of(PER_JOB)) {
            let last = jobs.entry(job).or_default();
            assert!(sequence == *last || sequence == *last + 1, "{sequence} after {last}");
            *last = sequence;
        }
    }

    /// What an endpoint was told. What it did not take is sent again before anything else.
    fn told(&self, path: &str) -> Vec<String> {
        let mut told = ids(&self.receiver.log_of(path));
        told.dedup();
        told
    }
}

#[test]
fn what_four_writers_on_two_nodes_do_arrives_in_the_order_of_the_feed() {
    const JOBS: usize = 25;
    block_on(async {
        let pair = Pair::start().await;
        let loops = pair.nodes.each_ref().map(|node| Loops::start(node, 1));
        pair.write(4, JOBS).await;
        let feed = pair.settled(4 * JOBS).await;
        for stopping in loops {
            stopping.stop().await;
        }
        assert_eq!(feed.len(), 4 * JOBS * 3);
        pair.check(&feed);
    });
}

/// Half of the endpoints are its, and most of what it owes is still there when it goes.
#[test]
fn another_node_goes_on_in_order_where_one_has_stopped() {
    const JOBS: usize = 20;
    block_on(async {
        let pair = Pair::start().await;
        let [first, second] = pair.nodes.each_ref().map(|node| Loops::start(node, 1));
        pair.write(2, JOBS).await;
        pair.receiver.wait_for(40, PATIENCE);
        first.kill();
        // What it was just sending is recorded: a request of its that comes late would not be by
        // the order, and nobody can prevent that.
        bounded("its deliveries to end", || pair.nodes[0].dispatcher.in_flight() == 0).await;
        let name = pair.nodes[0].engine.node_name();
        let sql = format!("UPDATE nodes SET expires_at = 0 WHERE name = '{name}'");
        pair.database.connect().batch(&sql).expect("SQL");
        pair.nodes[1].submit(&pair.caller, scripted_job()).await;
        let feed = pair.settled(2 * JOBS + 1).await;
        second.stop().await;
        pair.check(&feed);
    });
}

/// The owner goes with its first delivery sent and nothing known of what came of it.
async fn owner_goes(database: &Database, silently: bool) {
    let mut shop = Shop::open(database).await;
    let endpoint = shop.register("/hook", tried_once(Ordering::Strict)).await;
    shop.run_jobs(3).await;
    let owed = claim(&shop.node).await;
    record(&shop.node, &owed[0], Next::Delivered).await;
    let owed = claim(&shop.node).await;
    shop.node.send_by_hand(&owed[0]).await.expect("it is received");
    if silently {
        let name = shop.node.engine.node_name();
        let sql = format!("UPDATE nodes SET expires_at = 0 WHERE name = '{name}'");
        database.connect().batch(&sql).expect("SQL");
    } else {
        shop.node.engine.leave().await.unwrap();
    }

    let clock = shop.node.clock.clone();
    let next = Node::start_with(database, clock, Formats::standard_only()).await;
    let gone = std::mem::replace(&mut shop.node, next);
    shop.send().await;
    assert_eq!(shop.receiver.count(), 1, "nothing goes past what is under way");
    shop.node.engine.rescue().await.unwrap();
    shop.send().await;
    let feed = shop.feed_ids(&["job.*"]).await;
    let log = shop.receiver.log_of("/hook");
    assert_eq!(log[0].webhook_id(), feed[1]);
    assert_eq!(ids(&log[1..]), feed[1..], "the one of unknown outcome is sent again first");
    let again = shop.owed_to(endpoint).await.into_iter().find(|one| one.attempts == 2).unwrap();
    let again = shop.delivery(again.id).await;
    assert_eq!((again.webhook_id.to_string(), again.status), (feed[1].clone(), "delivered"));
    let outcomes: Vec<String> =
        again.attempt_log.unwrap().into_iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, ["unknown", "delivered"]);
    assert!(!record(&gone, &owed[0], Next::Delivered).await.held, "its word comes too late");
    assert_eq!(shop.statuses(endpoint).await, [("delivered", 9)].into());
}

on_both!(async an_owner_that_leaves_leaves_the_order_behind);
async fn an_owner_that_leaves_leaves_the_order_behind(database: Database) {
    owner_goes(&database, false).await;
}

on_both!(async an_owner_that_falls_silent_leaves_the_order_behind);
async fn an_owner_that_falls_silent_leaves_the_order_behind(database: Database) {
    owner_goes(&database, true).await;
}
