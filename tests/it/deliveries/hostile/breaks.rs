//! Receivers that hang up, and those that do not speak HTTP.

use std::time::Duration;

use super::Stage;
use crate::support::database::{Database, on_both};
use crate::support::rude::{Receiver, Reply, ok};

const DEADLINE: Duration = super::RELAXED;

const HALF: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
const HALF_IN_CHUNKS: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\nhalf";

on_both!(async a_receiver_that_closes_at_once);
async fn a_receiver_that_closes_at_once(database: Database) {
    let mut stage = Stage::set(&database, DEADLINE).await;
    let receiver = Receiver::start_refusing(1, |_| ok()).await;
    stage.suffer_from(&receiver).await.failed_as("connection_closed");
    assert_eq!((receiver.connections(), receiver.requests().len()), (2, 1), "no hidden second try");
}

on_both!(async a_receiver_that_closes_before_it_has_answered);
async fn a_receiver_that_closes_before_it_has_answered(database: Database) {
    let mut stage = Stage::set(&database, DEADLINE).await;
    for said in ["", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\ncontent-le"] {
        let suffered = stage.suffer(Reply::Close(said.into())).await;
        suffered.failed_as("connection_closed");
        assert_eq!(suffered.completed(), ["dnsMs", "connectMs"]);
        assert_eq!(suffered.attempt.response_status, None);
    }
}

on_both!(async a_2xx_whose_body_breaks_off_is_not_received);
async fn a_2xx_whose_body_breaks_off_is_not_received(database: Database) {
    let mut stage = Stage::set(&database, DEADLINE).await;
    for half in [HALF, HALF_IN_CHUNKS] {
        let suffered = stage.suffer(Reply::Close(half.to_vec())).await;
        suffered.failed_as("body_closed");
        assert_eq!(suffered.completed(), ["dnsMs", "connectMs", "firstByteMs"]);
    }
}

on_both!(async a_receiver_that_resets);
async fn a_receiver_that_resets(database: Database) {
    let mut stage = Stage::set(&database, DEADLINE).await;
    for (said, code) in [
        (&b""[..], "connection_closed"),
        (b"HTTP/1.1 200 OK\r\nx-", "connection_closed"),
        (HALF, "body_closed"),
    ] {
        stage.suffer(Reply::Reset(said.to_vec())).await.failed_as(code);
    }
}

on_both!(async junk_instead_of_http);
async fn junk_instead_of_http(database: Database) {
    let mut stage = Stage::set(&database, DEADLINE).await;
    let noise: Vec<u8> = (0..=255).cycle().take(4_096).collect();
    for junk in [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(),
        b"220 mail.example.test ESMTP ready\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n".to_vec(),
        b"HTTP/1.1 99999 Many\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        noise,
    ] {
        let suffered = stage.suffer(Reply::Close(junk)).await;
        suffered.failed_as("protocol_error");
        assert_eq!(suffered.attempt.response_status, None);
    }
}

on_both!(async what_came_before_a_break_is_kept);
async fn what_came_before_a_break_is_kept(database: Database) {
    let mut stage = Stage::set(&database, DEADLINE).await;
    let suffered = stage.suffer(Reply::Close(HALF.to_vec())).await;
    suffered.failed_as("body_closed");
    let attempt = &suffered.attempt;
    assert_eq!(
        (attempt.response_status, attempt.response_body.as_deref()),
        (Some(200), Some("half"))
    );
    let headers = attempt.response_headers.as_ref().map(|headers| headers.get());
    assert_eq!(headers, Some(r#"[["content-length","100"]]"#));
}
