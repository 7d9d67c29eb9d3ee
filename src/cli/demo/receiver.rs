//! The demo's own receiver: verifies webhooks with the official library, and serves one file to
//! whoever brings the right header.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::dev::ServerHandle;
use actix_web::http::header::{AUTHORIZATION, CONTENT_TYPE};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use anyhow::Context as _;
use hyper::HeaderMap;
use hyper::header::HeaderValue;
use serde::Deserialize;
use standardwebhooks::Webhook;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::material::Original;

/// What the receiver makes of a request.
pub(super) enum Received {
    /// The signature is right.
    Verified(Notification),
    /// It is not, or the body is not what it should be.
    Refused { webhook_id: String, reason: String },
}

/// The body of a webhook, as far as the demo looks.
#[derive(Debug, Deserialize)]
pub(super) struct Notification {
    /// The event's id.
    pub id: Uuid,
    #[serde(rename = "type")]
    pub event: String,
    pub sequence: u64,
}

/// A running receiver.
pub(super) struct Receiver {
    pub base_url: String,
    /// What it demands of whoever fetches its file.
    pub authorization: String,
    pub received: mpsc::UnboundedReceiver<Received>,
    pub handle: ServerHandle,
}

struct State {
    webhook: Webhook,
    tamper: AtomicBool,
    received: mpsc::UnboundedSender<Received>,
    authorization: String,
    export: Original,
}

/// Starts it; with `tamper` one byte of the first webhook is changed on arrival.
pub(super) fn start(secret: &str, export: &Original, tamper: bool) -> anyhow::Result<Receiver> {
    let (sender, received) = mpsc::unbounded_channel();
    let authorization = format!("Bearer {}", Uuid::new_v4().simple());
    let state = web::Data::new(State {
        webhook: Webhook::new(secret)?,
        tamper: AtomicBool::new(tamper),
        received: sender,
        authorization: authorization.clone(),
        export: export.clone(),
    });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .app_data(web::PayloadConfig::new(256 * 1_024))
            .route("/webhooks", web::post().to(take))
            .route("/exports/{name}", web::get().to(hand_out))
    })
    .workers(1)
    .disable_signals()
    .bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = *server.addrs().first().context("the receiver has no address")?;
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok(Receiver { base_url: format!("http://{address}"), authorization, received, handle })
}

async fn take(request: HttpRequest, body: web::Bytes, state: web::Data<State>) -> HttpResponse {
    let mut body = body.to_vec();
    if state.tamper.swap(false, Ordering::SeqCst) {
        let middle = body.len() / 2;
        if let Some(byte) = body.get_mut(middle) {
            *byte ^= 1;
        }
    }
    let headers = standard_headers(&request);
    let verdict = match state.webhook.verify(&body, &headers) {
        Ok(()) => serde_json::from_slice(&body).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let (received, mut answer) = match verdict {
        Ok(notification) => (Received::Verified(notification), HttpResponse::NoContent()),
        Err(reason) => {
            let id = headers.get("webhook-id").and_then(|id| id.to_str().ok());
            let webhook_id = id.unwrap_or("without id").to_owned();
            (Received::Refused { webhook_id, reason }, HttpResponse::BadRequest())
        }
    };
    // Nobody listens any more once the demo is over.
    let _ = state.received.send(received);
    answer.finish()
}

/// The three headers of Standard Webhooks, in the types of the library that checks them.
fn standard_headers(request: &HttpRequest) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let value = request.headers().get(name).map(|value| value.as_bytes());
        if let Some(Ok(value)) = value.map(HeaderValue::from_bytes) {
            headers.insert(name, value);
        }
    }
    headers
}

async fn hand_out(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if given != Some(state.authorization.as_str()) {
        return HttpResponse::Unauthorized().finish();
    }
    let kind = (CONTENT_TYPE, "application/octet-stream");
    HttpResponse::Ok().insert_header(kind).body(state.export.bytes.clone())
}
