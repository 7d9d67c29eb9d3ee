//! The feed as server-sent events: what comes, in what order, for how long.

use serde_json::{Value, json};

use super::events;
use super::reader::{Block, Reader};
use crate::api::{PATIENCE, World, list, noop, problem, text, with};
use crate::support::cluster::Cluster;
use crate::support::database::{Database, on_both};
use crate::support::process::{Application, data_dir, ringback};
use crate::support::wait::eventually;

/// As many as an application may have open on a node.
const MOST: usize = 64;

impl World {
    #[track_caller]
    fn follow(&self, query: &str) -> Reader {
        self.follow_with(query, &[])
    }

    #[track_caller]
    fn follow_with(&self, query: &str, headers: &[(&str, &str)]) -> Reader {
        let reader = Reader::open(&self.server, &self.application.api_key, query, headers);
        assert_eq!(reader.status, 200);
        reader
    }
}

fn greeting(position: &str) -> Block {
    Block { id: Some(position.to_owned()), retry: Some("1000".to_owned()), ..Block::default() }
}

on_both!(a_stream_is_the_feed_as_it_grows);
fn a_stream_is_the_feed_as_it_grows(database: Database) {
    let world = World::start(database);
    // Line breaks inside of JSON would cut a block.
    let odd =
        "{\"type\":\"urn:job:noop\",\"specification\":{},\"metadata\":{\n\"a\":\r\n\"b\\n\"\r}}";
    let request =
        world.client.request("POST", "/v1/jobs").header("content-type", "application/json");
    let job = text(&request.body(odd).send().expect(202).json()["id"]);
    world.finished(&job);
    events(&world, 3);
    let mut reader = world.follow("");
    assert_eq!(reader.header("content-type"), Some("text/event-stream"));
    assert_eq!(reader.header("cache-control"), Some("no-store"));
    assert_eq!(reader.header("x-accel-buffering"), Some("no"));
    assert_eq!(reader.header("content-encoding"), None);
    assert_eq!(reader.block(), Some(greeting("0")));
    let mut seen: Vec<(i64, Value)> = (0..3).map(|_| reader.event()).collect();
    assert_eq!(seen[0].1["data"]["metadata"], json!({"a": "b\n"}));

    // What happens now comes at once, and in the order of the feed.
    world.ran(&noop(0.0));
    seen.extend((0..3).map(|_| reader.event()));
    let feed = events(&world, 6);
    assert_eq!(seen.iter().map(|(_, event)| event.clone()).collect::<Vec<_>>(), feed);
    let places: Vec<i64> = seen.iter().map(|(place, _)| *place).collect();
    assert_eq!(places, [1, 2, 3, 4, 5, 6]);
    // A place of the stream is a place of the feed.
    let page = world.client.get(&format!("/v1/events?after={}", places[3])).expect(200).json();
    assert_eq!(list(&page, "events")[..], feed[4..]);
}

on_both!(a_lost_stream_goes_on_where_it_was);
fn a_lost_stream_goes_on_where_it_was(database: Database) {
    let world = World::start(database);
    world.ran(&noop(0.0));
    let feed = events(&world, 3);
    let mut reader = world.follow("?types=job.created,job.succeeded");
    reader.block();
    let (place, first) = reader.event();
    assert_eq!(first, feed[0]);
    drop(reader);
    let last = place.to_string();
    let resume = [("Last-Event-ID", last.as_str())];
    let mut reader = world.follow_with("?types=job.created,job.succeeded", &resume);
    assert_eq!(reader.block(), Some(greeting(&last)));
    assert_eq!(reader.event(), (3, feed[2].clone()));
    // The header counts before the parameter, which a browser repeats as it was.
    for query in ["?after=0", "?after=3", "?after=latest"] {
        let mut reader = world.follow_with(query, &[("last-event-id", "2")]);
        assert_eq!(reader.block(), Some(greeting("2")));
        assert_eq!(reader.event(), (3, feed[2].clone()), "{query}");
    }
    let mut reader = world.follow("?after=2");
    reader.block();
    assert_eq!(reader.event().0, 3);
    // One that begins now and is lost at once knows where now was.
    let mut reader = world.follow("?after=latest");
    assert_eq!(reader.block(), Some(greeting("3")));
    world.ran(&noop(0.0));
    assert_eq!(reader.event().0, 4);
}

