//! An endpoint's switch and its health: disable, enable, ping, figures.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use super::ID;
use crate::engine::{Backlog, Caller, DeliveryView};
use crate::ingress::observe::request_id;
use crate::ingress::problem::Problem;
use crate::ingress::state::State;
use crate::ingress::v1::deliveries::Shown;
use crate::ingress::v1::entry;
use crate::ingress::v1::parse::{self, choice};
use crate::ingress::{answer, body};

/// What a ping is waited for; a receiver that needs longer is read of by the delivery.
const PING_WAIT: Duration = Duration::from_secs(25);
const PING_LOOK: Duration = Duration::from_millis(100);

/// `POST /v1/endpoints/{endpointId}/disable`
pub async fn disable(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "deliveries:write", ID).await?;
    entry::no_body(&state, &request, payload).await?;
    let endpoint = state.engine.disable_endpoint(&caller, id).await?;
    answer::json(StatusCode::OK, &endpoint)
}

/// `POST /v1/endpoints/{endpointId}/enable`
pub async fn enable(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "deliveries:write", ID).await?;
    let body = body::json(&request, payload, state.settings.max_body_bytes).await?;
    let backlog = backlog(&body)?;
    let endpoint = state.engine.enable_endpoint(&caller, id, backlog).await?;
    answer::json(StatusCode::OK, &endpoint)
}

fn backlog(body: &[u8]) -> Result<Backlog, Problem> {
    let Some(object) = parse::optional(body, &["backlog"])? else { return Ok(Backlog::default()) };
    let Some(raw) = object.get("backlog") else { return Ok(Backlog::default()) };
    choice(raw, &object.place.member("backlog"), [Backlog::Resume, Backlog::Discard], |backlog| {
        match backlog {
            Backlog::Resume => "resume",
            Backlog::Discard => "discard",
        }
    })
}

/// `GET /v1/endpoints/{endpointId}/stats`
pub async fn stats(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "deliveries:read", ID).await?;
    let stats = state.engine.endpoint_stats(&caller, id).await?;
    answer::json(StatusCode::OK, &stats)
}

/// `POST /v1/endpoints/{endpointId}/ping`
pub async fn ping(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "deliveries:write", ID).await?;
    entry::no_body(&state, &request, payload).await?;
    let delivery = state.engine.ping_endpoint(&caller, id, &request_id(&request)).await?;
    let delivery = awaited(&state, &caller, delivery).await?;
    let status = match delivery.date_completed {
        Some(_) => StatusCode::OK,
        None => StatusCode::ACCEPTED,
    };
    answer::json(status, &Shown::from(delivery))
}

/// A delivery once it has ended, or as it is when the wait is over or the server stops.
async fn awaited(state: &State, caller: &Caller, id: Uuid) -> Result<DeliveryView, Problem> {
    let deadline = Instant::now() + PING_WAIT;
    let mut looks = interval(PING_LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let delivery = state.engine.find_delivery_briefly(caller, id).await?;
        let over = Instant::now() >= deadline || state.streams.are_ended();
        if delivery.date_completed.is_some() || over {
            return Ok(state.engine.find_delivery(caller, id).await?);
        }
    }
}
