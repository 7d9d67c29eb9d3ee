//! `POST /v1/events/trigger`: the documented example of an event, sent to the endpoints that want
//! such events.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use crate::engine::Triggered;
use crate::ingress::observe::request_id;
use crate::ingress::problem::Problem;
use crate::ingress::state::State;
use crate::ingress::v1::entry;
use crate::ingress::v1::job_type;
use crate::ingress::v1::parse::{self, Object, Place, choice};
use crate::ingress::{answer, body};
use crate::lifecycle::EventType;

#[derive(Serialize)]
struct TriggeredList {
    deliveries: Vec<Triggered>,
}

/// See the module.
pub async fn trigger(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let caller = entry::plain(&state, &request, "deliveries:write").await?;
    let body = body::json(&request, payload, state.settings.max_body_bytes).await?;
    let object = Object::read(parse::body(&body)?, &Place::ROOT, &["event", "type"])?;
    let place = object.place.member("event");
    let event = choice(object.required("event")?, &place, EventType::ALL, EventType::as_str)?;
    let place = object.place.member("type");
    let wanted = match object.get("type") {
        Some(raw) => Some(job_type::known(&state, raw, &place)?),
        None => None,
    };
    let (job_type, example) = state
        .engine
        .example(event, wanted.as_deref())
        .map_err(|error| Problem::from(error).at_pointer(place.pointer()))?;
    let deliveries =
        state.engine.trigger(&caller, event, job_type, example, &request_id(&request)).await?;
    answer::json(StatusCode::ACCEPTED, &TriggeredList { deliveries })
}
