//! When tries come, and when no more do.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use ringback::delivery::Settings;
use ringback::engine::{Next, Record};
use ringback::ids::Timestamp;
use ringback::store::deliveries::ClosedAttempt;

use super::{World, outcomes, received};
use crate::support::database::{Database, number, on_both};
use crate::support::machine::free_port;
use crate::support::node::{callback, of_job, rate, wish};
use crate::support::receiver::{Receiver, Reply};

const WAITS_SECONDS: [u64; 9] = [5, 5 * 60, 30 * 60, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];

on_both!(async tries_come_at_their_times_and_end_after_ten);
async fn tries_come_at_their_times_and_end_after_ten(database: Database) {
    let world = World::start(&database).await;
    world.receiver.otherwise([Reply::status(503)]);
    let job = world.done(callback(&world.receiver.url("/hook"))).await;
    world.node.send().await;
    let mut tried_at = vec![world.node.engine.now().seconds()];
    for (made, wait) in (1..).zip(WAITS_SECONDS.map(Duration::from_secs)) {
        let delivery = world.delivery_of(job.id).await;
        assert_eq!((delivery.status, delivery.attempts), ("pending", made));
        let due = world.node.engine.now().plus(wait);
        assert_eq!(delivery.next_attempt_at, Some(due), "wait {made}");
        assert_eq!(world.receiver.count(), usize::try_from(made).unwrap());

        world.wait(wait - Duration::from_millis(1)).await;
        world.node.send().await;
        assert_eq!(world.delivery_of(job.id).await.attempts, made, "not before its time");
        world.wait(Duration::from_millis(1)).await;
        world.node.send().await;
        tried_at.push(world.node.engine.now().seconds());
    }
    let delivery = world.delivery_of(job.id).await;
    assert_eq!((delivery.status, delivery.attempts), ("exhausted", 10));
    assert_eq!(delivery.reason.as_deref(), Some("http_503"));
    assert_eq!((delivery.next_attempt_at, delivery.date_completed.is_some()), (None, true));
    world.wait(Duration::from_secs(30 * 86_400)).await;
    world.node.send().await;

    let log = world.receiver.log();
    assert_eq!(log.len(), 10);
    for (place, request) in log.iter().enumerate() {
        assert_eq!(request.webhook_id(), delivery.webhook_id.to_string());
        assert_eq!(request.body, log[0].body);
        assert_eq!(request.header("webhook-attempt"), Some((place + 1).to_string().as_str()));
        let signed_at = tried_at[place].to_string();
        assert_eq!(request.header("webhook-timestamp"), Some(signed_at.as_str()));
        let previous = (place > 0).then_some("http_503");
        assert_eq!(request.header("webhook-previous-failure"), previous);
    }
}

