//! A node that dies between any two steps of a job's way, and random steps of two nodes that die.
//!
//! After each of them another node brings everything to its end, and the database is audited.

mod audit;
mod order;
mod random;
mod steps;

use ringback::engine::{Address, Caller, EndpointSettings, NewEndpoint, Ordering};

use crate::support::node::Node;
use crate::support::receiver::Receiver;

/// Where endpoints receive, by the order they ask for.
fn path_of(ordering: Ordering) -> String {
    format!("/{}", ordering.as_str())
}

/// One endpoint of each order.
async fn register_endpoints(node: &Node, caller: &Caller, receiver: &Receiver) {
    for ordering in Ordering::ALL {
        let url = receiver.url(&path_of(ordering));
        let origin = url::Url::parse(&url).expect("a URL").origin().ascii_serialization();
        let new = NewEndpoint {
            address: Address { shown_url: url.clone(), url, origin },
            settings: EndpointSettings { ordering, ..EndpointSettings::default() },
            enabled: true,
        };
        let made = node.engine.create_endpoint(caller, new).await.expect("it is registered");
        receiver.trust(&made.key.expect("a secret").shown);
    }
}

/// Gives every event its place in the feed.
async fn relay(node: &Node) {
    while node.engine.relay().await.expect("the relay") {}
}
