//! What becomes of a job: waiting for it, its events, stop, retry, delete, and the options that
//! say when and how it runs.

use std::time::{Duration, Instant};

use ringback::clock::Clock;
use serde_json::{Value, json};

use super::{PATIENCE, World, ids, import, list, noise, noop, pack, problem, text, with};
use crate::support::database::{Database, on_both};
use crate::support::process::{Application, Server, data_dir};
use crate::support::receiver::Reply;
use crate::support::wait::eventually;

/// So many seconds from now.
fn ahead(seconds: i64) -> String {
    Clock::system().now().plus_millis(seconds * 1_000).to_string()
}

on_both!(a_wait_holds_the_answer_until_the_end);
fn a_wait_holds_the_answer_until_the_end(database: Database) {
    let world = World::start(database);
    let short = world.id_of(&noop(5.0));
    let began = Instant::now();
    assert!(world.job(&short)["dateCompleted"].is_null());
    let waited = world.client.get(&format!("/v1/jobs/{short}?wait=60")).expect(200).json();
    assert_eq!(waited["status"], "success");
    assert!(began.elapsed() < Duration::from_secs(45), "not only when the wait was over");
    let long = world.id_of(&noop(600.0));
    world.working(&long);
    let began = Instant::now();
    let waited = world.client.get(&format!("/v1/jobs/{long}?wait=1")).expect(200).json();
    assert_eq!(waited["status"], "working", "{waited}");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    for bad in ["61", "-1", "x", "1&wait=2"] {
        let answer = world.client.get(&format!("/v1/jobs/{long}?wait={bad}"));
        problem(answer, 400, "invalid_request");
    }
}