on_both!(async jitter_comes_on_top_and_never_on_what_the_receiver_asked_for);
async fn jitter_comes_on_top_and_never_on_what_the_receiver_asked_for(database: Database) {
    let mut world = World::start(&database).await;
    world.send_by(Settings::default(), 1.0).await;
    let now = world.node.engine.now();
    let date_at = now.seconds() + 200;
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(date_at as u64));
    let cases = [
        (503, None, now.plus_millis(5_500)),
        (500, Some("7"), now.plus_millis(7_000)),
        (429, Some("120"), now.plus_millis(120_000)),
        (503, Some("120"), now.plus_millis(120_000)),
        (429, Some(date.as_str()), Timestamp(date_at * 1_000_000)),
        (503, Some(date.as_str()), Timestamp(date_at * 1_000_000)),
        (503, Some("172800"), now.plus_millis(86_400_000)),
        (503, Some("soon"), now.plus_millis(5_500)),
        // Asked for by an answer that is no "later".
        (404, Some("120"), now.plus_millis(5_500)),
    ];
    let mut jobs = Vec::new();
    for (number, (status, retry_after, due)) in cases.iter().enumerate() {
        let path = format!("/{number}");
        let mut reply = Reply::status(*status);
        if let Some(value) = retry_after {
            reply = reply.header("Retry-After", value);
        }
        world.receiver.on(&path, [reply, Reply::ok()]);
        let mut callback = callback(&world.receiver.url(&path));
        // Each on a lane of its own: what one is asked for holds for its whole lane.
        callback.rate_limit = Some(rate(1_000.0 + number as f64, 1_000));
        jobs.push((path.clone(), *due, world.submit(callback).await));
    }
    world.node.work().await;
    world.node.send().await;
    for (path, due, job) in &jobs {
        let delivery = world.delivery_of(job.id).await;
        assert_eq!(delivery.next_attempt_at, Some(*due), "{path}: {:?}", cases[number_of(path)]);
    }
    let times: BTreeSet<Timestamp> = jobs.iter().map(|(_, due, _)| *due).collect();
    for time in times {
        world.node.clock.shift_millis(time.millis_since(world.node.engine.now()) - 1);
        world.node.send().await;
        let due: Vec<_> = jobs.iter().filter(|(_, due, _)| *due == time).collect();
        for (path, ..) in &due {
            assert_eq!(world.receiver.log_of(path).len(), 1, "{path}: not before its time");
        }
        world.node.clock.shift_millis(1);
        world.node.send().await;
        for (path, _, job) in due {
            let delivery = world.delivery_of(job.id).await;
            assert_eq!((delivery.status, delivery.attempts), ("delivered", 2), "{path}");
        }
    }
}

fn number_of(path: &str) -> usize {
    path.trim_start_matches('/').parse().unwrap()
}

on_both!(async a_refusal_is_tried_over_the_short_end_only);
async fn a_refusal_is_tried_over_the_short_end_only(database: Database) {
    let world = World::start(&database).await;
    world.receiver.otherwise([Reply::status(404)]);
    let job = world.done(callback(&world.receiver.url("/hook"))).await;
    world.node.send().await;
    for wait in &WAITS_SECONDS[..3] {
        assert_eq!(world.delivery_of(job.id).await.status, "pending");
        world.wait(Duration::from_secs(*wait)).await;
        world.node.send().await;
    }
    let delivery = world.delivery_of(job.id).await;
    assert_eq!((delivery.status, delivery.attempts), ("exhausted", 4));
    assert_eq!(delivery.reason.as_deref(), Some("http_404"));
}

on_both!(async a_receiver_can_end_one_delivery_or_all_of_a_job);
async fn a_receiver_can_end_one_delivery_or_all_of_a_job(database: Database) {
    let world = World::start(&database).await;
    let cases: [(&str, &[_]); 2] = [
        ("abort-message", &[("exhausted", Some("aborted_by_receiver")), ("delivered", None)]),
        // What comes later is not even owed.
        ("Disable", &[("exhausted", Some("receiver_gone"))]),
    ];
    for (word, expected) in cases {
        let path = format!("/{word}");
        let refusal = Reply::status(503).header("Webhook-Delivery", word);
        world.receiver.on(&path, [refusal, Reply::ok()]);
        let mut hook = callback(&world.receiver.url(&path));
        hook.events = Some(vec!["job.created".to_owned(), "job.succeeded".to_owned()]);
        let job = world.submit(hook).await;
        world.node.send().await;
        world.node.work().await;
        world.node.send().await;
        let mut deliveries = world.deliveries(job.id).await;
        deliveries.sort_by_key(|delivery| delivery.sequence);
        let ends: Vec<_> =
            deliveries.iter().map(|one| (one.status, one.reason.as_deref())).collect();
        assert_eq!(ends, expected, "{word}");
        assert_eq!(world.receiver.log_of(&path).len(), expected.len(), "{word}");
    }
}