on_both!(a_stream_is_refused_by_status);
fn a_stream_is_refused_by_status(database: Database) {
    let world = World::start(database);
    world.ran(&noop(0.0));
    events(&world, 3);
    for (query, code) in [
        ("after=x", "invalid_request"),
        ("after=4", "invalid_request"),
        ("types=nothing", "invalid_request"),
        ("limit=1", "unknown_field"),
    ] {
        let path = format!("/v1/events/stream?{query}");
        problem(world.client.get(&path), 400, code);
    }
    for id in ["4", "x", "-1", "latest", "1,2"] {
        let request = world.client.request("GET", "/v1/events/stream");
        let refused = problem(request.header("last-event-id", id).send(), 400, "invalid_request");
        assert_eq!(refused["errors"][0]["parameter"], "Last-Event-ID", "{refused}");
    }
    // Another application's feed is another feed.
    let other = Application::create(&world.database, "second");
    let mut reader = Reader::open(&world.server, &other.api_key, "", &[]);
    assert_eq!(reader.block(), Some(greeting("0")));
    let mut own = world.follow("?after=3");
    own.block();
    let job = world.server.client_of(&other).post("/v1/jobs", &noop(0.0)).expect(202).json();
    let (place, event) = reader.event();
    assert_eq!((place, &event["subjectId"]), (1, &job["id"]));
    let own_job = world.id_of(&noop(0.0));
    assert_eq!(own.event().1["subjectId"], own_job.as_str(), "nothing of the other's before it");
}

on_both!(streams_end_when_the_server_stops);
fn streams_end_when_the_server_stops(database: Database) {
    let mut world = World::start(database);
    let mut readers: Vec<Reader> = (0..3).map(|_| world.follow("")).collect();
    readers.iter_mut().for_each(|reader| drop(reader.block()));
    let status = world.server.sigterm(PATIENCE);
    assert!(status.success(), "{status}");
    for mut reader in readers {
        assert_eq!(reader.rest(), [""; 0], "the end of an answer, not of a connection");
    }
}

on_both!(a_stream_lives_as_long_as_its_key);
fn a_stream_lives_as_long_as_its_key(database: Database) {
    let world = World::start(database);
    let mut kept = world.follow("");
    let other = Application::create(&world.database, "second");
    let mut reader = Reader::open(&world.server, &other.api_key, "", &[]);
    reader.block();
    kept.block();
    // A sign of life comes without any event.
    assert_eq!(reader.block().expect("it goes on").comment.as_deref(), Some(""));
    let data = data_dir(&world.database);
    let arguments = ["--database", world.database.url(), "--data-dir", &data];
    let listed = ringback(&[&["apps", "list", "--json"][..], &arguments].concat()).success();
    let listed = listed.stdout;
    let key = credential(&listed, &other.id);
    ringback(&[&["apps", "revoke", &other.id, &key][..], &arguments].concat()).success();
    let last_words = reader.rest();
    let last = last_words.last().expect("the reason");
    assert!(last.contains("key_expired"), "{last_words:?}");
    world.ran(&noop(0.0));
    assert_eq!(kept.event().0, 1, "nobody else's stream ends");
}

/// The id of an application's API key, as `apps list` shows it.
fn credential(listed: &str, application: &str) -> String {
    let listed: Value = serde_json::from_str(listed).expect("JSON");
    let applications = listed.as_array().unwrap_or_else(|| panic!("a list: {listed}"));
    let own = applications.iter().find(|one| one["id"] == application).expect("the application");
    let keys = own["credentials"].as_array().unwrap_or_else(|| panic!("credentials: {own}"));
    let key = keys.iter().find(|one| one["kind"] == "api_key");
    text(&key.unwrap_or_else(|| panic!("a key: {own}"))["id"])
}

