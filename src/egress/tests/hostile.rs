//! Receivers that stall, break off, flood or do not speak HTTP.

use std::time::Duration;

use super::receiver::{Receiver, Reply, ok, response};
use super::{PATIENCE, SHORT, local_client, post};
use crate::egress::{Answer, Phase, SendError, Sent};

const PACE: Duration = Duration::from_millis(5);

/// What a flood may get rid of: mostly the system's buffers of both sockets, which the client does
/// not choose. A client that went on reading would take gigabytes.
const MOST_POURED: u64 = 16 * 1024 * 1024;

async fn exchange(reply: Reply, deadline: Duration) -> Result<Answer, SendError> {
    let receiver = Receiver::start(move |_| reply.clone()).await;
    let client = local_client();
    let mut outgoing = post(receiver.url("/hook?secret=1"));
    outgoing.deadline = deadline;
    outgoing.body_cap = 1000;
    let Sent { result: outcome, trace, .. } = client.send(outgoing).await;
    assert_eq!(trace.address, Some(receiver.address));
    assert!(receiver.poured() < MOST_POURED, "{} bytes", receiver.poured());
    if outcome.is_err() {
        receiver.connection_ended().await;
        assert_eq!(receiver.connections(), 1, "a new connection's failure is not tried again");
        assert_eq!(client.pool().len(), 0);
    }
    if let Err(error) = &outcome {
        assert!(error.is_transient());
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
    outcome
}

#[tokio::test]
async fn the_deadline_covers_headers_and_body() {
    let body = Reply::Drip(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n".to_vec(), PACE);
    for (reply, expected) in [
        (Reply::Hold(Vec::new()), Phase::Response),
        (Reply::Drip(b"HTTP/1.1 200 OK\r\nx-slow: ".to_vec(), PACE), Phase::Response),
        (body, Phase::Body),
    ] {
        let error = exchange(reply, SHORT).await.expect_err("too slow");
        assert!(matches!(error, SendError::Timeout { phase, .. } if phase == expected), "{error}");
    }
}

#[tokio::test]
async fn junk_and_floods_of_headers_are_protocol_errors() {
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    for reply in [
        Reply::Close(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec()),
        Reply::Close(b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n".to_vec()),
        Reply::Close(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_vec()),
        Reply::Close(format!("HTTP/1.1 200 OK\r\n{many}\r\n").into_bytes()),
        Reply::Endless(b"HTTP/1.1 200 OK\r\nx-long: ".to_vec(), vec![b'a'; 4096]),
        Reply::Endless(b"HTTP/1.1 ".to_vec(), vec![b'2'; 4096]),
        Reply::Endless(Vec::new(), b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100)),
    ] {
        let error = exchange(reply, PATIENCE).await.expect_err("not HTTP");
        assert_eq!(error.code(), "protocol_error", "{error:?}");
    }
}

#[tokio::test]
async fn interim_answers_are_skipped_while_they_are_few() {
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n".repeat(100);
    let whole = format!("{early}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine");
    let answer = exchange(Reply::Keep(whole.into_bytes()), PATIENCE).await.expect("an answer");
    assert_eq!((answer.status, &answer.body[..]), (200, &b"fine"[..]));
}

#[tokio::test]
async fn what_came_before_counts_for_one_request_only() {
    let receiver = Receiver::start(|_| response("200 OK", "", &"x".repeat(60_000))).await;
    let client = local_client();
    for number in 0..8 {
        let sent = client.send(post(receiver.url("/"))).await;
        assert_eq!(sent.result.expect("an answer").body.len(), 60_000);
        assert_eq!(sent.trace.reused, number > 0);
    }
}

#[tokio::test]
async fn a_receiver_that_breaks_off() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec();
    let chunk = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_vec();
    for (reply, code) in [
        (Reply::Close(Vec::new()), "connection_closed"),
        (Reply::Close(b"HTTP/1.1 200 OK\r\nx-".to_vec()), "connection_closed"),
        (Reply::Reset(Vec::new()), "connection_closed"),
        (Reply::Reset(half.clone()), "body_closed"),
        (Reply::Close(half), "body_closed"),
        (Reply::Close(chunk), "body_closed"),
    ] {
        let error = exchange(reply, PATIENCE).await.expect_err("broken off");
        assert_eq!(error.code(), code, "{error:?}");
    }
}

#[tokio::test]
async fn a_receiver_that_closes_at_once_is_asked_once() {
    let receiver = Receiver::start_refusing(1, |_| ok()).await;
    let client = local_client();
    let error = client.send(post(receiver.url("/"))).await.result.expect_err("closed");
    assert_eq!(error.code(), "connection_closed", "{error:?}");
    client.send(post(receiver.url("/"))).await.result.expect("an answer");
    assert_eq!((receiver.connections(), receiver.requests().len()), (2, 1));
}

#[tokio::test]
async fn the_body_is_cut_exactly_at_the_cap() {
    for (length, kept, truncated) in [(999, 999, false), (1000, 1000, false), (1001, 1000, true)] {
        let reply = response("200 OK", "", &"x".repeat(length));
        let answer = exchange(reply, PATIENCE).await.expect("an answer");
        assert_eq!((answer.body.len(), answer.truncated), (kept, truncated));
    }
    let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    let answer = exchange(Reply::Endless(head, vec![b'x'; 7000]), PATIENCE).await;
    let answer = answer.expect("an answer");
    assert_eq!((answer.body.len(), answer.truncated), (1000, true));
}

#[tokio::test]
async fn what_was_written_on_an_old_connection_is_never_sent_again_unseen() {
    // The receiver closes the idle connection at the moment the second request arrives on it: it
    // may have acted on it.
    let receiver = Receiver::start(|number| match number {
        1 => Reply::Close(Vec::new()),
        _ => ok(),
    })
    .await;
    let client = local_client();
    client.send(post(receiver.url("/1"))).await.result.expect("an answer");
    let Sent { result, trace, .. } = client.send(post(receiver.url("/2"))).await;
    assert_eq!(result.expect_err("closed").code(), "connection_closed");
    assert!(trace.reused);
    assert_eq!((receiver.connections(), receiver.requests().len()), (1, 2));
    let answer = client.send(post(receiver.url("/3"))).await;
    answer.result.expect("an answer");
    assert!(!answer.trace.reused);
    assert_eq!((receiver.connections(), receiver.requests().len()), (2, 3));
}

#[tokio::test]
async fn half_an_answer_on_an_old_connection_is_not_asked_for_again() {
    let receiver = Receiver::start(|number| match number {
        0 => ok(),
        _ => Reply::Close(b"HTTP/1.1 20".to_vec()),
    })
    .await;
    let client = local_client();
    client.send(post(receiver.url("/1"))).await.result.expect("an answer");
    let error = client.send(post(receiver.url("/2"))).await.result.expect_err("half");
    assert_eq!(error.code(), "connection_closed");
    assert_eq!((receiver.connections(), receiver.requests().len()), (1, 2));
}

#[tokio::test]
async fn a_request_nobody_waits_for_closes_its_connection() {
    let receiver = Receiver::start(|_| Reply::Hold(Vec::new())).await;
    let client = local_client();
    let sending = tokio::spawn({
        let (client, url) = (client.clone(), receiver.url("/"));
        async move { client.send(post(url)).await.result.map(|answer| answer.status) }
    });
    while receiver.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    sending.abort();
    receiver.connection_ended().await;
    assert_eq!(client.pool().len(), 0);
}

#[tokio::test]
async fn a_download_that_fails_never_looks_finished() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec();
    let receiver = Receiver::start(move |_| Reply::Close(half.clone())).await;
    let mut download = local_client().open(post(receiver.url("/"))).await.expect("headers");
    assert_eq!(download.chunk().await.expect("a piece").expect("not the end"), "half");
    for _ in 0..2 {
        assert_eq!(download.chunk().await.expect_err("broken off").code(), "body_closed");
    }
}

#[tokio::test]
async fn a_download_keeps_to_the_deadline_and_survives_impatience() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec();
    let receiver = Receiver::start(move |_| Reply::Hold(head.clone())).await;
    let mut outgoing = post(receiver.url("/"));
    outgoing.deadline = SHORT;
    let mut download = local_client().open(outgoing).await.expect("headers");
    assert_eq!(download.chunk().await.expect("a piece").expect("not the end"), "half");
    // A caller that looks away (to see whether its job was stopped) loses nothing.
    let impatient = tokio::time::timeout(Duration::ZERO, download.chunk()).await;
    assert!(impatient.is_err());
    let error = download.chunk().await.expect_err("too slow");
    assert!(matches!(error, SendError::Timeout { phase: Phase::Body, .. }), "{error:?}");
    receiver.connection_ended().await;
}