on_both!(async a_redirect_is_a_failure_and_never_followed);
async fn a_redirect_is_a_failure_and_never_followed(database: Database) {
    let world = World::start(&database).await;
    let elsewhere = Receiver::start();
    let mut jobs = Vec::new();
    for status in [301, 302, 303, 307, 308] {
        let path = format!("/{status}");
        let location = elsewhere.url("/stolen");
        world.receiver.on(&path, [Reply::status(status).header("Location", &location)]);
        jobs.push((status, world.submit(callback(&world.receiver.url(&path))).await));
    }
    world.node.work().await;
    world.node.send().await;
    for (status, job) in jobs {
        let delivery = world.delivery_of(job.id).await;
        assert_eq!((delivery.status, delivery.attempts), ("pending", 1), "{status}");
        let attempt = &delivery.attempt_log.as_ref().unwrap()[0];
        assert_eq!(
            (attempt.outcome.as_str(), attempt.response_status),
            ("failed", Some(status as i64))
        );
        let due = world.node.engine.now().plus_millis(5_000);
        assert_eq!(delivery.next_attempt_at, Some(due), "tried again as after any failure");
    }
    assert_eq!((elsewhere.connections(), elsewhere.count()), (0, 0));
}

on_both!(async a_receiver_that_is_gone_gets_nothing_more_of_that_job);
async fn a_receiver_that_is_gone_gets_nothing_more_of_that_job(database: Database) {
    let mut world = World::start(&database).await;
    // One at a time, so that none is on its way when the first is refused.
    world.send_by(Settings { lane_cap: 1, ..Settings::default() }, 0.0).await;
    let hook = || {
        let mut hook = callback(&world.receiver.url("/hook"));
        hook.events = Some(vec!["job.*".to_owned()]);
        hook
    };
    let gone = [world.submit(hook()).await, world.submit(hook()).await];
    let refused = gone.each_ref().map(|job| job.id.to_string());
    world.receiver.on_with("/hook", move |request| {
        let id = request.json()["data"]["id"].as_str().expect("a job").to_owned();
        if refused.contains(&id) { Reply::status(410) } else { Reply::ok() }
    });
    let other = world.done(hook()).await;
    world.node.send().await;

    for job in &gone {
        let deliveries = world.deliveries(job.id).await;
        let ends: Vec<_> =
            deliveries.iter().map(|one| (one.status, one.reason.as_deref())).collect();
        let cancelled = ("cancelled", Some("receiver_gone"));
        assert_eq!(ends, [("exhausted", Some("receiver_gone")), cancelled, cancelled]);
        assert_eq!(outcomes(&deliveries[0]), [(1, "failed")]);
        assert!(outcomes(&deliveries[1]).is_empty(), "never tried");
    }
    let deliveries = world.deliveries(other.id).await;
    let statuses: Vec<_> = deliveries.iter().map(|one| one.status).collect();
    assert_eq!(statuses, ["delivered"; 3], "other jobs with the same callback go on");
    world.wait(Duration::from_secs(86_400)).await;
    world.node.send().await;
    assert_eq!(world.receiver.count(), 5);
}

on_both!(async a_receiver_that_is_gone_gets_no_later_events_of_that_job);
async fn a_receiver_that_is_gone_gets_no_later_events_of_that_job(database: Database) {
    let world = World::start(&database).await;
    world.receiver.on("/hook", [Reply::status(410), Reply::ok()]);
    let mut hook = callback(&world.receiver.url("/hook"));
    hook.events = Some(vec!["job.*".to_owned()]);
    let job = world.submit(hook).await;
    world.node.send().await;
    world.node.work().await;
    world.node.send().await;
    let delivery = world.delivery_of(job.id).await;
    assert_eq!((delivery.status, delivery.reason.as_deref()), ("exhausted", Some("receiver_gone")));
    assert_eq!(world.receiver.count(), 1);
    assert_eq!(world.node.event_types(&world.caller, job.id).await.len(), 3, "the log has all");
}

