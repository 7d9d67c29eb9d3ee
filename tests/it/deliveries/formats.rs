//! A second format that differs from the standard one in all four ways; and who gets which events.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use ringback::clock::Clock;
use ringback::engine::NewCallback;
use ringback::formats::hex::sign_hex;
use ringback::formats::standard::signed_headers;
use ringback::formats::{
    AttemptView, DeliveryFormat, EventView, Formats, Header, Judgement, PreviousFailure, Schedule,
    Signature, SigningKeys, SigningSecret, Verdict,
};

use super::World;
use crate::support::database::{Database, on_both};
use crate::support::node::{Node, callback, scripted_job};
use crate::support::receiver::Reply;

const HALF_HOUR: Duration = Duration::from_secs(30 * 60);

/// As some vendor might want it.
struct Vendor {
    schedule: Schedule,
    rendered: Arc<AtomicUsize>,
}

impl DeliveryFormat for Vendor {
    fn name(&self) -> &'static str {
        "vendor"
    }

    fn body(&self, event: &EventView<'_>, _: &str) -> String {
        self.rendered.fetch_add(1, Ordering::SeqCst);
        format!(r#"{{"job":{},"attachment":{{"event":"{}"}}}}"#, event.data, event.event_type)
    }

    fn headers(
        &self,
        attempt: &AttemptView<'_>,
        keys: &SigningKeys,
        signature: Signature,
        body: &str,
        previous: Option<&PreviousFailure<'_>>,
    ) -> Vec<Header> {
        let mut headers = signed_headers(attempt, keys, signature, body, previous);
        let texts = keys.secrets.iter().map(SigningSecret::text);
        let signature = sign_hex(texts, attempt.timestamp_seconds, body);
        headers.push(("x-vendor-signature", Cow::Owned(signature)));
        headers.push(("x-vendor-event", Cow::Owned(attempt.event_type.to_owned())));
        headers
    }

    fn judge(&self, status: u16, _: &[(String, String)], _: DateTime<Utc>) -> Judgement {
        Judgement::from(match status {
            200 => Verdict::Delivered,
            406 => Verdict::Final { reason: "not_acceptable" },
            _ => Verdict::Retry { at: None },
        })
    }

    fn schedule(&self) -> &Schedule {
        &self.schedule
    }
}

async fn world_with_vendor(database: &Database) -> (World, Arc<AtomicUsize>) {
    let rendered = Arc::<AtomicUsize>::default();
    let schedule = Schedule::every(HALF_HOUR, Duration::from_secs(24 * 60 * 60));
    let vendor = Vendor { schedule, rendered: Arc::clone(&rendered) };
    let mut formats = Formats::standard_only();
    formats.register(Arc::new(vendor)).expect("a new name");
    let clock = Clock::manual(Clock::system().now());
    (World::on(Node::start_with(database, clock, formats).await).await, rendered)
}

fn vendor(url: &str) -> NewCallback {
    NewCallback { format: "vendor".to_owned(), ..callback(url) }
}

on_both!(async a_format_decides_body_headers_receipt_and_schedule);
async fn a_format_decides_body_headers_receipt_and_schedule(database: Database) {
    let (world, rendered) = world_with_vendor(&database).await;
    world.receiver.otherwise([Reply::status(201)]);
    let standard = world.submit(callback(&world.receiver.url("/standard"))).await;
    let other = world.submit(vendor(&world.receiver.url("/vendor"))).await;
    world.node.work().await;
    world.node.send().await;
    let received = world.delivery_of(standard.id).await;
    assert_eq!((received.status, received.attempts), ("delivered", 1), "201 is received");
    let request = world.receiver.log_of("/standard")[0].json();
    assert_eq!(request["data"]["id"], standard.id.to_string());
    assert!(request.get("job").is_none());

    for made in 1..49 {
        let delivery = world.delivery_of(other.id).await;
        assert_eq!((delivery.status, delivery.attempts), ("pending", made), "201 is not");
        let due = world.node.engine.now().plus(HALF_HOUR);
        assert_eq!(delivery.next_attempt_at, Some(due));
        world.wait(HALF_HOUR).await;
        world.node.send().await;
    }
    let delivery = world.delivery_of(other.id).await;
    assert_eq!((delivery.status, delivery.attempts), ("exhausted", 49), "after 24 hours");
    let log = world.receiver.log_of("/vendor");
    assert_eq!(log.len(), 49);
    assert_eq!(rendered.load(Ordering::SeqCst), 1, "rendered once, sent 49 times");
    let body = log[0].json();
    assert_eq!(body["job"]["id"], other.id.to_string());
    assert_eq!(body["attachment"]["event"], "job.succeeded");
    for request in &log {
        assert_eq!(request.body, log[0].body);
        assert_eq!(request.header("x-vendor-event"), Some("job.succeeded"));
        let time: i64 = request.header("webhook-timestamp").unwrap().parse().unwrap();
        let text = std::str::from_utf8(&request.body).unwrap();
        let expected = sign_hex([world.secret.as_str()], time, text);
        assert_eq!(request.header("x-vendor-signature"), Some(expected.as_str()));
    }
    log[0].signed();
}

