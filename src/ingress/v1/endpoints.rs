//! Endpoints: register, list, read, change, delete. What else can be done with one is in the
//! files below.

pub mod control;
pub mod replay;
pub mod secrets;
pub mod settings;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::entry;
use super::paging::{self, Binding, PAGE_SIZE, PAGE_TOKEN};
use super::query::Query;
use super::receiver::Unvetted;
use crate::engine::{EndpointView, NewSecret, Registered, SecretKind};
use crate::ingress::problem::Problem;
use crate::ingress::state::State;
use crate::ingress::{answer, body};

/// The name of the path's parameter.
const ID: &str = "endpointId";

/// An endpoint with the key that was made for it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    #[serde(flatten)]
    endpoint: EndpointView,
    #[serde(flatten)]
    key: ShownKey,
}

/// What verifies deliveries. A secret is shown this once.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownKey {
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
}

impl From<NewSecret> for ShownKey {
    fn from(made: NewSecret) -> ShownKey {
        match made.kind {
            SecretKind::Hmac => ShownKey { secret: Some(made.shown), public_key: None },
            SecretKind::Ed25519 => ShownKey { secret: None, public_key: Some(made.shown) },
        }
    }
}

impl From<Registered> for Shown {
    fn from(registered: Registered) -> Shown {
        let key = registered.key.map(ShownKey::from).unwrap_or_default();
        Shown { endpoint: registered.endpoint, key }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointPage {
    endpoints: Vec<EndpointView>,
    next_page_token: Option<String>,
}

/// `POST /v1/endpoints`
pub async fn create(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let caller = entry::plain(&state, &request, "deliveries:write").await?;
    let body = body::json(&request, payload, state.settings.max_body_bytes).await?;
    let mut unvetted = Unvetted::default();
    let new = settings::new(&state, &body, &mut unvetted)?;
    state.origins.vet(&state.egress, unvetted).await?;
    let registered = state.engine.create_endpoint(&caller, new).await?;
    let url = format!("{}/v1/endpoints/{}", state.settings.public_url, registered.endpoint.id);
    let answer = answer::json(StatusCode::CREATED, &Shown::from(registered))?;
    Ok(answer::located(unstored(answer), url))
}

/// `GET /v1/endpoints`
pub async fn list(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let caller = state.admit(&request, "deliveries:read").await?;
    let query = Query::read(&request, &[PAGE_SIZE, PAGE_TOKEN], &[])?;
    let limit = paging::size(&query)?;
    let binding = Binding::new(&caller, "endpoints", []);
    let before = match paging::position(&state.engine, &binding, &query)? {
        Some(position) => {
            let [date, key] = paging::numbers(&position)?;
            (date, key)
        }
        None => (i64::MAX, i64::MAX),
    };
    let (endpoints, next) = state.engine.list_endpoints(&caller, before, limit).await?;
    let next = next.map(|(date, key)| paging::written([date, key]));
    let next_page_token = paging::token(&state.engine, &binding, next)?;
    answer::json(StatusCode::OK, &EndpointPage { endpoints, next_page_token })
}

/// `GET /v1/endpoints/{endpointId}`
pub async fn read(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "deliveries:read", ID).await?;
    let endpoint = state.engine.find_endpoint(&caller, id).await?;
    answer::json(StatusCode::OK, &endpoint)
}

/// `PATCH /v1/endpoints/{endpointId}`
pub async fn change(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "deliveries:write", ID).await?;
    let body = body::merge_patch(&request, payload, state.settings.max_body_bytes).await?;
    let mut unvetted = Unvetted::default();
    let patch = settings::patch(&state, &body, &mut unvetted)?;
    state.origins.vet(&state.egress, unvetted).await?;
    let registered = state.engine.change_endpoint(&caller, id, patch).await?;
    answer::json(StatusCode::OK, &Shown::from(registered)).map(unstored)
}

/// `DELETE /v1/endpoints/{endpointId}`
pub async fn remove(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "deliveries:write", ID).await?;
    state.engine.delete_endpoint(&caller, id).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// An answer that may show a secret, so nothing on its way keeps it.
fn unstored(mut answer: HttpResponse) -> HttpResponse {
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
