//! That ordered endpoints got everything in order, whatever has happened: a repetition comes before
//! its successor, and nothing comes before its predecessor.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringback::engine::{Caller, FeedFilter, Ordering};
use uuid::Uuid;

use super::{path_of, relay};
use crate::support::node::Node;
use crate::support::receiver::{Received, Receiver};

/// Compares what arrived with the feed.
pub async fn arrived_in_order(node: &Node, caller: &Caller, receiver: &Receiver) {
    let feed = feed(node, caller).await;
    let all: Vec<String> = feed.iter().map(|(id, _)| id.to_string()).collect();
    let strict = receiver.log_of(&path_of(Ordering::Strict));
    assert_eq!(told(strict.iter()), all, "a strict endpoint follows the feed");

    let mut of_subject: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
    for (id, subject) in &feed {
        of_subject.entry(*subject).or_default().push(id.to_string());
    }
    let by_job = receiver.log_of(&path_of(Ordering::PerJob));
    for (subject, ids) in of_subject {
        let mine = by_job.iter().filter(|one| ids.iter().any(|id| id == one.webhook_id()));
        assert_eq!(told(mine), ids, "one after the other of {subject}");
    }
}

/// Every event that endpoints want by default, in the order of the commits, with its subject.
async fn feed(node: &Node, caller: &Caller) -> Vec<(Uuid, Uuid)> {
    relay(node).await;
    let (mut after, mut feed) = (0, Vec::new());
    loop {
        let filter = FeedFilter::default();
        let page = node.engine.feed_page(caller.application, after, &filter, 500).await.unwrap();
        let wanted = page.events.iter().filter(|one| one.event.event_type != "job.progressed");
        feed.extend(wanted.map(|one| (one.event.id, one.event.subject_id)));
        if page.next == after {
            return feed;
        }
        after = page.next;
    }
}

/// Ids as they came, without repetitions of the one before.
fn told<'a>(log: impl Iterator<Item = &'a Arc<Received>>) -> Vec<String> {
    let mut ids: Vec<String> = log.map(|one| one.webhook_id().to_owned()).collect();
    ids.dedup();
    ids
}
