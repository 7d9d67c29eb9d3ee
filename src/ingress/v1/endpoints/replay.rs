//! `POST /v1/endpoints/{endpointId}/replay`: what happened in a time is sent to an endpoint again,
//! by a job.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;
use uuid::Uuid;

use super::ID;
use crate::engine::ReplayOrder;
use crate::ids::Timestamp;
use crate::ingress::problem::Problem;
use crate::ingress::state::State;
use crate::ingress::v1::entry;
use crate::ingress::v1::idempotency::{self, Making};
use crate::ingress::v1::parse::{self, Object, Place};
use crate::ingress::v1::receiver;
use crate::ingress::{answer, body};

const MEMBERS: &[&str] = &["since", "until", "events", "onlyFailed", "dryRun"];

/// See the module.
pub async fn replay(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "deliveries:write", ID).await?;
    let key = idempotency::key(&request)?;
    let body = body::json(&request, payload, state.settings.max_body_bytes).await?;
    let (order, dry_run) = read(&body, id, state.engine.now())?;
    if dry_run {
        let count = state.engine.count_replay(&caller, &order).await?;
        let counted = json!({ "matched": count.matched, "exact": count.exact });
        return answer::json(StatusCode::OK, &counted);
    }
    let (making, key) = Making::begin(&state, &request, key, &body);
    let job = state.engine.submit_replay(&caller, order, key, &making.request_id).await?;
    Ok(making.accepted(&job))
}

fn read(body: &[u8], endpoint_id: Uuid, now: Timestamp) -> Result<(ReplayOrder, bool), Problem> {
    let object = Object::read(parse::body(body)?, &Place::ROOT, MEMBERS)?;
    object.required("since")?;
    let since = object.time("since")?.unwrap_or(now);
    let until = object.time("until")?.unwrap_or(now);
    if until <= since {
        let text = format!("ends at {until}, which is not after `since`, {since}");
        return Err(object.place.member("until").invalid(text));
    }
    let events = object.get("events");
    let events =
        events.map(|raw| receiver::events(raw, &object.place.member("events"))).transpose()?;
    let only_failed = object.flag("onlyFailed")?.unwrap_or(false);
    let dry_run = object.flag("dryRun")?.unwrap_or(false);
    Ok((ReplayOrder { endpoint_id, since, until, events, only_failed }, dry_run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::problem::Code;

    #[test]
    fn the_time_of_a_replay_ends_after_it_begins() {
        let now = "2026-01-31T12:00:00Z".parse().unwrap();
        let read = |json: &str| read(json.as_bytes(), Uuid::nil(), now);
        let (order, dry_run) = read(r#"{"since":"2026-01-31T00:00:00Z"}"#).unwrap();
        assert_eq!((order.until, order.events, order.only_failed), (now, None, false));
        assert!(!dry_run);
        let whole = r#"{"since":"2026-01-30T00:00:00+01:00","until":"2026-01-31T00:00:00Z",
                        "events":["job.*"],"onlyFailed":true,"dryRun":true}"#;
        let (order, dry_run) = read(whole).unwrap();
        assert_eq!(order.since.to_string(), "2026-01-29T23:00:00.000Z");
        assert!(dry_run && order.only_failed);
        let ahead = r#"{"since":"2026-01-31T00:00:00Z","until":"2026-03-01T00:00:00Z"}"#;
        assert!(read(ahead).unwrap().0.until > now, "what is not there yet is no mistake");
        for bad in [
            "{}",
            r#"{"since":null}"#,
            r#"{"since":"yesterday"}"#,
            r#"{"since":"2026-01-31T13:00:00Z"}"#,
            r#"{"since":"2026-01-30T00:00:00Z","until":"2026-01-30T00:00:00Z"}"#,
            r#"{"since":"2026-01-30T00:00:00Z","events":[]}"#,
            r#"{"since":"2026-01-30T00:00:00Z","dryRun":"yes"}"#,
        ] {
            assert_eq!(read(bad).err().unwrap().code, Code::InvalidRequest, "{bad}");
        }
        let unknown = r#"{"since":"2026-01-30T00:00:00Z","from":1}"#;
        assert_eq!(read(unknown).err().unwrap().code, Code::UnknownField);
    }
}
