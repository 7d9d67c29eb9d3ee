//! What a listener answers to one request, and that it is told.
//!
//! Must not know how a signature is verified or a line is laid out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::ALLOW;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};

use super::forward::{self, Forwarded};
use super::memory::Memory;
use super::show::{Answered, Received};
use super::{Options, Output};
use crate::cli::output::complain;
use crate::cli::output::printable;
use crate::cli::verify::{Keys, Verdict};
use crate::clock::Clock;

/// Everything that requests share.
pub(super) struct Listener {
    options: Options,
    keys: Keys,
    output: web::Data<Output>,
    clock: Clock,
    memory: Mutex<Memory>,
}

impl Listener {
    pub(super) fn new(
        options: Options,
        keys: Keys,
        output: web::Data<Output>,
        clock: Clock,
    ) -> Listener {
        let memory = Mutex::new(Memory::new(options.fail_first));
        Listener { options, keys, output, clock, memory }
    }

    /// The verdict, how often the id has come, and whether to fail: what is decided in the order
    /// in which requests come.
    fn meet(&self, request: &HttpRequest, body: &[u8]) -> (Verdict, u64, bool) {
        let now = self.clock.now().seconds();
        let verdict = self.keys.verify(request.headers(), body, now);
        if matches!(verdict, Verdict::Refused(_)) {
            // Whoever cannot sign must not make others look like duplicates.
            return (verdict, 1, false);
        }
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let id = request.headers().get("webhook-id").and_then(|id| id.to_str().ok());
        let times_seen = id.map_or(1, |id| memory.see(id));
        (verdict, times_seen, memory.fails())
    }

    fn tell(&self, received: &Received) {
        if self.options.json {
            // Texts, numbers and the body, which is JSON already: nothing that cannot be written.
            if let Ok(line) = received.as_json() {
                self.output.line(&line);
            }
        } else {
            self.output.line(&format!("\n{}", received.for_people()));
        }
    }
}

/// Takes a request. What is not a webhook is answered and told on standard error only.
pub(super) async fn take(
    request: HttpRequest,
    body: Result<web::Bytes, actix_web::Error>,
    listener: web::Data<Listener>,
) -> HttpResponse {
    let what = format!("{} {}", request.method(), printable(request.path()));
    if request.method() != actix_web::http::Method::POST {
        complain(&format!("{what}: not a webhook, which is a POST; answered 405"));
        return HttpResponse::MethodNotAllowed().insert_header((ALLOW, "POST")).finish();
    }
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            let answer = error.error_response();
            let status = answer.status().as_u16();
            complain(&format!("{what}: {}; answered {status}", printable(&error.to_string())));
            return answer;
        }
    };
    // Apart from the connection: a client that goes away meanwhile is told of all the same.
    let at_work = actix_web::rt::spawn(receive(request, body, listener));
    at_work.await.unwrap_or_else(|_| HttpResponse::InternalServerError().finish())
}

async fn receive(
    request: HttpRequest,
    body: web::Bytes,
    listener: web::Data<Listener>,
) -> HttpResponse {
    let (time, headers) = (listener.clock.now(), request.headers());
    let (verdict, times_seen, fails) = listener.meet(&request, &body);
    let received = Received::new(time, request.path(), headers, &body, &verdict, times_seen);
    let (answered, answer) = if matches!(verdict, Verdict::Refused(_)) {
        plain(401, None)
    } else if fails {
        plain(500, Some("on purpose: --fail-first"))
    } else if let Some(target) = &listener.options.forward {
        let Forwarded { note, answer } = forward::pass_on(target, headers, body).await;
        (Answered { status: answer.status().as_u16(), note: Some(note) }, answer)
    } else {
        plain(listener.options.status, None)
    };
    listener.tell(&received.answered(&answered));
    tokio::time::sleep(Duration::from_millis(listener.options.delay)).await;
    answer
}

fn plain(status: u16, note: Option<&str>) -> (Answered, HttpResponse) {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let answer = HttpResponseBuilder::new(code).finish();
    (Answered { status: code.as_u16(), note: note.map(str::to_owned) }, answer)
}