on_both!(events_tell_the_whole_life);
fn events_tell_the_whole_life(database: Database) {
    let world = World::start(database);
    let id = world.id_of(&with(noop(0.0), "metadata", json!({"k": "v"})));
    world.finished(&id);
    let page = world.client.get(&format!("/v1/jobs/{id}/events")).expect(200).json();
    let events = list(&page, "events");
    assert_eq!(world.event_types(&id), ["job.created", "job.started", "job.succeeded"]);
    let names = ["id", "subjectType", "subjectId", "sequence", "type", "timestamp", "data"];
    for (number, event) in events.iter().enumerate() {
        let members = event.as_object().expect("an object");
        assert_eq!(members.len(), names.len(), "{event}");
        assert!(names.iter().all(|name| members.contains_key(*name)), "{event}");
        assert_eq!(event["sequence"], number + 1);
        assert_eq!((&event["subjectType"], &event["subjectId"]), (&json!("job"), &json!(id)));
        assert!(event["data"].is_object() && text(&event["timestamp"]).ends_with('Z'), "{event}");
    }
    assert!(events[0]["data"].to_string().contains(r#""metadata":{"k":"v"}"#), "{}", events[0]);

    let first = world.client.get(&format!("/v1/jobs/{id}/events?limit=2")).expect(200).json();
    assert_eq!((list(&first, "events").len(), &first["nextAfter"]), (2, &json!(2)));
    let rest =
        world.client.get(&format!("/v1/jobs/{id}/events?after=2&limit=2")).expect(200).json();
    assert_eq!(
        (ids(&rest, "events"), &rest["nextAfter"]),
        (vec![text(&events[2]["id"])], &Value::Null)
    );
    problem(world.client.get(&format!("/v1/jobs/{id}/events?limit=0")), 400, "invalid_request");
}

on_both!(a_stop_is_quick_wherever_the_job_is);
fn a_stop_is_quick_wherever_the_job_is(database: Database) {
    let world = World::start(database);
    let stop = |id: &str| world.client.post_empty(&format!("/v1/jobs/{id}/stop"));

    let pending = world.id_of(&with(noop(0.0), "runAt", ahead(3_600)));
    assert_eq!(stop(&pending).expect(202).json()["status"], "stopped");
    assert_eq!(world.event_types(&pending), ["job.created", "job.stopped"]);

    world.client.put("/v1/files/big", noise(96 << 20)).expect(201);
    // In the middle of an import, which has sent a part of its bytes.
    let slow = Reply::ok().body(vec![b'x'; 4_000_000]).slowly(20_000, Duration::from_secs(1));
    world.receiver.on("/slow", [slow]);
    let importing = world.id_of(&import(&world.receiver.url("/slow"), "/slow"));
    world.receiver.wait_for_on("/slow", 1, PATIENCE);
    eventually("a part has come", PATIENCE, || {
        (world.job(&importing)["progress"].as_f64() > Some(0.0)).then_some(())
    });
    // In the middle of packing a big file.
    let packing = world.id_of(&pack("/big", "/big.tar.bz2", "tar.bz2"));
    eventually("a part is packed", PATIENCE, || {
        (world.job(&packing)["progress"].as_f64() > Some(0.0)).then_some(())
    });
    for id in [&importing, &packing] {
        let answered = stop(id).expect(202).json();
        assert!(
            ["stopping", "stopped"].contains(&text(&answered["status"]).as_str()),
            "{answered}"
        );
        // Idempotent while it is on its way.
        let again = stop(id);
        assert!([202, 409].contains(&again.status), "{}", again.text());
        let stopped = world.finished(id);
        assert_eq!(stopped["status"], "stopped");
        assert!(stopped["progress"].as_f64() < Some(1.0), "in the middle: {stopped}");
        let events = world.event_types(id);
        assert!(events.iter().any(|event| event == "job.stopping"), "{events:?}");
        assert_eq!(events.last().map(String::as_str), Some("job.stopped"));
    }
    for path in ["/v1/files/slow", "/v1/files/big.tar.bz2"] {
        problem(world.client.get(path), 404, "not_found");
    }
    for id in [&pending, &importing, &packing] {
        problem(stop(id), 409, "job_final");
    }
    let done = world.ran(&noop(0.0));
    let refused = problem(stop(&text(&done["id"])), 409, "job_final");
    assert!(text(&refused["detail"]).contains("success"), "{refused}");
    assert_eq!(world.job(&text(&done["id"])), done);
}

on_both!(a_retry_is_a_new_job);
fn a_retry_is_a_new_job(database: Database) {
    let world = World::start(database);
    let retry = |id: &str| world.client.post_empty(&format!("/v1/jobs/{id}/retry"));
    let submission = with(pack("/late", "/late.zip", "zip"), "metadata", json!({"m": 1}));
    let failed = world.ran(&with(submission, "priority", 3));
    let id = text(&failed["id"]);
    assert_eq!(
        (&failed["status"], &failed["failure"]["code"]),
        (&json!("error"), &json!("source_not_found"))
    );
    assert!(failed["result"]["code"] != 0 && failed["result"]["payload"].is_null(), "{failed}");

    world.client.put("/v1/files/late", "now it is there").expect(201);
    let answer = retry(&id).expect(202);
    let again = answer.json();
    let new = text(&again["id"]);
    let location = format!("{}/v1/jobs/{new}", world.server.base_url());
    assert_eq!(answer.header("location"), Some(location.as_str()));
    assert_eq!(again["retryOf"], id.as_str());
    assert_ne!(again["groupId"], failed["groupId"]);
    for name in ["type", "specification", "metadata", "priority", "queue", "maxAttempts"] {
        assert_eq!(again[name], failed[name], "{name}");
    }
    assert_eq!(world.finished(&new)["status"], "success");
    assert_eq!(world.job(&id), failed, "the old one stays as it is");
    // A success, what is still live and what is not there cannot be retried; what was stopped can.
    problem(retry(&new), 409, "job_not_retryable");
    let waiting = world.id_of(&with(noop(0.0), "runAt", ahead(3_600)));
    problem(retry(&waiting), 409, "job_not_retryable");
    problem(retry("0199f0b2-7c7e-7d51-9d6a-3b0f6f1f5a01"), 404, "not_found");
    world.client.post_empty(&format!("/v1/jobs/{waiting}/stop")).expect(202);
    assert_eq!(retry(&waiting).expect(202).json()["retryOf"], waiting.as_str());
}

on_both!(a_deleted_job_is_gone_from_sight);
fn a_deleted_job_is_gone_from_sight(database: Database) {
    let world = World::start(database);
    let done = text(&world.ran(&noop(0.0))["id"]);
    let kept = text(&world.ran(&noop(0.0))["id"]);
    let running = world.id_of(&noop(600.0));
    world.working(&running);
    problem(world.client.delete(&format!("/v1/jobs/{running}")), 409, "job_not_final");
    let answer = world.client.delete(&format!("/v1/jobs/{done}")).expect(204);
    assert!(answer.body.is_empty());
    for path in ["", "/events"] {
        problem(world.client.get(&format!("/v1/jobs/{done}{path}")), 404, "not_found");
    }
    for action in ["stop", "retry"] {
        let answer = world.client.post_empty(&format!("/v1/jobs/{done}/{action}"));
        problem(answer, 404, "not_found");
    }
    problem(world.client.delete(&format!("/v1/jobs/{done}")), 404, "not_found");
    let listed = world.client.get("/v1/jobs?status=success").expect(200).json();
    assert_eq!(ids(&listed, "jobs"), [kept]);
}

on_both!(times_say_when_a_job_may_run);
fn times_say_when_a_job_may_run(database: Database) {
    let world = World::start(database);
    let (run_at, much_later) = (ahead(1), ahead(3_600));
    let later = world.id_of(&with(noop(0.0), "runAt", run_at.clone()));
    let waiting = world.id_of(&with(noop(0.0), "runAt", much_later));
    let contradiction = with(with(noop(0.0), "runAt", ahead(60)), "expiresAt", ahead(30));
    problem(world.client.post("/v1/jobs", &contradiction), 400, "invalid_request");
    let past = world.ran(&with(noop(0.0), "runAt", "2001-01-01T00:00:00Z"));
    assert_eq!(past["status"], "success");
    assert_eq!(world.job(&waiting)["status"], "pending");

    let ran = world.finished(&later);
    assert_eq!((&ran["status"], &ran["runAt"]), (&json!("success"), &json!(run_at)));
    assert!(text(&ran["dateStarted"]) >= run_at, "{ran}");
}

on_both!(a_job_that_comes_too_late_never_starts);
fn a_job_that_comes_too_late_never_starts(database: Database) {
    let world = World::start_with(database, &["--job-slots", "1"]);
    world.endless();
    let in_time = world.id_of(&with(noop(0.0), "expiresAt", ahead(3_600)));
    let never = world.id_of(&with(noop(0.0), "expiresAt", ahead(3)));
    let expired = world.finished(&never);
    assert_eq!(
        (&expired["status"], &expired["failure"]["code"]),
        (&json!("error"), &json!("expired"))
    );
    assert_eq!((&expired["attempt"], &expired["dateStarted"]), (&json!(0), &Value::Null));
    assert_eq!(world.event_types(&never), ["job.created", "job.failed"]);
    assert_eq!(world.job(&in_time)["status"], "pending");
}

on_both!(a_larger_priority_goes_first);
fn a_larger_priority_goes_first(database: Database) {
    let world = World::start_with(database, &["--job-slots", "1"]);
    let blocker = world.endless();
    let submitted: Vec<String> = [0, -5, 7, 0]
        .iter()
        .map(|priority| world.id_of(&with(noop(0.02), "priority", *priority)))
        .collect();
    world.client.post_empty(&format!("/v1/jobs/{blocker}/stop")).expect(202);
    let mut started: Vec<(String, usize)> = (0..submitted.len())
        .map(|place| (text(&world.finished(&submitted[place])["dateStarted"]), place))
        .collect();
    started.sort();
    let order: Vec<usize> = started.into_iter().map(|(_, place)| place).collect();
    assert_eq!(order, [2, 0, 3, 1]);
}

on_both!(a_queue_has_its_own_limit);
fn a_queue_has_its_own_limit(database: Database) {
    let application = Application::create(&database, "first");
    let data = data_dir(&database);
    let server = Server::start_with(
        &["--database", database.url(), "--data-dir", &data],
        &[("RINGBACK_QUEUE_SLOTS", "{narrow=1}")],
    );
    let client = server.client_of(&application);
    let submit = |queue: &str, seconds: f64| {
        let job = with(noop(seconds), "queue", queue);
        text(&client.post("/v1/jobs", &job).expect(202).json()["id"])
    };
    let read =
        |id: &str, wait: u32| client.get(&format!("/v1/jobs/{id}?wait={wait}")).expect(200).json();
    // The first one goes on until it is stopped.
    let narrow = [submit("narrow", 600.0), submit("narrow", 0.0)];
    let wide = submit("wide", 0.0);
    assert_eq!(read(&wide, 45)["status"], "success");
    assert_eq!(read(&narrow[1], 0)["status"], "pending");
    client.post_empty(&format!("/v1/jobs/{}/stop", narrow[0])).expect(202);
    let (first, second) = (read(&narrow[0], 45), read(&narrow[1], 45));
    assert_eq!((&first["status"], &second["status"]), (&json!("stopped"), &json!("success")));
    assert!(text(&second["dateStarted"]) >= text(&first["dateCompleted"]), "{first} {second}");
}

on_both!(tries_and_their_time_are_limited);
fn tries_and_their_time_are_limited(database: Database) {
    let world = World::start(database);
    world.receiver.on("/busy", [Reply::status(503)]);
    world.receiver.on("/late", [Reply::status(503), Reply::ok().body("here")]);
    let busy = world.id_of(&with(import(&world.receiver.url("/busy"), "/b"), "maxAttempts", 2));
    let late = world.id_of(&with(import(&world.receiver.url("/late"), "/l"), "maxAttempts", 2));
    let gone = {
        world.receiver.on("/gone", [Reply::status(404)]);
        world.id_of(&with(import(&world.receiver.url("/gone"), "/g"), "maxAttempts", 5))
    };
    let slow = world.id_of(&with(with(noop(600.0), "timeoutSeconds", 1), "maxAttempts", 1));

    let job = world.finished(&busy);
    assert_eq!((&job["status"], &job["attempt"]), (&json!("error"), &json!(2)));
    assert_eq!(job["failure"]["code"], "source_unavailable");
    assert_eq!(world.receiver.log_of("/busy").len(), 2);
    let events = world.event_types(&busy);
    assert_eq!(events, ["job.created", "job.started", "job.retried", "job.started", "job.failed"]);
    let job = world.finished(&late);
    assert_eq!(
        (&job["status"], &job["attempt"], &job["failure"]),
        (&json!("success"), &json!(2), &Value::Null)
    );
    let job = world.finished(&gone);
    assert_eq!((&job["failure"]["code"], &job["attempt"]), (&json!("source_not_found"), &json!(1)));
    let job = world.finished(&slow);
    assert_eq!((&job["status"], &job["failure"]["code"]), (&json!("error"), &json!("timeout")));
    let seconds = job["runtimeSeconds"].as_f64().expect("it ran");
    // What it was cut off from takes ten minutes.
    assert!((1.0..100.0).contains(&seconds), "{seconds}");
}
