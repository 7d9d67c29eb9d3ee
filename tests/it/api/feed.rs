//! The feed of all events, as those see it who pull, and examples of events for those who test.

mod reader;
mod stream;

use serde_json::{Value, json};

use super::{PATIENCE, World, ids, list, noop, problem, text, with};
use crate::support::database::{Database, on_both};
use crate::support::http::Client;
use crate::support::wait::eventually;

/// All pages from a place on: types of events in order, and where the next page starts.
#[track_caller]
fn read(client: &Client, query: &str, after: &str) -> (Vec<String>, String) {
    let (mut types, mut next) = (Vec::new(), after.to_owned());
    for _ in 0..1_000 {
        let after = if next.is_empty() { String::new() } else { format!("&after={next}") };
        let page = client.get(&format!("/v1/events?{query}{after}")).expect(200).json();
        let events = list(&page, "events");
        let before = std::mem::replace(&mut next, text(&page["next"]));
        types.extend(events.iter().map(|event| text(&event["type"])));
        if events.is_empty() && next == before {
            return (types, next);
        }
    }
    panic!("the feed has no end");
}

/// Waits until the feed holds so many events, which on Postgres takes its relay; all of them.
#[track_caller]
fn events(world: &World, count: usize) -> Vec<Value> {
    eventually(&format!("the feed has {count} events"), PATIENCE, || {
        let page = world.client.get("/v1/events?limit=1000").expect(200).json();
        let events = list(&page, "events").clone();
        (events.len() >= count).then_some(events)
    })
}

on_both!(the_feed_has_everything_in_order);
fn the_feed_has_everything_in_order(database: Database) {
    let world = World::start(database);
    let nothing = world.client.get("/v1/events").expect(200).json();
    assert_eq!(nothing, json!({"events": [], "next": "0"}));
    let job = text(&world.ran(&noop(0.0))["id"]);
    let endpoint = text(&world.endpoint_of_feed()["id"]);
    world.client.post_empty(&format!("/v1/endpoints/{endpoint}/disable")).expect(200);
    world.client.put("/v1/files/a", "a").expect(201);

    let all = events(&world, 5);
    let names = ["id", "subjectType", "subjectId", "sequence", "type", "timestamp", "data"];
    for event in &all {
        let members = event.as_object().expect("an object");
        assert_eq!(members.len(), names.len(), "{event}");
        assert!(names.iter().all(|name| members.contains_key(*name)), "{event}");
    }
    let of_job: Vec<&Value> =
        all.iter().filter(|event| event["subjectId"] == job.as_str()).collect();
    let own = world.client.get(&format!("/v1/jobs/{job}/events")).expect(200).json();
    assert_eq!(of_job, list(&own, "events").iter().collect::<Vec<_>>(), "the same events");
    let switched = all.iter().find(|event| event["type"] == "endpoint.disabled").expect("switched");
    assert_eq!(
        (&switched["subjectType"], &switched["subjectId"]),
        (&json!("endpoint"), &json!(endpoint))
    );

    // However it is cut into pages, it is the same.
    let types: Vec<String> = all.iter().map(|event| text(&event["type"])).collect();
    let (mut whole, next) = read(&world.client, "limit=1000", "");
    assert_eq!(whole[..types.len()], types);
    for limit in [1, 2, 3] {
        assert_eq!(
            read(&world.client, &format!("limit={limit}"), ""),
            (whole.clone(), next.clone())
        );
    }
    // Where it ended is where it goes on.
    let page = world.client.get(&format!("/v1/events?after={next}")).expect(200).json();
    assert_eq!(page, json!({"events": [], "next": next}));
    world.ran(&noop(0.0));
    whole.extend(["job.created", "job.started", "job.succeeded"].map(str::to_owned));
    eventually("the new job is in the feed", PATIENCE, || {
        (read(&world.client, "", "").0 == whole).then_some(())
    });
    assert_eq!(read(&world.client, "", &next).0.len(), 3);
}

