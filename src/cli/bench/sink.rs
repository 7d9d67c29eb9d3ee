//! The receiver of a bench: checks every signature and says what came, when.

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::sync::{PoisonError, RwLock};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use anyhow::Context as _;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::notice::{self, Notice, Verdict};
use super::orders::{self, SinkOrder, SinkReady};
use super::ruler::Ruler;
use crate::cli::verify::{self, Keys};
use crate::clock::Clock;

mod hold;

/// No body of the standard format is larger.
const BODY_LIMIT: usize = 256 * 1_024;

pub(super) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(receive())
}

struct Sink {
    /// By place.
    keys: RwLock<Vec<Keys>>,
    ruler: Ruler,
    notices: mpsc::UnboundedSender<Notice>,
}

async fn receive() -> anyhow::Result<()> {
    let mut orders = orders::listen();
    let order: SinkOrder = orders::next(&mut orders).await?;
    let keys = RwLock::new(read(&order)?);
    let (sender, notices) = mpsc::unbounded_channel();
    let sink = web::Data::new(Sink { keys, ruler: Ruler::new(&Clock::system()), notices: sender });
    let listening = sink.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(listening.clone())
            .app_data(web::PayloadConfig::new(BODY_LIMIT))
            .route("/webhooks", web::post().to(take))
            .route("/webhooks/{place}", web::post().to(take_at))
            .route("/due/{place}", web::post().to(take_due))
    })
    .workers(1)
    .disable_signals()
    .bind((Ipv4Addr::LOCALHOST, 0))?;
    let webhooks = server.addrs().first().context("no address")?.port();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let serving = server.run();
    let (notices_port, hanging) = (listener.local_addr()?.port(), silent.local_addr()?.port());
    orders::say(&SinkReady { webhooks, hanging, notices: notices_port })?;
    tokio::select! {
        served = serving => Ok(served?),
        told = tell(listener, notices) => told,
        held = hold::hold(silent) => held,
        obeyed = obey(orders, &sink) => obeyed,
    }
}

/// Takes new secrets until there are no more orders: whoever started this process is gone.
async fn obey(mut orders: mpsc::UnboundedReceiver<String>, sink: &Sink) -> anyhow::Result<()> {
    while let Ok(order) = orders::next::<SinkOrder>(&mut orders).await {
        *sink.keys.write().unwrap_or_else(PoisonError::into_inner) = read(&order)?;
    }
    Ok(())
}

fn read(order: &SinkOrder) -> anyhow::Result<Vec<Keys>> {
    order.secrets.iter().map(|secret| Keys::parse(std::slice::from_ref(secret))).collect()
}

impl Sink {
    fn is_signed(&self, place: u32, request: &HttpRequest, body: &[u8], now: i64) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let keys = usize::try_from(place).ok().and_then(|place| keys.get(place));
        keys.is_some_and(|keys| {
            let verdict = keys.verify(request.headers(), body, now / 1_000_000);
            verdict == verify::Verdict::Verified("v1")
        })
    }

    fn tell(&self, request: &HttpRequest, notice: Notice) -> HttpResponse {
        let id = request.headers().get("webhook-id").and_then(|id| id.to_str().ok());
        let webhook = notice::webhook(id.unwrap_or_default());
        // Nobody listens any more at the end of the bench only.
        let _ = self.notices.send(Notice { webhook, ..notice });
        match notice.verdict {
            Verdict::Good | Verdict::Signed => HttpResponse::Ok().finish(),
            Verdict::Forged | Verdict::Unexpected => HttpResponse::BadRequest().finish(),
        }
    }
}

/// What goes to the callback of a job.
async fn take(request: HttpRequest, body: web::Bytes, sink: web::Data<Sink>) -> HttpResponse {
    take_for(0, &request, &body, &sink)
}

/// What goes to an endpoint that is told of jobs.
async fn take_at(
    request: HttpRequest,
    place: web::Path<u32>,
    body: web::Bytes,
    sink: web::Data<Sink>,
) -> HttpResponse {
    take_for(*place, &request, &body, &sink)
}

fn take_for(place: u32, request: &HttpRequest, body: &[u8], sink: &Sink) -> HttpResponse {
    let at = sink.ruler.now();
    let (number, job, verdict) = if !sink.is_signed(place, request, body, at) {
        (0, Uuid::nil(), Verdict::Forged)
    } else {
        match serde_json::from_slice::<Webhook<'_>>(body) {
            Ok(webhook) if webhook.event == "job.succeeded" => {
                (webhook.data.metadata.n, webhook.data.id, Verdict::Good)
            }
            _ => (0, Uuid::nil(), Verdict::Unexpected),
        }
    };
    sink.tell(request, Notice { verdict, place, number, at, job, webhook: 0 })
}

/// What goes to an endpoint and was due before: which job it is about is nothing to anybody.
async fn take_due(
    request: HttpRequest,
    place: web::Path<u32>,
    body: web::Bytes,
    sink: web::Data<Sink>,
) -> HttpResponse {
    let (at, place) = (sink.ruler.now(), *place);
    let signed = sink.is_signed(place, &request, &body, at);
    let verdict = if signed { Verdict::Signed } else { Verdict::Forged };
    sink.tell(&request, Notice { verdict, place, number: 0, at, job: Uuid::nil(), webhook: 0 })
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
    use actix_web::test::TestRequest;

    #[tokio::test]
    async fn what_is_signed_with_the_secret_is_good_and_everything_else_is_forged() {
        let secret = SigningSecret::from_key(&[7; 32]).unwrap();
        let (sender, mut notices) = mpsc::unbounded_channel();
        let sink = web::Data::new(Sink {
            keys: RwLock::new(vec![Keys::parse(&[secret.text().to_owned()]).unwrap()]),
            ruler: Ruler::new(&Clock::system()),
            notices: sender,
        });
        let body = format!(
            r#"{{"type": "job.succeeded", "data": {{"id": "{}", "metadata": {{"n": 5}}}}}}"#,
            Uuid::nil()
        );
        let attempt = AttemptView {
            webhook_id: "an-id",
            number: 1,
            timestamp_seconds: sink.ruler.now() / 1_000_000,
            event_type: "job.succeeded",
            redelivery: None,
        };
        let keys = SigningKeys::from(vec![secret]);
        let headers = signed_headers(&attempt, &keys, Signature::Standard, &body, None);
        for (left_out, sent, wanted) in [
            ("", body.clone(), Verdict::Good),
            ("", body.replace('5', "6"), Verdict::Forged),
            ("webhook-signature", body.clone(), Verdict::Forged),
            ("webhook-timestamp", body, Verdict::Forged),
        ] {
            let mut request = TestRequest::post();
            for (name, value) in headers.iter().filter(|(name, _)| *name != left_out) {
                request = request.insert_header((*name, &**value));
            }
            take(request.to_http_request(), sent.into(), sink.clone()).await;
            assert_eq!(notices.try_recv().unwrap().verdict, wanted, "{left_out}");
        }
    }
}
