//! Every step of one job's way, with a death after each.

use std::sync::Arc;

use ringback::clock::Clock;
use ringback::engine::{
    Caller, ClosedAttempt, DeliveryFilter, EngineError, Idempotency, Next, Ordering, Output,
    OwedDelivery, Record, RenderPayload, StoredJob,
};
use ringback::formats::Formats;
use ringback::handlers::{Ending, Product, Services};
use ringback::ids::new_id;
use ringback::lifecycle::{Refusal, Status};
use uuid::Uuid;

use super::audit::audit;
use super::order::arrived_in_order;
use super::{register_endpoints, relay};
use crate::support::database::{Backend, Database, on_both};
use crate::support::node::{Node, callback, scripted_job, wish};
use crate::support::receiver::Receiver;

/// The last step that the first node lives to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Submit,
    Claim,
    Run,
    Apply,
    ClaimDelivery,
    Send,
    Record,
}

const STEPS: [Step; 7] = [
    Step::Submit,
    Step::Claim,
    Step::Run,
    Step::Apply,
    Step::ClaimDelivery,
    Step::Send,
    Step::Record,
];

/// How others learn of a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// Its process ended in good order, but not its work.
    Left,
    /// Its beats stopped.
    Silent,
    /// On SQLite the next server knows that it is alone.
    Restarted,
}

async fn stage(services: &Services, job: Uuid) -> Output {
    let content = bytes::Bytes::from(format!("made by {job}"));
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(content)]);
    let staged = services.blobs.stage(new_id(), stream, u64::MAX).await.unwrap();
    Output {
        path: format!("/out/{job}.txt"),
        version: staged.key,
        file_id: new_id(),
        size: staged.size,
        sha256: staged.sha256_hex,
        media_type: "text/plain".to_owned(),
        acl: "public".to_owned(),
    }
}

fn render() -> RenderPayload {
    Arc::new(|files| {
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        serde_json::value::to_raw_value(&paths).unwrap()
    })
}

/// Deliveries that can be claimed at once when the job has ended: to the callbacks the job's three
/// events and the group's end; to the endpoint without order these and the new file; to the one
/// that is told job by job the first event of job, file and group; to the strict one the first.
const CLAIMED: usize = 4 + 5 + 3 + 1;

/// What the first node still held when it died.
#[derive(Default)]
struct Held {
    lease: Option<Arc<StoredJob>>,
    owed: Vec<OwedDelivery>,
}

async fn submit(node: &Node, caller: &Caller, receiver: &Receiver) -> (Uuid, Uuid) {
    let mut job = scripted_job();
    let mut hook = callback(&receiver.url("/job"));
    hook.events = Some(vec!["job.*".to_owned()]);
    job.callback = Some(hook);
    let key = Idempotency { key: "once".to_owned(), hash: "same".to_owned() };
    let group = Some(callback(&receiver.url("/group")));
    let batch = node.engine.submit_batch(caller, vec![job], group, Some(key), "r").await.unwrap();
    (batch.group_id, batch.jobs[0].id)
}

fn record(owed: &OwedDelivery, node: &Node) -> Record {
    let closed = ClosedAttempt {
        delivery_id: owed.key,
        number: owed.attempt,
        outcome: "delivered",
        finished_at: node.engine.now().0,
        response_status: Some(200),
        ..ClosedAttempt::default()
    };
    let (delivery, subject, token) = (owed.key, owed.subject, owed.token);
    Record {
        delivery,
        receiver: owed.receiver.key,
        receiver_version: owed.receiver.version,
        subject,
        token,
        closed,
        next: Next::Delivered,
        receiver_gone: false,
        disable: None,
        health: None,
        lane: None,
        is_in_order: owed.receiver.ordering != ringback::engine::Ordering::None,
    }
}

/// Does the steps behind `submit` up to and with `last`.
async fn live_until(last: Step, node: &Node, job: Uuid) -> Held {
    let mut held = Held::default();
    if last < Step::Claim {
        return held;
    }
    let batch = node.engine.claim(vec![("default".to_owned(), 10)], 10).await.unwrap();
    held.lease = Some(Arc::new(batch.jobs[0].job.clone()));
    if last < Step::Run {
        return held;
    }
    let output = stage(&node.services, job).await;
    if last < Step::Apply {
        return held;
    }
    let claimed = held.lease.take().unwrap();
    node.engine.succeed(&claimed, vec![output], render()).await.unwrap();
    if last < Step::ClaimDelivery {
        return held;
    }
    relay(node).await;
    let mut lanes = node.engine.look_for_lanes().await.unwrap().fresh;
    lanes.extend(node.engine.look_for_lanes().await.unwrap().waiting.iter().map(|(lane, _)| *lane));
    let lanes = lanes.into_iter().map(wish).collect();
    held.owed = node.engine.claim_deliveries(lanes).await.unwrap();
    assert_eq!(held.owed.len(), CLAIMED);
    if last < Step::Send {
        return held;
    }
    for owed in &held.owed {
        let answer = node.send_by_hand(owed).await.expect("an answer");
        assert_eq!(answer.status, 200);
    }
    if last < Step::Record {
        return held;
    }
    for owed in std::mem::take(&mut held.owed) {
        assert!(node.engine.record(record(&owed, node)).await.unwrap().held);
    }
    held
}

