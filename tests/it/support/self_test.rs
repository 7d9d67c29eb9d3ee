//! That the plumbing holds: each helper is seen to catch what it is there to catch.

use std::time::{Duration, Instant};

use ringback::clock::Clock;
use serde_json::json;

use super::cluster::Cluster;
use super::database::{Backend, Database, on_both};
use super::http::Client;
use super::machine;
use super::receiver::{Receiver, Reply};
use super::wait;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_wait_is_bounded_and_looks_at_least_once() {
    let begun = Instant::now();
    assert_eq!(wait::within(Duration::from_millis(20), || None::<()>), None);
    assert!(begun.elapsed() >= Duration::from_millis(20));
    assert_eq!(wait::within(Duration::ZERO, || Some(1)), Some(1));
    let mut looks = 0;
    wait::eventually("three looks", PATIENCE, || {
        looks += 1;
        (looks == 3).then_some(())
    });
}

#[tokio::test]
async fn an_async_wait_is_bounded_too() {
    let mut looks = 0;
    let third = wait::eventually_async("three looks", PATIENCE, async || {
        looks += 1;
        (looks == 3).then_some(looks)
    });
    assert_eq!(third.await, 3);
    let never = async || None::<()>;
    let hopeless = wait::eventually_async("a miracle", Duration::from_millis(20), never);
    tokio::spawn(hopeless).await.expect_err("it panics");
}

fn send_signed(client: &Client, body: &str, signed_body: &str) {
    let seconds = Clock::system().now().seconds();
    let webhook = standardwebhooks::Webhook::new(SECRET).expect("a secret");
    let signature = webhook.sign("msg_1", seconds, signed_body.as_bytes()).expect("text");
    client
        .request("POST", "/hook")
        .header("webhook-id", "msg_1")
        .header("webhook-timestamp", &seconds.to_string())
        .header("webhook-signature", &signature)
        .body(body)
        .send()
        .expect(200);
}

#[test]
fn the_receiver_tells_a_right_signature_from_a_wrong_one() {
    let receiver = Receiver::start();
    let client = Client::new(receiver.url(""));
    send_signed(&client, "{}", "{}");
    receiver.trust("whsec_AAAA");
    receiver.trust(SECRET);
    send_signed(&client, r#"{"a": 1}"#, r#"{"a": 1}"#);
    send_signed(&client, r#"{"a": 1}"#, r#"{"a": 2}"#);
    client.post("/hook", &json!({})).expect(200);

    let log = receiver.wait_for(4, PATIENCE);
    let right: Vec<bool> = log.iter().map(|received| received.signature.is_ok()).collect();
    assert_eq!(right, [false, true, false, false]);
    assert_eq!(log[1].signed().webhook_id(), "msg_1");
    assert_eq!(log[1].json(), json!({"a": 1}));
    // Nearly always one; a client that was held up for long makes another.
    assert!(receiver.connections() < 4, "connections are kept");
}

#[test]
fn the_receiver_answers_by_its_script() {
    let receiver = Receiver::start();
    let client = Client::new(receiver.url(""));
    let delay = Duration::from_millis(50);
    receiver.on(
        "/a",
        [
            Reply::status(503).header("Retry-After", "2").body("busy"),
            Reply::hang_up(),
            Reply::status(204).after(delay),
        ],
    );
    receiver.on_with("/b", |received| Reply::ok().body(received.path.clone()));
    receiver.on("/cut", [Reply::ok().body("twelve bytes").cut_after(5)]);
    receiver.on("/silent", [Reply::silence()]);
    receiver.on("/slow", [Reply::ok().body("12345").slowly(2, Duration::from_millis(10))]);

    let first = client.get("/a").expect(503);
    assert_eq!((first.header("retry-after"), first.text().as_str()), (Some("2"), "busy"));
    client.request("GET", "/a").try_send().expect_err("it hangs up");
    let begun = Instant::now();
    client.get("/a").expect(204);
    client.get("/a").expect(204);
    assert!(begun.elapsed() >= 2 * delay);
    assert_eq!(client.get("/b?c=d").expect(200).text(), "/b?c=d");
    assert_eq!(client.head("/b").expect(200).text(), "");
    client.request("GET", "/cut").try_send().expect_err("it cuts");
    let impatient = client.request("GET", "/silent").timeout(Duration::from_millis(50));
    impatient.try_send().expect_err("it is silent");
    assert_eq!(client.get("/slow").expect(200).text(), "12345");
    assert_eq!(receiver.log_of("/a").len(), 4);
    assert_eq!(receiver.wait_for_on("/cut", 1, PATIENCE)[0].method, "GET");
}

#[test]
fn the_receiver_holds_answers_back_and_knows_who_has_left() {
    let receiver = Receiver::start();
    let client = Client::new(receiver.url(""));
    let delay = Duration::from_secs(1);
    receiver.on("/both", [Reply::ok().once_there_are(2)]);
    receiver.on("/late", [Reply::ok().after(delay)]);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| client.get("/both").expect(200));
        receiver.wait_for(1, PATIENCE);
        assert!(!first.is_finished(), "it waits for another");
        client.get("/both").expect(200);
    });
    client.get("/late").expect(200);
    let impatient = client.request("GET", "/late").timeout(delay / 2);
    impatient.try_send().expect_err("it is late");
    let log = receiver.log_of("/late");
    if let Some(left) = log.get(1) {
        wait::eventually("it is seen to be gone", PATIENCE, || left.was_left().then_some(()));
    }
    assert!(!log[0].was_left());
}

