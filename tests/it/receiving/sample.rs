//! Receives webhooks of ringback: verifies, remembers, answers, and works afterwards.
//!
//! Dependencies: actix-web 4, http 1, serde_json 1, standardwebhooks 1.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError, mpsc};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::Server, web};
use http::header::{HeaderMap, HeaderValue};
use serde_json::Value;
use standardwebhooks::Webhook;

const LARGEST_BODY: usize = 256 * 1024;

struct Receiver {
    webhook: Webhook,
    /// The ids that have come. In earnest a table: see "Store before you answer".
    seen: Mutex<HashSet<String>>,
    to_do: mpsc::Sender<Value>,
}

/// Takes a request with the bytes of its body as they came.
async fn receive(
    request: HttpRequest,
    body: web::Bytes,
    receiver: web::Data<Receiver>,
) -> HttpResponse {
    let mut headers = HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let given = request.headers().get(name).map(|value| value.as_bytes());
        if let Some(Ok(value)) = given.map(HeaderValue::from_bytes) {
            headers.insert(name, value);
        }
    }
    if receiver.webhook.verify(&body, &headers).is_err() {
        return HttpResponse::Unauthorized().finish();
    }
    let (Ok(event), Some(Ok(id))) =
        (serde_json::from_slice(&body), headers.get("webhook-id").map(HeaderValue::to_str))
    else {
        return HttpResponse::BadRequest().finish();
    };
    let mut seen = receiver.seen.lock().unwrap_or_else(PoisonError::into_inner);
    if !seen.contains(id) {
        if receiver.to_do.send(event).is_err() {
            return HttpResponse::ServiceUnavailable().finish();
        }
        seen.insert(id.to_owned());
    }
    HttpResponse::NoContent().finish()
}

/// Takes up what each subject has come to; what is older than what is known is left out.
pub fn work(to_do: mpsc::Receiver<Value>, take: impl Fn(&str, &str, u64)) {
    let mut known: HashMap<String, u64> = HashMap::new();
    for event in to_do {
        let (Some(kind), Some(subject), Some(sequence)) =
            (event["type"].as_str(), event["data"]["id"].as_str(), event["sequence"].as_u64())
        else {
            continue;
        };
        let latest = known.entry(subject.to_owned()).or_default();
        if sequence > *latest {
            *latest = sequence;
            take(kind, subject, sequence);
        }
    }
}

/// Listens on 127.0.0.1.
pub fn listen(secret: &str, port: u16, to_do: mpsc::Sender<Value>) -> std::io::Result<Server> {
    let webhook = Webhook::new(secret).map_err(std::io::Error::other)?;
    let receiver = web::Data::new(Receiver { webhook, seen: Mutex::default(), to_do });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(receiver.clone())
            .app_data(web::PayloadConfig::new(LARGEST_BODY))
            .default_service(web::to(receive))
    });
    Ok(server.bind(("127.0.0.1", port))?.run())
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let secret = std::env::var("WEBHOOK_SECRET").map_err(std::io::Error::other)?;
    let (sender, to_do) = mpsc::channel();
    std::thread::spawn(|| work(to_do, |kind, id, sequence| println!("{kind} {id} {sequence}")));
    listen(&secret, 9000, sender)?.await
}