async fn die(death: Death, node: &Node, database: &Database) {
    match death {
        Death::Left => node.engine.leave().await.unwrap(),
        Death::Silent => {
            let name = node.engine.node_name();
            let sql = format!("UPDATE nodes SET expires_at = 0 WHERE name = '{name}'");
            database.connect().batch(&sql).expect("SQL");
        }
        Death::Restarted => {}
    }
}

/// Another node takes over and works until nothing is left.
async fn take_over(death: Death, node: &Node) {
    node.scripted.set(|context| async move {
        let outputs = vec![stage(&context.services, context.job.id).await];
        Ending::Done(Product { outputs, render: render() })
    });
    if death == Death::Restarted {
        node.engine.forget_other_nodes().await.unwrap();
    }
    node.beat().await;
    node.engine.rescue().await.unwrap();
    node.work().await;
    relay(node).await;
    node.send().await;
}

/// The dead one was only frozen, and goes on where it was.
async fn haunt(node: &Node, job: Uuid, held: Held) {
    if let Some(claimed) = held.lease {
        let output = stage(&node.services, job).await;
        let late = node.engine.succeed(&claimed, vec![output], render()).await;
        assert!(matches!(late, Err(EngineError::Refused(Refusal::LeaseLost { .. }))), "{late:?}");
    }
    for owed in &held.owed {
        assert!(!node.engine.record(record(owed, node)).await.unwrap().held, "too late");
    }
}

async fn die_after(step: Step, death: Death, database: &Database) {
    let clock = Clock::manual(Clock::system().now());
    let first = Node::start_with(database, clock.clone(), Formats::standard_only()).await;
    let receiver = Receiver::start();
    let (caller, secret) = first.application("shop").await;
    receiver.trust(&secret);
    register_endpoints(&first, &caller, &receiver).await;
    let (group, job) = submit(&first, &caller, &receiver).await;
    let held = live_until(step, &first, job).await;
    let (had_lease, unrecorded) = (held.lease.is_some(), held.owed.len());
    die(death, &first, database).await;

    let second = Node::start_with(database, clock, Formats::standard_only()).await;
    take_over(death, &second).await;
    haunt(&first, job, held).await;
    let again = submit(&second, &caller, &receiver).await;
    assert_eq!(again, (group, job), "the same request is the same job");
    second.work().await;
    relay(&second).await;
    second.send().await;

    let stored = second.job(&caller, job).await;
    assert_eq!(stored.state.status, Status::Success);
    let path = format!("/out/{job}.txt");
    assert_eq!(stored.state.result.unwrap().payload.get(), format!("[\"{path}\"]"));
    let file = second.engine.find_file(caller.application, &path).await.unwrap();
    assert_eq!(file.size, format!("made by {job}").len() as i64);
    let types = second.event_types(&caller, job).await;
    let expected: &[&str] = match had_lease {
        true => &["job.created", "job.started", "job.rescued", "job.started", "job.succeeded"],
        false => &["job.created", "job.started", "job.succeeded"],
    };
    assert_eq!(types, expected);
    let log = receiver.log();
    // The end of the group and the file that was made have one event each.
    let to_endpoints = (expected.len() + 2) * Ordering::ALL.len();
    let repeated = if step == Step::Send { CLAIMED } else { 0 };
    let all = expected.len() + 1 + to_endpoints;
    assert_eq!(log.len(), all + repeated, "each once but for those sent before");
    for request in &log {
        request.signed();
    }
    let listed = second
        .engine
        .list_deliveries(&caller, &DeliveryFilter::default(), (i64::MAX, i64::MAX), 100)
        .await
        .unwrap();
    let twice = listed.0.iter().filter(|delivery| delivery.attempts == 2).count();
    assert_eq!(twice, unrecorded, "what was claimed and not recorded was tried again");
    audit(&mut database.connect(), &second, caller.application, &receiver).await;
    arrived_in_order(&second, &caller, &receiver).await;
    second.engine.leave().await.unwrap();
}

on_both!(async a_death_between_any_two_steps_changes_nothing_in_the_end);
async fn a_death_between_any_two_steps_changes_nothing_in_the_end(database: Database) {
    let deaths: &[Death] = match database.backend() {
        Backend::Sqlite => &[Death::Left, Death::Silent, Death::Restarted],
        Backend::Postgres => &[Death::Left, Death::Silent],
    };
    for death in deaths {
        for step in STEPS {
            eprintln!("dies ({death:?}) after {step:?}");
            die_after(step, *death, &database).await;
        }
    }
}

on_both!(async a_repeated_request_is_answered_though_its_group_is_sealed);
async fn a_repeated_request_is_answered_though_its_group_is_sealed(database: Database) {
    let node = Node::start(&database).await;
    let (caller, _) = node.application("shop").await;
    let mut job = scripted_job();
    job.group_id = Some(new_id());
    let key = |hash: &str| Some(Idempotency { key: "key".to_owned(), hash: hash.to_owned() });
    let first = node.engine.submit(&caller, job.clone(), key("same"), "r").await.unwrap();
    node.engine.close_group(&caller, job.group_id.unwrap()).await.unwrap();
    let again = node.engine.submit(&caller, job.clone(), key("same"), "r").await.unwrap();
    assert_eq!(again.id, first.id);
    let other = node.engine.submit(&caller, job.clone(), key("other"), "r").await;
    assert!(matches!(other, Err(EngineError::IdempotencyMismatch)));
    let new = node.engine.submit(&caller, job, None, "r").await;
    assert!(matches!(new, Err(EngineError::GroupSealed(_))));
}
