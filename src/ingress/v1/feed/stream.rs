//! `GET /v1/events/stream`: the feed as server-sent events, for as long as both sides want it.
//!
//! The reader pulls: nothing is looked for before what was found is sent, so a slow one costs the
//! events of one look and no more. Whoever reads is judged anew all the time, because a key may be
//! revoked long after a stream began. Bells only say that looking is worth while.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream::unfold;
use tokio::time::{Instant, sleep_until};

use super::page::{Event, Page, Room};
use super::{AFTER, TYPES, after, filter, position};
use crate::engine::FeedFilter;
use crate::ids::Key;
use crate::ingress::problem::{Code, Problem};
use crate::ingress::state::State;
use crate::ingress::streams::Seat;
use crate::ingress::v1::query::{Query, invalid};

const SCOPE: &str = "jobs:read";
const LAST_EVENT_ID: &str = "Last-Event-ID";
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What is held for a reader.
const HELD: Room = Room { events: 100, bytes: 1024 * 1024 };
/// How often a reader hears that the stream is alive.
const BEAT: Duration = Duration::from_secs(15);
/// How often a reader's key is judged; a revoked one reads for two such times at most.
const JUDGEMENT: Duration = Duration::from_secs(2);
/// How often is looked without a bell: another node may have written, or the database is back.
const LOOK: Duration = Duration::from_millis(500);
/// How soon is looked again with one: on a busy server bells never stop.
const REST: Duration = Duration::from_millis(50);

/// `GET /v1/events/stream`
pub async fn stream(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let caller = state.admit(&request, SCOPE).await?;
    let query = Query::read(&request, &[AFTER], &[TYPES])?;
    let filter = filter(&query)?;
    let (after, named) = match last_event_id(&request)? {
        Some(position) => (position, LAST_EVENT_ID),
        None => (after(&state, &caller, &query).await?, AFTER),
    };
    let application = caller.application;
    let seat = state.streams.open(application)?;
    // What is wrong with the request is said by status, so the first look comes before the answer.
    let first = Page::read(&state.engine, application, (after, named), &filter, HELD).await?;
    let mut follower = Follower {
        key: key_of(request.headers()),
        application,
        filter,
        next: first.next,
        more: first.more,
        held: VecDeque::new(),
        looked_at: Instant::now(),
        beat_at: Instant::now() + BEAT,
        judge_at: Instant::now() + JUDGEMENT,
        trusted: true,
        over: false,
        _seat: seat,
        state,
    };
    // The position makes a reader that loses the stream at once come back to the same place.
    follower.held.push_back(Bytes::from(format!("retry: 1000\nid: {after}\n\n")));
    follower.hold(first);
    let chunks = unfold(follower, |mut follower| async move {
        follower.chunk().await.map(|chunk| (Ok::<_, Infallible>(chunk), follower))
    });
    Ok(HttpResponse::build(StatusCode::OK)
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((BUFFERING, HeaderValue::from_static("no")))
        .streaming(chunks))
}

/// Where a reader was when it lost an earlier stream.
fn last_event_id(request: &HttpRequest) -> Result<Option<i64>, Problem> {
    let Some(value) = request.headers().get(LAST_EVENT_ID) else { return Ok(None) };
    let position = value.to_str().ok().and_then(position);
    position.map(Some).ok_or_else(|| {
        invalid(LAST_EVENT_ID, "must be the id of an event of this stream, in digits")
    })
}

/// Only what tells who reads.
fn key_of(headers: &HeaderMap) -> HeaderMap {
    let mut key = HeaderMap::new();
    for value in headers.get_all(AUTHORIZATION) {
        key.append(AUTHORIZATION, value.clone());
    }
    key
}

/// One reader.
struct Follower {
    state: Data<State>,
    _seat: Seat,
    key: HeaderMap,
    application: Key,
    filter: FeedFilter,
    /// Where the next look starts.
    next: i64,
    /// Whether it may find something at once.
    more: bool,
    /// Found and not sent yet.
    held: VecDeque<Bytes>,
    looked_at: Instant,
    beat_at: Instant,
    judge_at: Instant,
    /// Whether the last judgement could be made, and was good.
    trusted: bool,
    /// Nothing comes any more.
    over: bool,
}

impl Follower {
    /// What is sent next; nothing at the end.
    async fn chunk(&mut self) -> Option<Bytes> {
        let streams = Arc::clone(&self.state.streams);
        tokio::select! {
            biased;
            () = streams.ended() => None,
            chunk = self.next_chunk() => chunk,
        }
    }