on_both!(an_application_has_so_many_streams);
fn an_application_has_so_many_streams(database: Database) {
    let world = World::start(database);
    let mut readers: Vec<Reader> = (0..MOST).map(|_| world.follow("")).collect();
    let refused = world.client.get("/v1/events/stream");
    assert!(refused.header("retry-after").is_some());
    let refused = problem(refused, 429, "rate_limited");
    assert!(text(&refused["detail"]).contains("allowed: 64"), "{refused}");
    let other = Application::create(&world.database, "second");
    assert_eq!(Reader::open(&world.server, &other.api_key, "", &[]).status, 200);
    world.ran(&noop(0.0));
    for reader in &mut readers {
        assert_eq!(reader.block(), Some(greeting("0")));
        assert_eq!(reader.event().0, 1);
    }
    // The seat of one that goes is free again, at the latest with the next sign of life.
    drop(readers);
    eventually("there is room again", 2 * PATIENCE, || {
        let key = &world.application.api_key;
        (Reader::open(&world.server, key, "", &[]).status == 200).then_some(())
    });
}

on_both!(a_slow_reader_holds_up_nobody);
fn a_slow_reader_holds_up_nobody(database: Database) {
    let world = World::start(database);
    let sources: Vec<Value> = (0..1_000)
        .map(|number| json!({"path": format!("/{number:04}/{}", "d/".repeat(400) + "f")}))
        .collect();
    let large = with(with(noop(0.0), "sources", sources), "runAt", "2090-01-01T00:00:00Z");
    // Far more than sockets and the server's own buffers take.
    let jobs: Vec<String> = (0..24).map(|_| world.id_of(&large)).collect();
    let read_all = |reader: &mut Reader| {
        for (place, job) in (1..).zip(&jobs) {
            let (at, event) = reader.event();
            assert_eq!((at, &event["subjectId"]), (place, &json!(job)), "nothing is left out");
        }
    };
    read_all(&mut world.follow(""));
    let before = resident(world.server.pid());
    let mut slow: Vec<Reader> = (0..8).map(|_| world.follow("")).collect();
    eventually("the system holds as much as it takes for each of them", PATIENCE, || {
        slow.iter().all(|reader| reader.is_behind()).then_some(())
    });
    read_all(&mut world.follow(""));
    assert!(slow.iter().all(Reader::is_behind), "they have more to come");
    let grown = resident(world.server.pid()).saturating_sub(before) >> 20;
    // Everything for everybody would be 8 times 18 MiB.
    assert!(grown < 80, "{grown} MiB more than before");
    slow.truncate(1);
    read_all(&mut slow[0]);
}

#[test]
fn a_stream_outlives_an_outage_of_the_database() {
    let mut cluster = Cluster::start();
    let world = World::start(Database::fresh_in(&cluster.url()));
    world.ran(&noop(0.0));
    let mut reader = world.follow("");
    reader.block();
    (1..=3).for_each(|place| assert_eq!(reader.event().0, place));
    cluster.stop_immediate();
    let ready = || world.client.request("GET", "/readyz").try_send().map(|answer| answer.status);
    eventually("it says that it is not ready", PATIENCE, || (ready() == Ok(503)).then_some(()));
    // Nobody can tell now whether the key is still good, and nobody else is held up by that.
    assert_eq!(reader.block().expect("it goes on").comment.as_deref(), Some(""));
    assert_eq!(ready(), Ok(503));
    cluster.start_again();
    eventually("it is ready again", PATIENCE, || (ready() == Ok(200)).then_some(()));
    let job = eventually("it accepts jobs again", PATIENCE, || {
        let answer = world.client.request("POST", "/v1/jobs").json(&noop(0.0)).try_send().ok()?;
        (answer.status == 202).then(|| text(&answer.json()["id"]))
    });
    let (place, event) = reader.event();
    assert_eq!((place, &event["subjectId"]), (4, &json!(job)));
}

/// Bytes of memory that a process holds.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a figure");
    let kilobytes = line.split_whitespace().nth(1).and_then(|figure| figure.parse::<u64>().ok());
    kilobytes.expect("a number") * 1_024
}
