//! The receiver of a bench: checks every signature and says what came, when.

use std::borrow::Cow;
use std::net::Ipv4Addr;

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

/// No body of the standard format is larger.
const BODY_LIMIT: usize = 256 * 1_024;

pub(super) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(receive())
}

struct Sink {
    keys: Keys,
    ruler: Ruler,
    notices: mpsc::UnboundedSender<Notice>,
}

async fn receive() -> anyhow::Result<()> {
    let mut orders = orders::listen();
    let order: SinkOrder = orders::next(&mut orders).await?;
    let keys = Keys::parse(&[order.secret])?;
    let (sender, notices) = mpsc::unbounded_channel();
    let sink = web::Data::new(Sink { keys, ruler: Ruler::new(&Clock::system()), notices: sender });
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
    let checked = sink.keys.verify(request.headers(), &body, now / 1_000_000);
    let (number, job, verdict) = if checked != verify::Verdict::Verified("v1") {
        (0, Uuid::nil(), Verdict::Forged)
    } else {
        match serde_json::from_slice::<Webhook<'_>>(&body) {
            Ok(webhook) if webhook.event == "job.succeeded" => {
                (webhook.data.metadata.n, webhook.data.id, Verdict::Good)
            }
            _ => (0, Uuid::nil(), Verdict::Unexpected),
        }
    };
    let id = request.headers().get("webhook-id").and_then(|id| id.to_str().ok());
    let webhook = notice::webhook(id.unwrap_or_default());
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
            keys: Keys::parse(&[secret.text().to_owned()]).unwrap(),
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
