//! Groups: open, read, close, stop.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use uuid::Uuid;

use super::callback;
use super::entry;
use super::parse::{self, Object, Place};
use super::receiver::Unvetted;
use crate::engine::NewCallback;
use crate::ingress::observe::request_id;
use crate::ingress::problem::Problem;
use crate::ingress::state::State;
use crate::ingress::{answer, body};

/// `POST /v1/groups`
pub async fn create(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let caller = entry::plain(&state, &request, "jobs:write").await?;
    let body = body::json(&request, payload, state.settings.max_body_bytes).await?;
    let mut unvetted = Unvetted::default();
    let callback = read_callback(&state, &body, &mut unvetted)?;
    state.origins.vet(&state.egress, unvetted).await?;
    let group = state.engine.create_group(&caller, callback, request_id(&request)).await?;

    #[derive(Deserialize)]
    struct Named {
        id: Uuid,
    }
    let named: Named = serde_json::from_str(group.get()).map_err(Problem::internal)?;
    let url = format!("{}/v1/groups/{}", state.settings.public_url, named.id);
    Ok(answer::located(answer::raw(StatusCode::CREATED, group), url))
}

fn read_callback(
    state: &State,
    body: &[u8],
    unvetted: &mut Unvetted,
) -> Result<Option<NewCallback>, Problem> {
    if body.is_empty() {
        return Ok(None);
    }
    let object = Object::read(parse::body(body)?, &Place::ROOT, &["callback"])?;
    callback::member(state, &object, unvetted)
}

/// `GET /v1/groups/{groupId}`
pub async fn read(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "jobs:read", "groupId").await?;
    let (group, jobs) = state.engine.find_group(&caller, id).await?;
    let members = group.get().strip_suffix('}').unwrap_or(group.get());
    let mut json = format!("{members},\"jobs\":");
    answer::push_jobs(&mut json, &jobs);
    json.push('}');
    Ok(answer::text(StatusCode::OK, json))
}

/// `POST /v1/groups/{groupId}/close`
pub async fn close(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "jobs:write", "groupId").await?;
    entry::no_body(&state, &request, payload).await?;
    let group = state.engine.close_group(&caller, id).await?;
    Ok(answer::raw(StatusCode::OK, group))
}

/// `POST /v1/groups/{groupId}/stop`
pub async fn stop(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "jobs:write", "groupId").await?;
    entry::no_body(&state, &request, payload).await?;
    let group = state.engine.stop_group(&caller, id).await?;
    Ok(answer::raw(StatusCode::ACCEPTED, group))
}
