//! Deliveries: list, read with attempts, send again, pass over.

pub mod bulk;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use uuid::Uuid;

use super::entry;
use super::paging::{self, Binding, PAGE_SIZE, PAGE_TOKEN};
use super::query::{Query, not_among};
use crate::engine::{Caller, DELIVERY_STATUSES, DeliveryFilter, DeliveryView, EngineError};
use crate::ingress::answer;
use crate::ingress::problem::Problem;
use crate::ingress::state::State;

/// A delivery with the id of its event, which is also its `webhook-id`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    #[serde(flatten)]
    delivery: DeliveryView,
    event_id: Uuid,
}

impl From<DeliveryView> for Shown {
    fn from(delivery: DeliveryView) -> Shown {
        Shown { event_id: delivery.webhook_id, delivery }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeliveryPage {
    deliveries: Vec<Shown>,
    next_page_token: Option<String>,
}

/// `GET /v1/deliveries`
pub async fn list(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let caller = state.admit(&request, "deliveries:read").await?;
    let query =
        Query::read(&request, &["endpointId", "jobId", PAGE_SIZE, PAGE_TOKEN], &["status"])?;
    let (job, endpoint) = (query.id("jobId")?, query.id("endpointId")?);
    let mut statuses = Vec::new();
    for word in query.all("status") {
        if !DELIVERY_STATUSES.contains(&word) {
            return Err(not_among("status", word, &DELIVERY_STATUSES));
        }
        statuses.push(word.to_owned());
    }
    let limit = paging::size(&query)?;
    let filters = paging::filters(&query, &["endpointId", "jobId", "status"]);
    let binding = Binding::new(&caller, "deliveries", filters);
    let before = match paging::position(&state.engine, &binding, &query)? {
        Some(position) => paging::numbers::<2>(&position)?.into(),
        None => (i64::MAX, i64::MAX),
    };
    let filter = DeliveryFilter { job, endpoint, statuses, ..DeliveryFilter::default() };
    let found = state.engine.list_deliveries(&caller, &filter, before, limit).await;
    let (deliveries, next) = match found {
        // A filter that matches nothing.
        Err(EngineError::NotFound { .. }) => (Vec::new(), None),
        other => other?,
    };
    let next = next.map(|(created_at, key)| paging::written([created_at, key]));
    let next_page_token = paging::token(&state.engine, &binding, next)?;
    let deliveries = deliveries.into_iter().map(Shown::from).collect();
    answer::json(StatusCode::OK, &DeliveryPage { deliveries, next_page_token })
}

/// `GET /v1/deliveries/{deliveryId}`
pub async fn read(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "deliveries:read", "deliveryId").await?;
    let delivery = state.engine.find_delivery(&caller, id).await?;
    answer::json(StatusCode::OK, &Shown::from(delivery))
}

/// `POST /v1/deliveries/{deliveryId}/redeliver`
pub async fn redeliver(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "deliveries:write", "deliveryId").await?;
    entry::no_body(&state, &request, payload).await?;
    state.engine.redeliver(&caller, id).await?;
    answer::json(StatusCode::ACCEPTED, &brief(&state, &caller, id).await?)
}

/// `POST /v1/deliveries/{deliveryId}/skip`
pub async fn skip(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "deliveries:write", "deliveryId").await?;
    entry::no_body(&state, &request, payload).await?;
    state.engine.skip_delivery(&caller, id).await?;
    answer::json(StatusCode::OK, &brief(&state, &caller, id).await?)
}

/// A delivery as lists show it.
async fn brief(state: &State, caller: &Caller, id: Uuid) -> Result<Shown, Problem> {
    Ok(Shown::from(state.engine.find_delivery_briefly(caller, id).await?))
}
