//! Receivers that send more than anybody wants.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::{MOST_POURED, Stage};
use crate::support::database::{Database, on_both};
use crate::support::http::Client;
use crate::support::machine;
use crate::support::process::{Application, Server};
use crate::support::rude::{Receiver, Reply, ok};
use crate::support::wait::eventually;

const DEADLINE: Duration = super::RELAXED;

fn endless(head: &str, more: &str) -> Reply {
    Reply::Endless(head.into(), more.repeat(16 * 1_024 / more.len()).into_bytes())
}

on_both!(async heads_that_never_end);
async fn heads_that_never_end(database: Database) {
    let mut stage = Stage::set(&database, DEADLINE).await;
    for reply in [
        endless("HTTP/1.1 200 OK\r\n", "x-more: and more\r\n"),
        endless("HTTP/1.1 200 OK\r\n", &format!("x-long: {}\r\n", "y".repeat(4_000))),
        endless("HTTP/1.1 200 OK\r\nx-long: ", "y"),
        endless("HTTP/1.1 200 ", "OK"),
        endless("HTTP/1.1 ", "2"),
        endless("", "HTTP/1.1 103 Early Hints\r\n\r\n"),
    ] {
        let suffered = stage.suffer(reply).await;
        suffered.failed_as("protocol_error");
        assert_eq!(suffered.attempt.response_status, None);
    }
}

on_both!(async a_header_of_a_megabyte);
async fn a_header_of_a_megabyte(database: Database) {
    let mut stage = Stage::set(&database, DEADLINE).await;
    let megabyte = "y".repeat(1 << 20);
    let head = format!("HTTP/1.1 200 OK\r\nx-long: {megabyte}\r\ncontent-length: 0\r\n\r\n");
    stage.suffer(Reply::Close(head.into_bytes())).await.failed_as("protocol_error");
}

on_both!(async a_2xx_whose_body_never_ends_is_received);
async fn a_2xx_whose_body_never_ends_is_received(database: Database) {
    let mut stage = Stage::set(&database, DEADLINE).await;
    for head in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n",
    ] {
        let suffered = stage.suffer(endless(head, "x")).await;
        assert_eq!(suffered.delivery.status, "delivered", "{head}");
        assert_eq!(suffered.attempt.response_body, Some("x".repeat(4_096)));
    }
}

on_both!(async a_failure_whose_body_never_ends_is_that_failure);
async fn a_failure_whose_body_never_ends_is_that_failure(database: Database) {
    let mut stage = Stage::set(&database, DEADLINE).await;
    let suffered = stage.suffer(endless("HTTP/1.1 503 Busy\r\n\r\n", "x")).await;
    suffered.failed_as("http_503");
    assert_eq!(suffered.attempt.response_status, Some(503));
}

/// An answer whose body is 64 MiB of nothing, packed into less than the cap on bodies.
fn bomb() -> Reply {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 20];
    (0..62).for_each(|_| packer.write_all(&zeros).expect("into memory"));
    let packed = packer.finish().expect("into memory");
    assert!((60_000..64 * 1_024).contains(&packed.len()), "{} bytes", packed.len());
    let length = packed.len();
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {length}\r\n\r\n");
    Reply::Close([head.into_bytes(), packed].concat())
}

on_both!(async a_gzip_bomb_stays_as_small_as_it_came);
async fn a_gzip_bomb_stays_as_small_as_it_came(database: Database) {
    let mut stage = Stage::set(&database, DEADLINE).await;
    let suffered = stage.suffer(bomb()).await;
    assert_eq!(suffered.delivery.status, "delivered");
    let kept = suffered.attempt.response_body.expect("a body");
    assert!(kept.starts_with("\u{1f}\u{fffd}\u{8}"), "as it came: {:?}", &kept[..16]);
    assert_eq!(kept.chars().count(), 4_096);
}

const PATIENCE: Duration = Duration::from_secs(120);

/// As many deliveries of each flood as a lane lets through.
const EACH: usize = 64;
/// The caps on the head and on the body of an answer.
const CAPS: u64 = 64 * 1_024 + 64 * 1_024;
/// What the allocator may keep beside that of what has come and gone: 28 to 49 MB are seen in all.
const ALLOCATOR: u64 = 32 * 1_024 * 1_024;

on_both!(async a_server_under_flood_stays_within_its_caps);
async fn a_server_under_flood_stays_within_its_caps(database: Database) {
    let arguments = [
        "--egress-allow",
        "127.0.0.0/8",
        "--delivery-deadline-seconds",
        "2",
        "--breaker-failures",
        "0",
    ];
    let server = Server::on(&database, &arguments);
    let client = server.client_of(&Application::create(&database, "shop"));
    let long_header = format!("x-long: {}\r\n", "y".repeat(4_000));
    let much = "x".repeat(60_000);
    let slowly = |begin: String| Reply::Drip(begin.into_bytes(), Duration::from_secs(1));
    let floods = [
        endless("HTTP/1.1 200 OK\r\n", &long_header),
        endless("HTTP/1.1 200 OK\r\nx-long: ", "y"),
        endless("", "HTTP/1.1 103 Early Hints\r\n\r\n"),
        endless("HTTP/1.1 200 OK\r\n\r\n", "x"),
        bomb(),
        // These keep for the whole deadline what they have brought.
        slowly(format!("HTTP/1.1 200 OK\r\nx-long: {much}")),
        slowly(format!("HTTP/1.1 200 OK\r\n\r\n{much}")),
    ];
    let most = u64::try_from(floods.len() * EACH).expect("a few") * CAPS + ALLOCATOR;

    // As many well-behaved ones show what the server needs anyway.
    let mut receivers = Vec::new();
    for _ in &floods {
        let receiver = Receiver::start(|_| ok()).await;
        submit(&client, &receiver);
        receivers.push(receiver);
    }
    wait_for_attempts(&client, &receivers);
    let before = machine::peak_memory(server.pid());
    for flood in floods {
        let receiver = Receiver::start(move |_| flood.clone()).await;
        submit(&client, &receiver);
        receivers.push(receiver);
    }
    wait_for_attempts(&client, &receivers);
    let grown = machine::peak_memory(server.pid()) - before;
    assert!(grown < most, "{grown} bytes more than the {before} before");
    for receiver in receivers {
        let connections = u64::try_from(receiver.connections()).expect("a few");
        assert!(receiver.poured() < connections * MOST_POURED);
    }
}

fn submit(client: &Client, receiver: &Receiver) {
    let callback = json!({"url": receiver.url("/hook")});
    let job = json!({"type": "urn:job:noop", "specification": {}, "callback": callback});
    client.post("/v1/jobs/batch", &json!({"jobs": vec![job; EACH]})).expect(202);
}

/// Waits until each receiver has been tried by all that is owed to it, and until as many attempts as
/// have come to any of them have ended, whatever their outcome. Those that fail come again.
fn wait_for_attempts(client: &Client, receivers: &[Receiver]) {
    let came = |receiver: &Receiver| receiver.requests().len();
    eventually("all are tried", PATIENCE, || {
        receivers.iter().all(|receiver| came(receiver) >= EACH).then_some(())
    });
    let count: usize = receivers.iter().map(came).sum();
    eventually("all attempts end", PATIENCE, || {
        let text = client.get("/metrics").expect(200).text();
        let attempts = text.lines().filter(|line| line.contains("delivery_attempts_total{"));
        let ended = attempts.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
        (ended.sum::<usize>() >= count).then_some(())
    });
}