on_both!(async a_refused_address_is_final_and_a_closed_port_is_not);
async fn a_refused_address_is_final_and_a_closed_port_is_not(database: Database) {
    let world = World::start(&database).await;
    let closed = format!("http://127.0.0.1:{}/hook", free_port());
    let private = world.submit(callback("http://10.0.0.1/hook")).await;
    let metadata = world.submit(callback("http://169.254.169.254/hook")).await;
    let broken = world.submit(callback(&closed)).await;
    world.receiver.on("/hang-up", [Reply::hang_up()]);
    world.receiver.on("/cut", [Reply::ok().body("twelve bytes").cut_after(5)]);
    let hung_up = world.submit(callback(&world.receiver.url("/hang-up"))).await;
    let cut = world.submit(callback(&world.receiver.url("/cut"))).await;
    world.node.work().await;
    world.node.send().await;

    for (job, code) in [(private, "address_private"), (metadata, "address_forbidden")] {
        let delivery = world.delivery_of(job.id).await;
        assert_eq!((delivery.status, delivery.reason.as_deref()), ("refused", Some(code)));
        assert_eq!((delivery.attempts, delivery.next_attempt_at), (1, None));
        let attempt = &delivery.attempt_log.as_ref().unwrap()[0];
        assert_eq!((attempt.outcome.as_str(), attempt.address.as_deref()), ("refused", None));
        assert_eq!(attempt.error_code.as_deref(), Some(code));
    }
    let due = world.node.engine.now().plus_millis(5_000);
    let codes = [(broken, "connect_failed"), (hung_up, "connection_closed"), (cut, "body_closed")];
    for (job, code) in codes {
        let delivery = world.delivery_of(job.id).await;
        assert_eq!((delivery.status, delivery.next_attempt_at), ("pending", Some(due)), "{code}");
        let attempt = &delivery.attempt_log.as_ref().unwrap()[0];
        assert_eq!(attempt.error_code.as_deref(), Some(code));
        assert_eq!(attempt.outcome, "failed");
    }
}

on_both!(async what_was_on_its_way_to_a_receiver_that_declines_is_not_tried_again);
async fn what_was_on_its_way_to_a_receiver_that_declines_is_not_tried_again(database: Database) {
    let world = World::start(&database).await;
    let mut hook = callback(&world.receiver.url("/hook"));
    hook.events = Some(vec!["job.*".to_owned()]);
    let job = world.submit(hook).await;
    let engine = &world.node.engine;
    engine.claim(vec![("default".to_owned(), 1)], 1).await.unwrap();
    let lane = engine.look_for_lanes().await.unwrap().waiting[0].0;
    let claim = async || engine.claim_deliveries(vec![wish(lane)]).await.unwrap();
    let mut both = claim().await;
    both.sort_by(|one, other| one.event_type.cmp(&other.event_type));
    let names: Vec<&str> = both.iter().map(|owed| owed.event_type.as_str()).collect();
    assert_eq!(names, ["job.created", "job.started"]);
    let now = engine.now();
    let declined = Record { receiver_gone: true, ..received(&both[0], now.0) };
    assert!(engine.record(declined).await.unwrap().held);
    let failed = ClosedAttempt {
        outcome: "failed",
        response_status: Some(500),
        ..received(&both[1], now.0).closed
    };
    let next = Next::Retry { due_at: now, failure: "http_status".to_owned() };
    let retry = Record { closed: failed, next, ..received(&both[1], now.0) };
    assert!(engine.record(retry).await.unwrap().held);
    assert!(claim().await.is_empty(), "nothing is sent");
    let all = (i64::MAX, i64::MAX);
    let (listed, _) =
        engine.list_deliveries(&world.caller, &of_job(job.id), all, 10).await.unwrap();
    let ends: Vec<_> = listed.iter().map(|one| (one.status, one.reason.as_deref())).collect();
    let gone = Some("receiver_gone");
    assert_eq!(
        ends.iter().collect::<BTreeSet<_>>(),
        [("cancelled", gone), ("delivered", gone)].iter().collect()
    );
    assert_eq!(number(&database, "SELECT COUNT(*) AS number FROM live_deliveries"), 0);
    // Asked for by hand it is sent again.
    let cancelled = listed.iter().find(|one| one.status == "cancelled").expect("one");
    engine.redeliver(&world.caller, cancelled.id).await.unwrap();
    assert_eq!(claim().await.len(), 1);
}
