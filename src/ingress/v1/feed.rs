//! All events of an application in the order of their commits, for those who pull; and examples of
//! events for those who test.

mod page;
mod stream;
mod trigger;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::query::{Query, invalid, unexpected};
use crate::engine::{Caller, FeedFilter};
use crate::ingress::answer;
use crate::ingress::problem::Problem;
use crate::ingress::state::State;
use crate::lifecycle::{MAX_PATTERNS, is_pattern, known_patterns};
use page::{Page, Room};
pub use stream::stream;
pub use trigger::trigger;

const AFTER: &str = "after";
const TYPES: &str = "types";
const LATEST: &str = "latest";
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;
/// What a page may hold of text. It comes back short then, and `next` goes on behind it.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// `GET /v1/events`
pub async fn list(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let caller = state.admit(&request, "jobs:read").await?;
    let query = Query::read(&request, &[AFTER, "limit"], &[TYPES])?;
    let filter = filter(&query)?;
    let events = query.integer("limit", 1, MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let after = after(&state, &caller, &query).await?;
    let room = Room { events, bytes: MAX_BYTES };
    let page = Page::read(&state.engine, caller.application, (after, AFTER), &filter, room).await?;
    let mut json = "{\"events\":[".to_owned();
    for (place, event) in page.events.iter().enumerate() {
        if place > 0 {
            json.push(',');
        }
        json.push_str(&event.json);
    }
    json.push_str(&format!("],\"next\":\"{}\"}}", page.next));
    Ok(answer::text(StatusCode::OK, json))
}

/// Where a reader goes on: behind a place, from now on, or from the oldest that is kept.
async fn after(state: &State, caller: &Caller, query: &Query) -> Result<i64, Problem> {
    match query.one(AFTER) {
        None => Ok(0),
        Some(LATEST) => Ok(state.engine.feed_head(caller.application).await?),
        Some(text) => position(text).ok_or_else(|| {
            unexpected(AFTER, text, &format!("`next` of an earlier page, or {LATEST}"))
        }),
    }
}

/// A place in the feed as we write it.
fn position(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// The events that a reader wants, with commas or by repetition.
fn filter(query: &Query) -> Result<FeedFilter, Problem> {
    let mut types = Vec::new();
    for pattern in query.all(TYPES).flat_map(|value| value.split(',')) {
        if !is_pattern(pattern) {
            let expected = format!("events, with commas between them: {}", known_patterns());
            return Err(unexpected(TYPES, pattern, &expected));
        }
        types.push(pattern.to_owned());
    }
    if types.len() > MAX_PATTERNS {
        let text = format!("has {} patterns; allowed: {MAX_PATTERNS} at most", types.len());
        return Err(invalid(TYPES, text));
    }
    Ok(FeedFilter { types })
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn types_are_split_and_checked() {
        let read = |text: &str| {
            let request = TestRequest::with_uri(&format!("/v1/events?{text}")).to_http_request();
            filter(&Query::read(&request, &[], &[TYPES]).unwrap()).map(|filter| filter.types).ok()
        };
        assert_eq!(read("").unwrap(), Vec::<String>::new());
        let both = read("types=job.*,group.completed&types=file.created").unwrap();
        assert_eq!(both, ["job.*", "group.completed", "file.created"]);
        let many = vec!["*"; 33].join(",");
        for bad in ["types=", "types=job.*,", "types=job.f*", "types=x", &format!("types={many}")] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_position_is_digits() {
        assert_eq!(position("0"), Some(0));
        assert_eq!(position("9223372036854775807"), Some(i64::MAX));
        for bad in ["", "-1", "+1", "1.0", "latest", " 1", "9223372036854775808"] {
            assert_eq!(position(bad), None, "{bad}");
        }
    }
}
