//! `GET /v1/jobs/{jobId}/events`: what happened to a job, in order.

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::query::{Query, path_id};
use crate::engine::EventView;
use crate::ingress::answer;
use crate::ingress::problem::Problem;
use crate::ingress::state::State;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;
/// The largest number that every reader of JSON keeps exactly.
const MAX_AFTER: i64 = 9_007_199_254_740_991;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventPage {
    events: Vec<EventView>,
    next_after: Option<i64>,
}

/// `GET /v1/jobs/{jobId}/events`
pub async fn list(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let caller = state.admit(&request, "jobs:read").await?;
    let query = Query::read(&request, &["after", "limit"], &[])?;
    let id = path_id(&request, "jobId")?;
    let after = query.integer("after", 0, MAX_AFTER)?.unwrap_or(0);
    let limit = query.integer("limit", 1, MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    // One more than wanted tells whether there is a next page.
    let asked = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut events = state.engine.job_events(&caller, id, after, asked).await?;
    let more = events.len() > limit;
    events.truncate(limit);
    let next_after = events.last().filter(|_| more).map(|event| event.sequence);
    answer::json(StatusCode::OK, &EventPage { events, next_after })
}