#[test]
fn a_client_survives_the_restart_of_its_server() {
    // Not a port that an outgoing connection of somebody else's may get meanwhile.
    let receiver = Receiver::start_on(machine::free_port());
    let (client, port) = (Client::new(receiver.url("")), receiver.port());
    client.get("/").expect(200);
    drop(receiver);
    client.request("GET", "/").try_send().expect_err("nobody listens");
    let receiver = wait::eventually("the port is free again", PATIENCE, || {
        std::panic::catch_unwind(|| Receiver::start_on(port)).ok()
    });
    client.get("/").expect(200);
    assert_eq!(receiver.count(), 1);
}

on_both!(a_database_is_its_tests_own);
fn a_database_is_its_tests_own(database: Database) {
    let other = Database::fresh(database.backend());
    for one in [&database, &other] {
        let mut connection = one.connect();
        assert_eq!(connection.backend(), database.backend());
        connection.batch("CREATE TABLE t (id BIGINT); INSERT INTO t VALUES (1);").expect("SQL");
    }
    let url = other.url().to_owned();
    let _still_connected = (database.backend() == Backend::Postgres).then(|| other.connect());
    drop(other);
    let location = ringback::store::Location::parse(&url).expect("a location");
    let gone = match database.backend() {
        Backend::Sqlite => !std::path::Path::new(&location.address).exists(),
        Backend::Postgres => ringback::store::Connection::open(&location).is_err(),
    };
    assert!(gone, "{url} is still there");
    database.connect().batch("SELECT * FROM t").expect("the first is untouched");
}

#[test]
fn a_cluster_freezes_thaws_dies_and_comes_back() {
    let mut cluster = Cluster::start();
    let database = Database::fresh_in(&cluster.url());
    let mut connection = database.connect();
    connection.batch("CREATE TABLE t (id BIGINT)").expect("SQL");

    cluster.freeze();
    let (asked, answered) = std::sync::mpsc::channel();
    let asking = std::thread::spawn(move || {
        connection.batch("INSERT INTO t VALUES (1)").expect("it waits and succeeds");
        asked.send(()).expect("the test waits");
    });
    answered.recv_timeout(Duration::from_millis(300)).expect_err("frozen");
    cluster.thaw();
    answered.recv_timeout(PATIENCE).expect("thawed");
    asking.join().expect("it succeeded");

    let mut connection = database.connect();
    cluster.stop_immediate();
    connection.batch("SELECT 1").expect_err("stopped");
    cluster.start_again();
    database.connect().batch("DO $$BEGIN ASSERT (SELECT id = 1 FROM t); END$$").expect("kept");
}
