//! Receivers that take their time.

use std::time::{Duration, Instant};

use ringback::delivery::Settings;
use tokio_rustls::rustls::RootCertStore;

use super::{SLACK, Stage, World};
use crate::support::database::{Database, on_both};
use crate::support::node::callback;
use crate::support::receiver::Reply as ProperReply;
use crate::support::rude::{Receiver, Reply};

/// Short, but long enough to get as far as the receiver.
const DEADLINE: Duration = Duration::from_secs(2);

on_both!(async a_receiver_that_never_answers);
async fn a_receiver_that_never_answers(database: Database) {
    let mut stage = Stage::set(&database, DEADLINE).await;
    let began = Instant::now();
    let suffered = stage.suffer(Reply::Hold(Vec::new())).await;
    assert!(began.elapsed() >= DEADLINE);
    suffered.failed_as("timeout");
    assert_eq!(suffered.completed(), ["dnsMs", "connectMs"]);
    let detail = suffered.attempt.error_detail.expect("for people");
    assert!(detail.contains("waiting for the response"), "{detail}");
}

on_both!(async a_receiver_that_never_shakes_hands);
async fn a_receiver_that_never_shakes_hands(database: Database) {
    let mut stage = Stage::set(&database, DEADLINE).await;
    let receiver = Receiver::start_mute().await;
    stage.lead_to(&receiver, "https", RootCertStore::empty()).await;
    for _ in 0..2 {
        let suffered = stage.attempt("https").await;
        suffered.failed_as("timeout");
        assert_eq!(suffered.completed(), ["dnsMs", "connectMs"]);
        let detail = suffered.attempt.error_detail.expect("for people");
        assert!(detail.contains("setting up TLS"), "{detail}");
    }
    assert_eq!(receiver.connections(), 2, "the slot was free for the second");
}

on_both!(async a_byte_a_second);
async fn a_byte_a_second(database: Database) {
    let mut stage = Stage::set(&database, Duration::from_millis(2_200)).await;
    let head = "HTTP/1.1 200 OK\r\n";
    for (begin, answered) in [
        ("HTTP/1.1 200 ".to_owned(), false),
        (format!("{head}x-slow: "), false),
        (format!("{head}content-length: 9999\r\n\r\n"), true),
        (format!("{head}transfer-encoding: chunked\r\n\r\nffff\r\n"), true),
    ] {
        let reply = Reply::Drip(begin.clone().into_bytes(), Duration::from_secs(1));
        let suffered = stage.suffer(reply).await;
        suffered.failed_as("timeout");
        assert_eq!(suffered.completed().contains(&"firstByteMs"), answered, "{begin}");
    }
}

on_both!(async one_deadline_covers_the_whole_attempt);
async fn one_deadline_covers_the_whole_attempt(database: Database) {
    let mut world = World::start(&database).await;
    let deadline = Duration::from_millis(300);
    world.send_by(Settings { deadline, ..Settings::default() }, 0.0).await;
    let (delay, pause) = (Duration::from_millis(200), Duration::from_millis(50));
    world.receiver.on("/silent", [ProperReply::silence()]);
    world.receiver.on("/slow", [ProperReply::ok().body("x".repeat(20)).slowly(1, pause)]);
    // Neither the wait for the headers nor the body is too long by itself.
    world.receiver.on("/both", [ProperReply::ok().after(delay).body("12345").slowly(1, pause)]);
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
        let longest = (deadline + SLACK).as_millis() as i64;
        assert!((300..longest).contains(&took), "{path} took {took} ms");
    }
}
