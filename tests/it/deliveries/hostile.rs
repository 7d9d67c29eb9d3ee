//! Receivers that are slow, endless or indiscreet.

use std::time::Duration;

use ringback::delivery::Settings;

use super::World;
use crate::support::database::{Database, on_both};
use crate::support::node::callback;
use crate::support::receiver::Reply;

on_both!(async one_deadline_covers_the_whole_attempt);
async fn one_deadline_covers_the_whole_attempt(database: Database) {
    let mut world = World::start(&database).await;
    let deadline = Duration::from_millis(300);
    world.send_by(Settings { deadline, ..Settings::default() }, 0.0).await;
    let (delay, pause) = (Duration::from_millis(200), Duration::from_millis(50));
    world.receiver.on("/silent", [Reply::silence()]);
    world.receiver.on("/slow", [Reply::ok().body("x".repeat(20)).slowly(1, pause)]);
    // Neither the wait for the headers nor the body is too long by itself.
    world.receiver.on("/both", [Reply::ok().after(delay).body("12345").slowly(1, pause)]);
    let mut jobs = Vec::new();
    for path in ["/silent", "/slow", "/both"] {
        jobs.push((path, world.submit(callback(&world.receiver.url(path))).await));
    }
    world.node.work().await;
    world.node.send().await;
    for (path, job) in jobs {
        let delivery = world.delivery_of(job.id).await;
        assert_eq!((delivery.status, delivery.attempts), ("pending", 1), "{path}");
        let attempt = &delivery.attempt_log.as_ref().unwrap()[0];
        let took = attempt.duration_ms.expect("a duration");
        assert_eq!(attempt.error_code.as_deref(), Some("timeout"), "{path}");
        assert!((300..2_000).contains(&took), "{path} took {took} ms");
    }
}

on_both!(async an_endless_body_is_read_only_to_the_cap);
async fn an_endless_body_is_read_only_to_the_cap(database: Database) {
    let world = World::start(&database).await;
    // Much is promised, and the connection stays open after what is sent.
    let reply = Reply::ok().header("content-length", "100000000000").body(vec![b'x'; 1 << 20]);
    world.receiver.on("/endless", [reply]);
    let job = world.done(callback(&world.receiver.url("/endless"))).await;
    world.node.send().await;
    let delivery = world.delivery_of(job.id).await;
    assert_eq!((delivery.status, delivery.attempts), ("delivered", 1), "before its deadline");
    let kept = delivery.attempt_log.as_ref().unwrap()[0].response_body.clone().unwrap();
    assert_eq!(kept, "x".repeat(4_096));
}

on_both!(async what_a_receiver_sends_back_is_stored_without_secrets);
async fn what_a_receiver_sends_back_is_stored_without_secrets(database: Database) {
    let world = World::start(&database).await;
    world.receiver.on_with("/hook", |request| {
        let all: Vec<String> = ["authorization", "x-api-key", "x-longer"]
            .map(|name| request.header(name).unwrap().to_owned())
            .into();
        let token = all[0].trim_start_matches("Bearer ").to_owned();
        let query = request.path.split_once('?').unwrap().1;
        let body = format!("a\0b {} {token} {query} hunter-2-query", all.join(" "));
        Reply::status(500).header("x-echo", &all.join(" ")).body(body)
    });
    let mut hook = callback(&world.receiver.url("/hook?token=hunter-2-query&n=1"));
    hook.shown_url = world.receiver.url("/hook?token=***&n=1");
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    hook.headers = vec![
        header("authorization", "Bearer hunter-2-bearer"),
        header("x-api-key", "hunter-2"),
        header("x-longer", "hunter-2-longer"),
    ];
    let job = world.done(hook).await;
    world.node.send().await;
    assert_eq!(world.receiver.log()[0].header("x-api-key"), Some("hunter-2"), "it was sent");

    let delivery = world.delivery_of(job.id).await;
    let attempt = &delivery.attempt_log.as_ref().unwrap()[0];
    let body = attempt.response_body.as_deref().unwrap();
    assert!(body.starts_with("a\u{fffd}b ***"), "{body}");
    let shown = serde_json::to_string(&delivery).unwrap();
    for secret in ["hunter", "bearer", "longer\\\"", "-query"] {
        assert!(!shown.contains(secret), "{secret} is in {shown}");
    }
}
