//! Limits, measured by the receiver's clock and against the real process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::database::{Database, on_both};
use crate::support::http::Client;
use crate::support::process::{Application, Server};
use crate::support::receiver::{Received, Receiver, Reply};
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(30);

/// How much later than sent a request may be seen, on a machine with much else to do.
const SLACK: Duration = Duration::from_millis(250);

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

/// The most requests beyond `rate × time` in any span of time: what the burst has to cover.
fn largest_burst(log: &[Arc<Received>], per_second: f64) -> f64 {
    let mut largest: f64 = 0.0;
    for (first, from) in log.iter().enumerate() {
        for (last, to) in log.iter().enumerate().skip(first) {
            let seconds = (to.arrived.duration_since(from.arrived) + SLACK).as_secs_f64();
            largest = largest.max((last - first + 1) as f64 - per_second * seconds);
        }
    }
    largest
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
    let limit = json!({"perSecond": 20, "burst": 5});
    submit(&client, 60, &json!({"url": receiver.url("/limited"), "rateLimit": limit}));
    submit(&client, 60, &json!({"url": receiver.url("/free")}));
    let free = receiver.wait_for_on("/free", 60, PATIENCE);
    let limited = receiver.wait_for_on("/limited", 60, PATIENCE);
    assert_eq!((free.len(), limited.len()), (60, 60));

    let burst = largest_burst(&limited, 20.0);
    assert!(burst <= 5.0, "{burst} at once");
    let (took, ideal) = (span(&limited), Duration::from_millis(55 * 1_000 / 20));
    assert!(took >= ideal.saturating_sub(SLACK), "{took:?} is too fast");
    assert!(took <= ideal + Duration::from_millis(1_500), "{took:?} is too slow");
    let (free_end, limited_end) = (free[59].arrived, limited[59].arrived);
    assert!(free_end + Duration::from_secs(1) < limited_end, "the other one was held up");
}

on_both!(the_lanes_default_rate_and_cap_hold);
fn the_lanes_default_rate_and_cap_hold(database: Database) {
    let server = serve(&database, &["--lane-rate-per-second", "20", "--lane-in-flight", "2"]);
    let client = server.client_of(&Application::create(&database, "shop"));
    let (receiver, slow) = (Receiver::start(), Receiver::start());
    let delay = Duration::from_millis(40);
    slow.otherwise([Reply::ok().after(delay)]);
    submit(&client, 30, &json!({"url": receiver.url("/hook")}));
    // A rate of its own takes the default's place.
    let limit = json!({"perSecond": 1_000, "burst": 1_000});
    submit(&client, 40, &json!({"url": slow.url("/hook"), "rateLimit": limit}));

    let log = slow.wait_for(40, PATIENCE);
    assert_eq!(most_at_once(&log, delay), 2);
    assert!(span(&log) >= 19 * delay, "two at once: {:?}", span(&log));
    let log = receiver.wait_for(30, PATIENCE);
    let burst = largest_burst(&log, 20.0);
    assert!(burst <= 1.0, "{burst} at once");
    let (took, ideal) = (span(&log), Duration::from_millis(29 * 1_000 / 20));
    assert!(took >= ideal.saturating_sub(SLACK), "{took:?} is too fast");
    assert!(took <= ideal + Duration::from_millis(1_500), "{took:?} is too slow");
}

on_both!(a_receiver_never_sees_more_than_64_at_once);
fn a_receiver_never_sees_more_than_64_at_once(database: Database) {
    let server = serve(&database, &[]);
    let client = server.client_of(&Application::create(&database, "shop"));
    let receiver = Receiver::start();
    let delay = Duration::from_millis(400);
    receiver.otherwise([Reply::ok().after(delay)]);
    submit(&client, 200, &json!({"url": receiver.url("/hook")}));
    let log = receiver.wait_for(200, PATIENCE);
    assert_eq!(log.len(), 200);
    let most = most_at_once(&log, delay);
    assert!((48..=64).contains(&most), "{most} at once");
    assert!(receiver.connections() <= 64, "{} connections", receiver.connections());
}

on_both!(a_hanging_callback_holds_up_no_other_application);
fn a_hanging_callback_holds_up_no_other_application(database: Database) {
    let server = serve(&database, &[]);
    let hanging = server.client_of(&Application::create(&database, "hanging"));
    let shop = server.client_of(&Application::create(&database, "shop"));
    let receiver = Receiver::start();
    receiver.on("/hang", [Reply::silence()]);
    submit(&hanging, 200, &json!({"url": receiver.url("/hang")}));
    receiver.wait_for_on("/hang", 64, PATIENCE);
    // The deadline is 20 s, so none of those is over when these have arrived. Same origin, even.
    submit(&shop, 50, &json!({"url": receiver.url("/hook")}));
    receiver.wait_for_on("/hook", 50, Duration::from_secs(15));
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
    eventually("it is served again", Duration::from_secs(seconds + 1), || {
        (limited.get("/v1/jobs").status == 200).then_some(())
    });
    let job = json!({"type": "urn:job:noop", "specification": {}});
    eventually("it may submit", Duration::from_secs(seconds + 1), || {
        (limited.post("/v1/jobs", &job).status == 202).then_some(())
    });
}
