//! Nodes that see each other's end by the session that guards each, on Postgres. Step by step.

use std::time::Duration;

use ringback::engine::{SHARDS, Sight};

use crate::support::database::{Backend, Database, on_both};
use crate::support::node::{Node, scripted_job};
use crate::support::wait::eventually_async;

const PATIENCE: Duration = Duration::from_secs(60);

/// Two nodes that have seen each other; the first sends for all lanes.
async fn pair(database: &Database) -> (Node, Node) {
    let (first, second) = (Node::start(database).await, Node::start(database).await);
    for node in [&first, &second] {
        assert_eq!(node.engine.look_around().await, Sight::News, "it has a guard now");
        node.engine.beat(node.engine.now()).await.unwrap();
    }
    for node in [&first, &second] {
        assert_eq!(node.engine.look_around().await, Sight::Quiet);
    }
    (first, second)
}

/// Ends the session that guards the older of two nodes.
fn end_oldest_guard(database: &Database) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' \
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
               AND classid = 1919512167 AND granted \
               ORDER BY objid LIMIT 1";
    database.connect().batch(sql).expect("a session ends");
}

/// Looks until there is news.
async fn news(node: &Node) {
    eventually_async("news of the other", PATIENCE, async || {
        (node.engine.look_around().await == Sight::News).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_process_is_seen_and_its_lanes_and_work_go_on() {
    let database = Database::fresh(Backend::Postgres);
    let (first, second) = pair(&database).await;
    let (caller, _) = first.application("shop").await;
    let job = first.submit(&caller, scripted_job()).await;
    let queues = vec![("default".to_owned(), 1)];
    assert_eq!(first.engine.claim(queues, 1).await.unwrap().jobs.len(), 1);
    drop(first);

    news(&second).await;
    let standing = second.engine.beat(second.engine.now()).await.unwrap();
    assert!(standing.others_ended);
    assert_eq!((standing.alive, standing.shards.len() as i64), (1, SHARDS));
    assert_eq!(second.engine.rescue().await.unwrap(), 1, "long before its last beat is too old");
    let types = second.event_types(&caller, job.id).await;
    assert_eq!(types, ["job.created", "job.started", "job.rescued"]);
}

#[tokio::test]
async fn lanes_that_their_finder_has_no_room_for_are_free_for_the_others() {
    let database = Database::fresh(Backend::Postgres);
    let (first, second) = pair(&database).await;
    let third = Node::start(&database).await;
    third.engine.look_around().await;
    let kept = third.engine.beat(third.engine.now()).await.unwrap();
    assert!(kept.shards.is_empty(), "the first has all");
    drop(first);

    news(&second).await;
    let standing = second.engine.beat(second.engine.now()).await.unwrap();
    assert_eq!((standing.alive, standing.shards.len()), (2, 32));
    assert_eq!(third.engine.look_around().await, Sight::News, "there is room for the rest");
    assert_eq!(third.engine.beat(third.engine.now()).await.unwrap().shards.len(), 32);
    assert_eq!(third.engine.look_around().await, Sight::Quiet);
}

#[tokio::test]
async fn a_node_that_loses_its_session_knows_and_is_not_taken_for_dead() {
    let database = Database::fresh(Backend::Postgres);
    let (first, second) = pair(&database).await;
    end_oldest_guard(&database);
    assert_eq!(first.engine.look_around().await, Sight::GuardLost);
    // It says so, and from then on only its beats count.
    first.engine.beat(first.engine.now()).await.unwrap();
    let seen = second.engine.look_around().await;
    assert!(matches!(seen, Sight::Quiet), "{seen:?}");
    assert_eq!(first.engine.look_around().await, Sight::News, "it has another guard");
    assert_eq!(first.engine.beat(first.engine.now()).await.unwrap().surplus.len(), 32);
    assert_eq!(second.engine.look_around().await, Sight::Quiet);
}

#[tokio::test]
async fn a_node_that_gets_no_guard_knows_that_it_has_none() {
    let database = Database::fresh(Backend::Postgres);
    let node = Node::start(&database).await;
    assert_eq!(node.engine.look_around().await, Sight::News, "it has a guard now");
    assert_eq!(node.engine.look_around().await, Sight::Quiet);
    end_oldest_guard(&database);
    // Somebody else has its lock as soon as its session is gone.
    let lock = "SELECT pg_advisory_lock(1919512167, (id & 2147483647)::int) FROM nodes";
    let other = database.hold(lock);
    assert_eq!(node.engine.look_around().await, Sight::GuardLost);
    for _ in 0..2 {
        assert_eq!(node.engine.look_around().await, Sight::Unguarded);
    }
    drop(other);
    news(&node).await;
}

#[tokio::test]
async fn a_node_that_was_taken_for_dead_and_is_not_gets_no_lanes_that_are_others() {
    let database = Database::fresh(Backend::Postgres);
    let (first, second) = pair(&database).await;
    end_oldest_guard(&database);
    news(&second).await;
    let heir = second.engine.beat(second.engine.now()).await.unwrap();
    assert_eq!(heir.shards.len() as i64, SHARDS);

    assert_eq!(first.engine.look_around().await, Sight::GuardLost);
    let standing = first.engine.beat(first.engine.now()).await.unwrap();
    assert_eq!((standing.alive, standing.shards.len()), (2, 0));
    let heir = second.engine.beat(second.engine.now()).await.unwrap();
    assert_eq!((heir.shards.len(), heir.surplus.len()), (32, 32), "it shares as with any other");
}

#[tokio::test]
async fn a_successor_that_never_saw_it_alive_finds_out_too() {
    let database = Database::fresh(Backend::Postgres);
    let (first, second) = pair(&database).await;
    drop((first, second));
    let successor = Node::start(&database).await;
    assert_eq!(successor.engine.look_around().await, Sight::News, "of its own guard");
    let standing = successor.engine.beat(successor.engine.now()).await.unwrap();
    assert_eq!((standing.alive, standing.shards.len()), (3, 0), "they may be about to come");
    news(&successor).await;
    let standing = successor.engine.beat(successor.engine.now()).await.unwrap();
    assert_eq!((standing.alive, standing.shards.len() as i64), (1, SHARDS));
}

on_both!(async nobody_is_judged_by_a_guard_that_it_has_not);
async fn nobody_is_judged_by_a_guard_that_it_has_not(database: Database) {
    let (first, second) = (Node::start(&database).await, Node::start(&database).await);
    second.engine.look_around().await;
    second.engine.beat(second.engine.now()).await.unwrap();
    assert_eq!(second.engine.look_around().await, Sight::Quiet);
    let standing = first.engine.beat(first.engine.now()).await.unwrap();
    assert_eq!((standing.alive, standing.others_ended), (2, false));
}
