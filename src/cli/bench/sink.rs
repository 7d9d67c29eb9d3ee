//! The receiver of a bench: checks every signature and says what came, when.
//!
//! The check is written anew from the text of Standard Webhooks, apart from the code that signs,
//! so that a mistake there is not made here too.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use actix_web::http::header::HeaderMap;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::notice::{self, Notice, Verdict};
use super::orders::{self, SinkOrder, SinkReady};
use super::ruler::Ruler;
use crate::clock::Clock;

/// How far the signed time may be off.
const TOLERANCE_SECONDS: i64 = 300;
/// No body of the standard format is larger.
const BODY_LIMIT: usize = 256 * 1_024;

pub(super) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(receive())
}

struct Sink {
    key: hmac::Key,
    ruler: Ruler,
    notices: mpsc::UnboundedSender<Notice>,
}

async fn receive() -> anyhow::Result<()> {
    let mut orders = orders::listen();
    let order: SinkOrder = orders::next(&mut orders).await?;
    let key = order.secret.strip_prefix("whsec_").context("not a signing secret")?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(key)?);
    let (sender, notices) = mpsc::unbounded_channel();
    let sink = web::Data::new(Sink { key, ruler: Ruler::new(&Clock::system()), notices: sender });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(sink.clone())
            .app_data(web::PayloadConfig::new(BODY_LIMIT))
            .route("/webhooks", web::post().to(take))
    })
    .workers(1)
    .disable_signals()
    .bind((Ipv4Addr::LOCALHOST, 0))?;
    let webhooks = server.addrs().first().context("no address")?.port();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let serving = server.run();
    orders::say(&SinkReady { webhooks, notices: listener.local_addr()?.port() })?;
    tokio::select! {
        served = serving => Ok(served?),
        told = tell(listener, notices) => told,
        // No more orders: whoever started this process is gone.
        _ = orders.recv() => Ok(()),
    }
}

async fn take(request: HttpRequest, body: web::Bytes, sink: web::Data<Sink>) -> HttpResponse {
    let now = sink.ruler.now();
    let id = text(request.headers(), "webhook-id");
    let (number, job, verdict) = if !signed(&sink.key, request.headers(), &body, now / 1_000_000) {
        (0, Uuid::nil(), Verdict::Forged)
    } else {
        match serde_json::from_slice::<Webhook<'_>>(&body) {
            Ok(webhook) if webhook.event == "job.succeeded" => {
                (webhook.data.metadata.n, webhook.data.id, Verdict::Good)
            }
            _ => (0, Uuid::nil(), Verdict::Unexpected),
        }
    };
    let webhook = notice::webhook(id);
    // Nobody listens any more at the end of the bench only.
    let _ = sink.notices.send(Notice { verdict, number, at: now, job, webhook });
    match verdict {
        Verdict::Good => HttpResponse::Ok().finish(),
        Verdict::Forged | Verdict::Unexpected => HttpResponse::BadRequest().finish(),
    }
}

#[derive(Deserialize)]
struct Webhook<'a> {
    #[serde(rename = "type", borrow)]
    event: Cow<'a, str>,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    id: Uuid,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    n: u32,
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Whether one of the signatures is ours, over `id.timestamp.body`, at about this time.
fn signed(key: &hmac::Key, headers: &HeaderMap, body: &[u8], now_seconds: i64) -> bool {
    let time = text(headers, "webhook-timestamp");
    let current = time
        .parse::<i64>()
        .is_ok_and(|seconds| now_seconds.abs_diff(seconds) <= TOLERANCE_SECONDS.unsigned_abs());
    if !current {
        return false;
    }
    let mut context = hmac::Context::with_key(key);
    for part in [text(headers, "webhook-id").as_bytes(), b".", time.as_bytes(), b".", body] {
        context.update(part);
    }
    let expected = STANDARD.encode(context.sign());
    let mut signatures = text(headers, "webhook-signature").split(' ');
    signatures.any(|signature| signature.strip_prefix("v1,") == Some(expected.as_str()))
}

/// Passes on what was received, as much at once as has come up meanwhile.
async fn tell(
    listener: TcpListener,
    mut notices: mpsc::UnboundedReceiver<Notice>,
) -> anyhow::Result<()> {
    let (mut stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let (mut waiting, mut bytes) = (Vec::new(), Vec::new());
    while notices.recv_many(&mut waiting, 256).await > 0 {
        bytes.clear();
        for notice in waiting.drain(..) {
            notice.encode(&mut bytes);
        }
        stream.write_all(&bytes).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::standard::signed_headers;
    use crate::formats::{AttemptView, Signature, SigningKeys, SigningSecret};
    use actix_web::http::header::{HeaderName, HeaderValue};

    #[test]
    fn the_right_signature_passes_and_a_flipped_byte_does_not() {
        let secret = SigningSecret::from_key(&[7; 32]).unwrap();
        let attempt = AttemptView {
            webhook_id: "an-id",
            number: 1,
            timestamp_seconds: 1_000,
            event_type: "job.succeeded",
            redelivery: None,
        };
        let keys = SigningKeys::from(vec![secret]);
        let mut headers = HeaderMap::new();
        for (name, value) in signed_headers(&attempt, &keys, Signature::Standard, "body", None) {
            let value = HeaderValue::from_str(&value).unwrap();
            headers.insert(HeaderName::from_static(name), value);
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        assert!(signed(&key, &headers, b"body", 1_200));
        assert!(!signed(&key, &headers, b"bodz", 1_200));
        assert!(!signed(&key, &headers, b"body", 1_400));
    }
}