on_both!(async a_format_says_what_is_received_and_what_is_final);
async fn a_format_says_what_is_received_and_what_is_final(database: Database) {
    let (world, _) = world_with_vendor(&database).await;
    world.receiver.on("/good", [Reply::status(204), Reply::ok()]);
    world.receiver.on("/never", [Reply::status(406)]);
    let good = world.submit(vendor(&world.receiver.url("/good"))).await;
    let never = world.submit(vendor(&world.receiver.url("/never"))).await;
    let same = world.submit(callback(&world.receiver.url("/never"))).await;
    world.node.work().await;
    world.node.send().await;
    let ended = world.delivery_of(never.id).await;
    assert_eq!((ended.status, ended.reason.as_deref()), ("exhausted", Some("not_acceptable")));
    assert_eq!(world.delivery_of(same.id).await.status, "pending", "to the standard one it is not");
    world.wait(HALF_HOUR).await;
    world.node.send().await;
    let received = world.delivery_of(good.id).await;
    assert_eq!((received.status, received.attempts), ("delivered", 2));
}

on_both!(async a_callback_gets_the_events_it_asks_for);
async fn a_callback_gets_the_events_it_asks_for(database: Database) {
    let world = World::start(&database).await;
    let whole = ["job.created", "job.started", "job.succeeded"];
    let cases: [(Option<&[&str]>, &[&str]); 6] = [
        (None, &["job.succeeded"]),
        (Some(&["job.*"]), &whole),
        (Some(&["*"]), &whole),
        (Some(&["job.started", "job.failed"]), &["job.started"]),
        (Some(&["job.failed"]), &[]),
        (Some(&["group.completed"]), &[]),
    ];
    let mut jobs = Vec::new();
    for (number, (wanted, expected)) in cases.into_iter().enumerate() {
        let mut hook = callback(&world.receiver.url(&format!("/{number}")));
        hook.events = wanted.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let mut job = scripted_job();
        job.callback = Some(hook);
        jobs.push((job, number, expected));
    }
    // In one group: its end goes to the group's callback and to nobody else's.
    let hook = Some(callback(&world.receiver.url("/group")));
    let drafts = jobs.iter().map(|(job, ..)| job.clone()).collect();
    let batch = world.node.engine.submit_batch(&world.caller, drafts, hook, None, "r").await;
    let batch = batch.unwrap();
    world.node.work().await;
    world.node.send().await;
    for (_, number, expected) in jobs {
        let log = world.receiver.log_of(&format!("/{number}"));
        let mut told: Vec<(i64, String)> = log
            .iter()
            .map(|request| {
                let body = request.signed().json();
                assert_eq!(body["data"]["id"], batch.jobs[number].id.to_string());
                (body["sequence"].as_i64().unwrap(), body["type"].as_str().unwrap().to_owned())
            })
            .collect();
        told.sort_unstable();
        let types: Vec<&str> = told.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(types, expected, "callback {number}");
    }
    let log = world.receiver.log_of("/group");
    let types: Vec<_> = log.iter().map(|request| request.json()["type"].clone()).collect();
    assert_eq!(types, ["group.completed"]);
}
