//! The feed: every event of an application, in the order of the commits, for those who pull.

mod gaps;
mod open_transactions;
mod pages;
mod relay;
mod writers;

use ringback::engine::{Caller, FeedEvent, FeedFilter, FeedPage};
use uuid::Uuid;

use crate::support::node::Node;

/// Position, id, what it is about, and number there: what must never change of an event.
type Line = (i64, Uuid, Uuid, i64);

fn lines(events: &[FeedEvent]) -> Vec<Line> {
    events
        .iter()
        .map(|one| (one.position, one.event.id, one.event.subject_id, one.event.sequence))
        .collect()
}

fn wanting(types: &[&str]) -> FeedFilter {
    FeedFilter { types: types.iter().map(|&name| name.to_owned()).collect() }
}

/// One page of everything.
async fn page(node: &Node, caller: &Caller, after: i64, limit: usize) -> FeedPage {
    let filter = FeedFilter::default();
    node.engine.feed_page(caller.application, after, &filter, limit).await.expect("a page")
}
