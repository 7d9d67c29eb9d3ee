//! Many writers at once and a reader that follows: it sees everything, and nothing ever comes in
//! behind it.

use std::sync::Arc;
use std::time::Duration;

use ringback::clock::Clock;
use ringback::engine::Caller;
use ringback::formats::Formats;

use super::open_transactions::{FAR, writing_elsewhere, writing_here};
use super::{Line, lines, page};
use crate::support::chance::Chance;
use crate::support::database::{Backend, Database, on_both};
use crate::support::loops::Loops;
use crate::support::node::{Node, scripted_job};
use crate::support::shop::whole_feed;

const WRITERS: usize = 8;
const JOBS: usize = 40;
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads on until it has seen that many events, on one node and then on the other.
async fn follow(nodes: [Arc<Node>; 2], caller: Caller, events: usize) -> Vec<Line> {
    let mut chance = Chance::seeded(8);
    let (mut seen, mut after) = (Vec::new(), 0);
    while seen.len() < events {
        let node = &nodes[usize::try_from(chance.below(2)).unwrap()];
        let limit = usize::try_from(1 + chance.below(50)).unwrap();
        let page = page(node, &caller, after, limit).await;
        seen.extend(lines(&page.events));
        after = page.next;
        if page.events.is_empty() {
            tokio::task::yield_now().await;
        }
    }
    seen
}

on_both!(async no_gap_is_ever_filled_behind_a_reader);
async fn no_gap_is_ever_filled_behind_a_reader(database: Database) {
    let start = || Node::start_with(&database, Clock::system(), Formats::standard_only());
    let nodes = [Arc::new(start().await), Arc::new(start().await)];
    let (caller, _) = nodes[0].application("shop").await;
    // For the whole time, others write and do not come to an end.
    let mut open = Vec::new();
    let elsewhere = (database.backend() == Backend::Postgres).then(writing_elsewhere);
    if elsewhere.is_some() {
        open.push(writing_here(&database, caller.application, FAR));
    }
    let loops = nodes.each_ref().map(|node| Loops::start(node, 3));
    let events = WRITERS * JOBS * 3;
    let reader = tokio::spawn(follow(nodes.clone(), caller.clone(), events));
    let writers = (0..WRITERS).map(|number| {
        let (node, caller) = (Arc::clone(&nodes[number % 2]), caller.clone());
        tokio::spawn(async move {
            for _ in 0..JOBS {
                node.submit(&caller, scripted_job()).await;
            }
        })
    });
    for writer in futures_util::future::join_all(writers).await {
        writer.expect("every job is taken");
    }
    let seen = tokio::time::timeout(PATIENCE, reader).await.expect("it sees them all").unwrap();
    for stopping in loops {
        stopping.stop().await;
    }
    let positions: Vec<i64> = seen.iter().map(|line| line.0).collect();
    let whole: Vec<i64> = (1..=i64::try_from(events).unwrap()).collect();
    assert_eq!(positions, whole, "every place, each once, in order");
    assert_eq!(lines(&whole_feed(&nodes[1], &caller).await), seen, "and so it is read again");
}
