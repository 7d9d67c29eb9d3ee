//! One job: submit, read, stop, retry, delete. Lists are in `list_jobs`.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};

use super::entry;
use super::idempotency::{self, Making};
pub use super::list_jobs::list;
use super::parse::{self, Place};
use super::query::{Query, path_id};
use super::receiver::Unvetted;
use super::submission;
use crate::engine::NewJob;
use crate::ingress::problem::Problem;
use crate::ingress::state::State;
use crate::ingress::{answer, body};

const MAX_WAIT_SECONDS: u64 = 60;

/// `POST /v1/jobs`
pub async fn submit(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let caller = entry::plain(&state, &request, "jobs:write").await?;
    let key = idempotency::key(&request)?;
    let body = body::json(&request, payload, state.settings.max_body_bytes).await?;
    let (job, unvetted) = parse(&state, &body)?;
    state.origins.vet(&state.egress, unvetted).await?;
    let (making, key) = Making::begin(&state, &request, key, &body);
    let job = state.engine.submit(&caller, job, key, &making.request_id).await?;
    Ok(making.accepted(&job))
}

/// A submission as the engine takes it, and what of it has to be vetted first.
pub fn parse(state: &State, body: &[u8]) -> Result<(NewJob, Unvetted), Problem> {
    let mut unvetted = Unvetted::default();
    let job = submission::job(state, parse::body(body)?, &Place::ROOT, &mut unvetted)?;
    Ok((job, unvetted))
}

/// `GET /v1/jobs/{jobId}`
pub async fn read(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let caller = state.admit(&request, "jobs:read").await?;
    let query = Query::read(&request, &["wait"], &[])?;
    let id = path_id(&request, "jobId")?;
    let wait = query.integer("wait", 0, MAX_WAIT_SECONDS)?.unwrap_or(0);
    let job = match wait {
        0 => state.engine.find_job(&caller, id).await?,
        _ => state.engine.await_job(&caller, id, Duration::from_secs(wait)).await?,
    };
    Ok(answer::job(StatusCode::OK, &job))
}

/// `POST /v1/jobs/{jobId}/stop`
pub async fn stop(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "jobs:write", "jobId").await?;
    entry::no_body(&state, &request, payload).await?;
    let job = state.engine.stop(&caller, id).await?;
    Ok(answer::job(StatusCode::ACCEPTED, &job))
}

/// `POST /v1/jobs/{jobId}/retry`
pub async fn retry(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "jobs:write", "jobId").await?;
    let key = idempotency::key(&request)?;
    // It says nothing, but a key belongs to it as well.
    let body = entry::no_body(&state, &request, payload).await?;
    let (making, key) = Making::begin(&state, &request, key, &body);
    let job = state.engine.retry(&caller, id, key, &making.request_id).await?;
    Ok(making.accepted(&job))
}

/// `DELETE /v1/jobs/{jobId}`
pub async fn trash(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "jobs:write", "jobId").await?;
    state.engine.trash(&caller, id).await?;
    Ok(HttpResponse::NoContent().finish())
}
