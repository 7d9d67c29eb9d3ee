//! A connection that breaks during COMMIT leaves open what lasted. The writer does the work again,
//! and nobody is refused what was done the first time.

use ringback::engine::{EndpointPatch, EndpointSettings, NewEndpoint, Output};
use ringback::formats::Signature;
use ringback::ids::new_id;
use ringback::lifecycle::Status;

use super::{World, address, events};
use crate::support::database::{Database, block_on, number};
use crate::support::forgetful::Forgetful;
use crate::support::node::scripted_job;
use crate::support::receiver::Reply;

/// Does something whose commit gets no answer.
async fn unanswered<T>(way: &Forgetful, what: impl Future<Output = T>) -> T {
    way.forget_next();
    let done = what.await;
    assert!(way.has_forgotten(), "there was a commit");
    done
}

#[test]
fn what_was_done_by_a_commit_without_an_answer_is_no_refusal() {
    let way = Forgetful::start();
    let database = Database::fresh_in(way.url());
    block_on(endpoints_and_secrets(&way, &database));
}

async fn endpoints_and_secrets(way: &Forgetful, database: &Database) {
    let world = World::start(database).await;
    let (engine, caller) = (&world.node.engine, &world.caller);
    let settings = EndpointSettings { events: events(&["job.created"]), ..Default::default() };
    let address = address(&world.receiver.url("/hook"));
    let new = NewEndpoint { address, settings, enabled: true };
    let made = unanswered(way, engine.create_endpoint(caller, new)).await.expect("it is there");
    let id = made.endpoint.id;
    assert_eq!(number(database, "SELECT COUNT(*) AS number FROM receivers"), 1);

    world.node.clock.shift_millis(1);
    let rotate = engine.add_endpoint_secret(caller, id, None, Some(600));
    let rotated = unanswered(way, rotate).await.expect("it signs");
    world.node.clock.shift_millis(1);
    let patch = EndpointPatch { signature: Some(Signature::Ed25519), ..EndpointPatch::default() };
    let changed = unanswered(way, engine.change_endpoint(caller, id, patch)).await.unwrap();
    let pair = changed.key.expect("it is shown to whom it was made for");
    let secrets = engine.endpoint_secrets(caller, id).await.unwrap();
    let listed: Vec<_> = secrets.iter().map(|one| (one.id, one.date_expires.is_some())).collect();
    let first = made.key.expect("a key").id;
    assert_eq!(listed, [(pair.id, false), (rotated.id, false), (first, true)]);
    let revoke = engine.revoke_endpoint_secret(caller, id, rotated.id);
    unanswered(way, revoke).await.expect("it is revoked");
    unanswered(way, engine.delete_endpoint(caller, id)).await.expect("it is deleted");
    assert!(engine.find_endpoint(caller, id).await.is_err());
}

#[test]
fn a_delivery_that_was_owed_again_or_skipped_without_an_answer_is_no_refusal() {
    let way = Forgetful::start();
    let database = Database::fresh_in(way.url());
    block_on(deliveries(&way, &database));
}

async fn deliveries(way: &Forgetful, database: &Database) {
    let world = World::start(database).await;
    let engine = &world.node.engine;
    world.receiver.otherwise([Reply::status(500)]);
    let choose = |settings: &mut EndpointSettings| {
        settings.schedule = Some(vec![]);
        settings.ordering = ringback::engine::Ordering::Strict;
    };
    let endpoint = world.endpoint_with("/hook", choose).await;
    world.events(2).await;
    while engine.relay().await.unwrap() {}
    world.node.send().await;
    let first = world.deliveries(&endpoint).await.remove(0);
    assert!(first.blocking);
    unanswered(way, engine.redeliver(&world.caller, first.id)).await.expect("it is owed again");
    world.node.send().await;
    unanswered(way, engine.skip_delivery(&world.caller, first.id)).await.expect("it is skipped");
    let skipped = world.whole(first.id).await;
    assert_eq!((skipped.status, skipped.reason.as_deref()), ("exhausted", Some("skipped")));
    unanswered(way, engine.redeliver(&world.caller, first.id)).await.expect("it is owed again");
    assert_eq!(world.whole(first.id).await.status, "pending");
}

#[test]
fn what_became_of_jobs_and_files_without_an_answer_is_no_refusal() {
    let way = Forgetful::start();
    let database = Database::fresh_in(way.url());
    block_on(jobs_and_files(&way, &database));
}

async fn jobs_and_files(way: &Forgetful, database: &Database) {
    let world = World::start(database).await;
    let (engine, caller) = (&world.node.engine, &world.caller);
    let job = unanswered(way, world.node.submit(caller, scripted_job())).await;
    let stopped = unanswered(way, engine.stop(caller, job.id)).await.expect("it is stopped");
    assert_eq!(stopped.state.status, Status::Stopped);
    assert!(engine.stop(caller, job.id).await.is_err(), "it was stopped before");
    unanswered(way, engine.trash(caller, job.id)).await.expect("it is in the trash");
    assert!(engine.trash(caller, job.id).await.is_err(), "it is gone");

    let version = new_id();
    let output = Output {
        path: "/a.txt".to_owned(),
        version,
        file_id: new_id(),
        size: 3,
        sha256: "0".repeat(64),
        media_type: "text/plain".to_owned(),
        acl: "private".to_owned(),
    };
    let file = unanswered(way, engine.put_file(caller, output)).await.expect("it is stored");
    assert_eq!((file.path.as_str(), file.version), ("/a.txt", version));
    let path = || "/a.txt".to_owned();
    unanswered(way, engine.delete_file(caller, path())).await.expect("it is deleted");
    assert!(engine.delete_file(caller, path()).await.is_err(), "it is gone");
    let told = "SELECT COUNT(*) AS number FROM events WHERE type IN \
                ('job.stopped', 'job.trashed', 'file.created', 'file.deleted')";
    assert_eq!(number(database, told), 4);
}

#[test]
fn an_application_is_made_once_and_its_secret_lasts() {
    let way = Forgetful::start();
    let database = Database::fresh_in(way.url());
    block_on(applications(&way, &database));
}

async fn applications(way: &Forgetful, database: &Database) {
    let world = World::start(database).await;
    let (engine, application) = (&world.node.engine, world.caller.application);
    let scopes = ["jobs".to_owned()];
    let create = engine.create_application("second", &scopes, None, None);
    unanswered(way, create).await.expect("it is there");
    assert_eq!(number(database, "SELECT COUNT(*) AS number FROM applications"), 2);
    unanswered(way, engine.add_key(application, None, Some(0), None)).await.expect("a key");
    unanswered(way, engine.rotate_secret(application, 60)).await.expect("a secret");
    let lasting = "SELECT COUNT(*) AS number FROM credentials WHERE expires_at IS NULL \
                   AND application_id = ";
    assert_eq!(number(database, &format!("{lasting}{application}")), 2, "the newest of each kind");
}