impl World {
    /// An endpoint that wants nothing that happens here.
    #[track_caller]
    fn endpoint_of_feed(&self) -> Value {
        let body = json!({"url": self.receiver.url("/hook"), "events": ["job.rescued"]});
        self.client.post("/v1/endpoints", &body).expect(201).json()
    }
}

on_both!(a_reader_chooses_what_it_reads);
fn a_reader_chooses_what_it_reads(database: Database) {
    let world = World::start(database);
    world.ran(&noop(0.0));
    world.ran(&super::pack("/none", "/o", "zip"));
    events(&world, 6);
    for (types, expected) in [
        ("types=job.failed", vec!["job.failed"]),
        ("types=job.failed,job.succeeded", vec!["job.succeeded", "job.failed"]),
        ("types=job.failed&types=job.succeeded", vec!["job.succeeded", "job.failed"]),
        ("types=group.*,job.created", vec!["job.created", "job.created"]),
        ("types=group.*", vec![]),
    ] {
        for limit in ["", "&limit=1"] {
            let found = read(&world.client, &format!("{types}{limit}"), "").0;
            assert_eq!(found, expected, "{types}{limit}");
        }
    }
    let everything = read(&world.client, "types=*", "").0;
    assert_eq!(everything, read(&world.client, "", "").0);

    // From now on, and no further back.
    let now = world.client.get("/v1/events?after=latest").expect(200).json();
    assert_eq!(now["events"], json!([]));
    let next = text(&now["next"]);
    world.ran(&noop(0.0));
    let news = eventually("the third job is in the feed", PATIENCE, || {
        let news = read(&world.client, "", &next).0;
        (news.len() == 3).then_some(news)
    });
    assert_eq!(news, ["job.created", "job.started", "job.succeeded"]);

    let many = format!("types={}", vec!["*"; 33].join(","));
    for bad in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "after=x",
        "after=",
        "after=-1",
        "after=1.0",
        "after=99999999999999999999",
        "after=1&after=2",
        "types=",
        "types=job.f*",
        "types=x",
        "types=job.*,",
        many.as_str(),
    ] {
        let refused =
            problem(world.client.get(&format!("/v1/events?{bad}")), 400, "invalid_request");
        let name = bad.split('=').next().expect("a name");
        assert_eq!(refused["errors"][0]["parameter"], name, "{refused}");
    }
    problem(world.client.get("/v1/events?from=1"), 400, "unknown_field");
    // A place of another feed would skip what comes up to there.
    let beyond = problem(world.client.get("/v1/events?after=1000000"), 400, "invalid_request");
    assert!(text(&beyond["detail"]).contains("1000000"), "{beyond}");
}

on_both!(a_feed_is_one_applications);
fn a_feed_is_one_applications(database: Database) {
    let world = World::start(database);
    let job = text(&world.ran(&noop(0.0))["id"]);
    events(&world, 3);
    let other = world.other();
    let nothing = other.get("/v1/events").expect(200).json();
    assert_eq!(nothing, json!({"events": [], "next": "0"}), "nor can it tell how much there is");
    let own = text(&other.post("/v1/jobs", &noop(0.0)).expect(202).json()["id"]);
    let page = eventually("its own job is in its feed", PATIENCE, || {
        let page = other.get("/v1/events").expect(200).json();
        (list(&page, "events").len() == 3).then_some(page)
    });
    assert_eq!(page["next"], "3", "places are counted by application");
    assert!(list(&page, "events").iter().all(|event| event["subjectId"] == own.as_str()));
    assert!(!page.to_string().contains(&job));
}

on_both!(large_events_come_in_more_pages);
fn large_events_come_in_more_pages(database: Database) {
    let world = World::start(database);
    // Sources are the one part of a submission that can be large and is kept.
    let sources: Vec<Value> = (0..1_000)
        .map(|number| json!({"path": format!("/{number:04}/{}", "d/".repeat(400) + "f")}))
        .collect();
    let job = with(with(noop(0.0), "sources", sources), "runAt", "2090-01-01T00:00:00Z");
    for _ in 0..12 {
        world.id_of(&job);
    }
    let mut pages = Vec::new();
    eventually("the feed has all of them", PATIENCE, || {
        pages.clear();
        let (mut after, mut count) = ("0".to_owned(), 0);
        loop {
            let page = world.client.get(&format!("/v1/events?after={after}")).expect(200);
            let (size, page) = (page.body.len(), page.json());
            let events = list(&page, "events").len();
            if events == 0 {
                return (count == 12).then_some(());
            }
            count += events;
            pages.push((size, events));
            after = text(&page["next"]);
        }
    });
    assert!(pages.len() > 1 && pages.iter().all(|(size, _)| *size < 10 << 20), "{pages:?}");
}