    async fn next_chunk(&mut self) -> Option<Bytes> {
        let engine = Arc::clone(&self.state.engine);
        while !self.over {
            if Instant::now() >= self.judge_at
                && let Some(last_words) = self.judge().await
            {
                return Some(last_words);
            }
            if Instant::now() >= self.beat_at {
                self.beat_at = Instant::now() + BEAT;
                return Some(Bytes::from_static(b":\n\n"));
            }
            if self.trusted
                && let Some(chunk) = self.held.pop_front()
            {
                return Some(chunk);
            }
            let rung = engine.bells.feed.notified();
            tokio::pin!(rung);
            // Interest is registered before looking, so what comes in between is not missed.
            rung.as_mut().enable();
            if self.trusted && !self.look().await {
                return None;
            }
            if self.trusted && (self.more || !self.held.is_empty()) {
                continue;
            }
            // Without trust nothing was looked for, so there is nothing to look for soon.
            let looks = if self.trusted { self.looked_at + LOOK } else { self.judge_at };
            let next = looks.min(self.judge_at).min(self.beat_at);
            tokio::select! {
                () = rung => sleep_until(next.min(self.looked_at + REST)).await,
                () = sleep_until(next) => {}
            }
        }
        None
    }

    /// Looks for more; whether the stream can go on.
    async fn look(&mut self) -> bool {
        self.looked_at = Instant::now();
        let (engine, application) = (&self.state.engine, self.application);
        match Page::read(engine, application, (self.next, AFTER), &self.filter, HELD).await {
            Ok(page) => self.hold(page),
            // A reader that comes back would be refused, so it stays until the database is back.
            Err(problem) if problem.code == Code::Unavailable => self.more = false,
            Err(problem) => {
                tracing::error!(cause = %problem, "a stream of events has ended");
                return false;
            }
        }
        true
    }

    fn hold(&mut self, page: Page) {
        self.next = page.next;
        self.more = page.more;
        self.held.extend(page.events.into_iter().map(written));
    }

    /// Judges the reader; what it is told when nothing else comes any more.
    async fn judge(&mut self) -> Option<Bytes> {
        match self.state.admit_again(&self.key, SCOPE).await {
            Ok(caller) => {
                self.over = caller.application != self.application;
                self.trusted = true;
                self.judge_at = Instant::now() + JUDGEMENT;
                None
            }
            // Nobody can tell now, so nothing is shown until somebody can.
            Err(problem) if problem.code == Code::Unavailable => {
                self.trusted = false;
                self.judge_at = Instant::now() + LOOK;
                None
            }
            Err(problem) => {
                if problem.code.status().is_server_error() {
                    tracing::error!(cause = %problem, "a reader of a stream cannot be judged");
                }
                self.over = true;
                Some(last_words(&problem))
            }
        }
    }
}

/// Why a stream ends, on the wire.
fn last_words(problem: &Problem) -> Bytes {
    let text = format!("{}: {}", problem.code.as_str(), problem.shown_detail());
    Bytes::from(format!(": {}\n\n", one_line(&text)))
}

/// An event on the wire.
fn written(event: Event) -> Bytes {
    // In JSON, line breaks are only ever between values.
    let json = one_line(&event.json);
    Bytes::from(format!("id: {}\nevent: {}\ndata: {json}\n\n", event.position, event.event_type))
}

/// A line break ends a field of the stream.
fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_one_line_of_what_callers_may_read() {
        let said = |problem: Problem| String::from_utf8(last_words(&problem).to_vec()).unwrap();
        let revoked = Problem::new(Code::Unauthorized, "a\r\nid: 9\ndata: b");
        assert_eq!(said(revoked), ": unauthorized: a  id: 9 data: b\n\n");
        let failed = said(Problem::internal("SELECT secret\nFROM keys"));
        assert!(failed.starts_with(": internal: ") && !failed.contains("SELECT"), "{failed}");
        assert_eq!(failed.lines().count(), 2);
    }

    #[test]
    fn an_event_is_one_block_however_its_json_is_laid_out() {
        let event = Event {
            position: 7,
            event_type: "job.created".to_owned(),
            json: "{\"data\":{\r\n\"a\":1\r}}".to_owned(),
        };
        let text = String::from_utf8(written(event).to_vec()).unwrap();
        assert_eq!(text, "id: 7\nevent: job.created\ndata: {\"data\":{  \"a\":1 }}\n\n");
    }
}
