//! Limits, measured by the receiver's clock and against the real process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::database::{Database, on_both};
use crate::support::http::Client;
use crate::support::process::{Application, Server};
use crate::support::receiver::{Received, Receiver, Reply};
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

fn serve(database: &Database, arguments: &[&str]) -> Server {
    let mut all = vec!["--egress-allow", "127.0.0.0/8"];
    all.extend(arguments);
    Server::on(database, &all)
}

/// So many jobs that do nothing, each with that callback.
fn submit(client: &Client, count: usize, callback: &Value) {
    let job = json!({"type": "urn:job:noop", "specification": {}, "callback": callback});
    client.post("/v1/jobs/batch", &json!({"jobs": vec![job; count]})).expect(202);
}

/// That a bucket of that rate and size lets no more through. It cannot have been asked for anything
/// before `since`, so a request that is seen late was sent within the limit all the more.
#[track_caller]
fn keeps_to(log: &[Arc<Received>], since: Instant, per_second: f64, burst: f64) {
    for (before, one) in log.iter().enumerate() {
        let seconds = one.arrived.duration_since(since).as_secs_f64();
        let came = before + 1;
        let allowed = burst + per_second * seconds;
        assert!(came as f64 <= allowed, "{came} came within {seconds} s, {allowed} may");
    }
}

fn span(log: &[Arc<Received>]) -> Duration {
    let (Some(first), Some(last)) = (log.first(), log.last()) else { return Duration::ZERO };
    last.arrived.duration_since(first.arrived)
}

/// The most requests that were being answered at once, when each answer takes `delay`.
fn most_at_once(log: &[Arc<Received>], delay: Duration) -> usize {
    let under_way = |at: Instant| {
        let open = |one: &&Arc<Received>| one.arrived <= at && at < one.arrived + delay;
        log.iter().filter(open).count()
    };
    log.iter().map(|one| under_way(one.arrived)).max().unwrap_or(0)
}

on_both!(a_callbacks_rate_holds_and_slows_nobody_else);
fn a_callbacks_rate_holds_and_slows_nobody_else(database: Database) {
    let server = serve(&database, &[]);
    let client = server.client_of(&Application::create(&database, "shop"));
    let receiver = Receiver::start();
    let begun = Instant::now();
    let limit = json!({"perSecond": 20, "burst": 5});
    submit(&client, 60, &json!({"url": receiver.url("/limited"), "rateLimit": limit}));
    // The sixth has to wait for a quarter of an hour.
    let limit = json!({"perSecond": 0.001, "burst": 5});
    submit(&client, 60, &json!({"url": receiver.url("/held"), "rateLimit": limit}));
    submit(&client, 60, &json!({"url": receiver.url("/free")}));
    let free = receiver.wait_for_on("/free", 60, PATIENCE);
    let limited = receiver.wait_for_on("/limited", 60, PATIENCE);
    let held = receiver.wait_for_on("/held", 5, PATIENCE);
    assert_eq!((free.len(), limited.len(), held.len()), (60, 60, 5));
    keeps_to(&limited, begun, 20.0, 5.0);
}

on_both!(the_lanes_default_rate_and_cap_hold);
fn the_lanes_default_rate_and_cap_hold(database: Database) {
    let server = serve(&database, &["--lane-rate-per-second", "20", "--lane-in-flight", "2"]);
    let client = server.client_of(&Application::create(&database, "shop"));
    let (receiver, slow) = (Receiver::start(), Receiver::start());
    let delay = Duration::from_millis(40);
    // Whatever comes after them comes because two were under way at once.
    slow.otherwise([Reply::ok().once_there_are(2).after(delay)]);
    let begun = Instant::now();
    submit(&client, 30, &json!({"url": receiver.url("/hook")}));
    // A rate of its own takes the default's place.
    let limit = json!({"perSecond": 1_000, "burst": 1_000});
    submit(&client, 40, &json!({"url": slow.url("/hook"), "rateLimit": limit}));

    let log = slow.wait_for(40, PATIENCE);
    let most = most_at_once(&log, delay);
    assert!(most <= 2, "{most} at once");
    assert!(span(&log) >= 19 * delay, "two at once: {:?}", span(&log));
    keeps_to(&receiver.wait_for(30, PATIENCE), begun, 20.0, 1.0);
}

on_both!(a_receiver_never_sees_more_than_64_at_once);
fn a_receiver_never_sees_more_than_64_at_once(database: Database) {
    let server = serve(&database, &["--delivery-deadline-seconds", "120"]);
    let client = server.client_of(&Application::create(&database, "shop"));
    let receiver = Receiver::start();
    let delay = Duration::from_millis(400);
    // Whatever comes after them comes because 64 were under way at once.
    receiver.otherwise([Reply::ok().once_there_are(64).after(delay)]);
    submit(&client, 200, &json!({"url": receiver.url("/hook")}));
    let log = receiver.wait_for(200, PATIENCE);
    assert_eq!(log.len(), 200);
    let most = most_at_once(&log, delay);
    assert!(most <= 64, "{most} at once");
    // Each carries one request after the other, for as long as none is idle for seconds.
    assert!(receiver.connections() < 200, "{} connections", receiver.connections());
}

on_both!(a_hanging_callback_holds_up_no_other_application);
fn a_hanging_callback_holds_up_no_other_application(database: Database) {
    // None of those that hang is over when the others have come.
    let server = serve(&database, &["--delivery-deadline-seconds", "120"]);
    let hanging = server.client_of(&Application::create(&database, "hanging"));
    let shop = server.client_of(&Application::create(&database, "shop"));
    let receiver = Receiver::start();
    receiver.on("/hang", [Reply::silence()]);
    submit(&hanging, 200, &json!({"url": receiver.url("/hang")}));
    receiver.wait_for_on("/hang", 64, PATIENCE);
    // Same origin, even.
    submit(&shop, 50, &json!({"url": receiver.url("/hook")}));
    receiver.wait_for_on("/hook", 50, PATIENCE);
    assert_eq!(receiver.log_of("/hang").len(), 64);
}

on_both!(an_application_that_asks_too_fast_is_told_when_to_come_back);
fn an_application_that_asks_too_fast_is_told_when_to_come_back(database: Database) {
    let server = serve(&database, &[]);
    let options = ["--rate-per-second", "5"];
    let limited = Application::create_with(&database, "limited", &options);
    let limited = server.client_of(&limited);
    let other = server.client_of(&Application::create(&database, "other"));
    let mut answered = 0;
    let refused = loop {
        let answer = limited.get("/v1/jobs");
        assert!(
            answer.header("ratelimit").is_some() && answer.header("ratelimit-policy").is_some()
        );
        if answer.status == 429 {
            break answer;
        }
        answer.expect(200);
        answered += 1;
        assert!(answered < 500, "it is never refused");
    };
    assert!(answered >= 5, "a burst of five is allowed");
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert_eq!(refused.json()["code"], "rate_limited");
    assert!(refused.header("ratelimit").unwrap().contains("r=0"));
    let seconds: u64 = refused.header("retry-after").expect("when").parse().expect("seconds");
    assert!((1..=2).contains(&seconds), "{seconds} s");
    for _ in 0..20 {
        other.get("/v1/jobs").expect(200);
    }
    // Looking costs nothing: what is refused takes no token.
    eventually("it is served again", PATIENCE, || {
        (limited.get("/v1/jobs").status == 200).then_some(())
    });
    let job = json!({"type": "urn:job:noop", "specification": {}});
    eventually("it may submit", PATIENCE, || {
        (limited.post("/v1/jobs", &job).status == 202).then_some(())
    });
}