on_both!(an_example_is_sent_to_those_who_want_it);
fn an_example_is_sent_to_those_who_want_it(database: Database) {
    let world = World::start(database);
    let register = |path: &str, settings: Value| {
        let body = with(settings, "url", world.receiver.url(path));
        let made = world.client.post("/v1/endpoints", &body).expect(201).json();
        world.receiver.trust(&text(&made["secret"]));
        text(&made["id"])
    };
    let all = register("/all", json!({}));
    let imports = register("/imports", json!({"types": ["urn:job:import.file"]}));
    register("/groups", json!({"events": ["group.*"]}));
    register("/off", json!({"enabled": false}));
    let trigger = |body: Value| world.client.post("/v1/events/trigger", &body);

    let body = json!({"event": "job.failed", "type": "urn:job:import.file"});
    let answer = trigger(body).expect(202).json();
    let mut to: Vec<String> =
        list(&answer, "deliveries").iter().map(|one| text(&one["endpointId"])).collect();
    to.sort();
    assert_eq!(to, {
        let mut to = vec![all.clone(), imports];
        to.sort();
        to
    });
    for path in ["/all", "/imports"] {
        let sent = world.receiver.wait_for_on(path, 1, PATIENCE);
        let body = sent[0].signed().json();
        assert_eq!(
            (&body["type"], &body["data"]["type"]),
            (&json!("job.failed"), &json!("urn:job:import.file"))
        );
        assert_eq!(body["data"]["status"], "error");
        assert_eq!(body["id"], sent[0].webhook_id());
        assert_eq!(sent[0].header("webhook-redelivery"), Some("trigger"));
        let registered = world.client.get(&format!("/v1/endpoints/{all}")).expect(200).json();
        assert!(text(&body["timestamp"]) >= text(&registered["dateCreated"]), "{body}");
    }
    for id in ids(&answer, "deliveries") {
        let delivery = eventually("the delivery has ended", PATIENCE, || {
            let delivery = world.client.get(&format!("/v1/deliveries/{id}")).expect(200).json();
            (delivery["status"] == "delivered").then_some(delivery)
        });
        assert_eq!(delivery["manner"], "trigger");
    }
    // Without a type it is about any job.
    let answer = trigger(json!({"event": "job.succeeded", "type": null})).expect(202).json();
    assert_eq!(text(&list(&answer, "deliveries")[0]["endpointId"]), all);
    let answer = trigger(json!({"event": "group.completed"})).expect(202).json();
    assert_eq!(list(&answer, "deliveries").len(), 3);
    world.receiver.wait_for_on("/groups", 1, PATIENCE);

    for (body, code, pointer) in [
        (json!({}), "invalid_request", "/event"),
        (json!({"event": "job.*"}), "invalid_request", "/event"),
        (json!({"event": 1}), "invalid_request", "/event"),
        (json!({"event": "job.failed", "type": "noop"}), "unknown_job_type", "/type"),
        (json!({"event": "job.retried", "type": "urn:job:noop"}), "invalid_request", "/type"),
        (json!({"event": "file.created", "type": "urn:job:noop"}), "invalid_request", "/type"),
        (json!({"event": "job.failed", "data": {}}), "unknown_field", "/data"),
    ] {
        let refused = problem(trigger(body), 400, code);
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    let none = trigger(json!({"event": "job.retried", "type": "urn:job:noop"}));
    let none = problem(none, 400, "invalid_request");
    assert!(text(&none["detail"]).contains("urn:job:archive.create"), "{none}");
}
