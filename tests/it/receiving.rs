//! `docs/receiving.md` keeps its word: its samples take what is real, once and in order, and refuse
//! what was tampered with.

mod delivery;
mod document;
mod running;
#[path = "receiving/sample.rs"]
#[expect(clippy::disallowed_methods, reason = "a program of its own, for readers")]
mod rust_sample;
mod variants;

use ringback::engine::NewJob;
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use self::delivery::{Delivery, now};
use self::running::Running;
use crate::support::database::{Backend, Database, block_on};
use crate::support::node::{Node, callback, scripted_job};

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_SECRET: &str = "whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
const LARGEST_BODY: usize = 256 * 1024;

#[test]
fn the_python_sample_takes_what_is_real_and_nothing_else() {
    check(&running::python(SECRET));
    block_on(meets_the_product(running::python));
}

#[test]
fn the_node_sample_takes_what_is_real_and_nothing_else() {
    check(&running::node(SECRET));
    block_on(meets_the_product(running::node));
}

#[test]
fn the_rust_sample_takes_what_is_real_and_nothing_else() {
    check(&running::rust(SECRET));
    block_on(meets_the_product(running::rust));
}

/// A job runs and its webhook is delivered, by the product from end to end.
async fn meets_the_product(start: fn(&str) -> Running) {
    let database = Database::fresh(Backend::Sqlite);
    let node = Node::start(&database).await;
    let (caller, secret) = node.application("shop").await;
    let sample = start(&secret);
    let hook = callback(&format!("{}/webhooks", sample.url()));
    let job = node.submit(&caller, NewJob { callback: Some(hook), ..scripted_job() }).await;
    node.work().await;
    node.send().await;
    let owed = node.engine.delivery_depth().await.expect("a count").owed;
    assert_eq!(owed, 0, "it was received");
    sample.takes(&[format!("job.succeeded {} 3", job.id)]);
}

fn check(sample: &Running) {
    let url = sample.url();
    let [created, mut started, succeeded, trashed] =
        ["job.created", "job.started", "job.succeeded", "job.trashed"]
            .map(|event| Delivery::of(event, SECRET));

    for (what, spoiled) in started.spoiled() {
        assert_eq!(spoiled.send(&url), Some(401), "{what}");
    }
    for (what, age) in [("too old", 301), ("too new", -3_600)] {
        let late = Delivery::signed(&started.body, SECRET, now() - age);
        assert_eq!(late.send(&url), Some(401), "{what}");
    }
    let stranger = Delivery::signed(&started.body, OTHER_SECRET, now());
    assert_eq!(stranger.send(&url), Some(401), "signed by somebody else");
    assert_eq!(sample.lines(), [""; 0]);

    // What was refused did not make the real one look like a duplicate.
    assert_eq!(started.send(&url), Some(204));
    assert_eq!(started.send(&url), Some(204), "once more is fine");
    // By its id alone it is known; what is in it is not looked at again.
    let id = started.header("webhook-id").clone();
    let known = Delivery::signed_as(&id, &padded(1_000).body, SECRET, now());
    assert_eq!(known.send(&url), Some(204));
    assert_eq!(created.send(&url), Some(204), "late is fine");
    let earlier = Delivery::signed(&succeeded.body, SECRET, now() - 120);
    assert_eq!(earlier.send(&url), Some(204), "two minutes on the way are fine");
    let other = Webhook::new(OTHER_SECRET).unwrap();
    let id = trashed.clone().header("webhook-id").clone();
    let old = other.sign(&id, now(), &trashed.body).unwrap();
    let rotating = trashed.with("webhook-signature", |new| format!("v1a,AAAA {old} {new}"));
    assert_eq!(rotating.send(&url), Some(204), "one that fits is enough");
    sample.takes(&[started.line(), succeeded.line(), trashed.line()]);

    let largest = padded(LARGEST_BODY);
    assert_eq!(largest.send(&url), Some(204));
    let too_large = padded(LARGEST_BODY + 1).send(&url);
    assert!(too_large.is_none_or(|status| status >= 400), "{too_large:?}");
    sample.takes(&[started.line(), succeeded.line(), trashed.line(), largest.line()]);
}

/// A webhook whose body has that many bytes.
fn padded(bytes: usize) -> Delivery {
    let id = ringback::ids::new_id();
    let body = |padding: usize| -> Value {
        json!({"id": id, "type": "job.failed", "sequence": 3,
               "data": {"id": id, "padding": "x".repeat(padding)}})
    };
    let room = bytes - body(0).to_string().len();
    let body = body(room).to_string();
    assert_eq!(body.len(), bytes);
    Delivery::signed(body.as_bytes(), SECRET, now())
}
