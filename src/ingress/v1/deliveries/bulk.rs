//! `POST /v1/deliveries/redeliver`: all deliveries that a filter means are owed again.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::engine::DeliveryFilter;
use crate::ingress::problem::Problem;
use crate::ingress::state::State;
use crate::ingress::v1::entry;
use crate::ingress::v1::paging::{self, Binding, PAGE_TOKEN};
use crate::ingress::v1::parse::{self, Object, Place, choice, items};
use crate::ingress::v1::receiver;
use crate::ingress::{answer, body};

const MEMBERS: &[&str] = &["filter", "dryRun", PAGE_TOKEN];
const FILTERS: &[&str] = &["status", "endpointId", "jobId", "events", "since", "until"];
/// What can be owed again: all that has ended.
const STATUSES: [&str; 4] = ["delivered", "exhausted", "refused", "cancelled"];
const DEFAULT_STATUS: &str = "exhausted";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Redelivered {
    matched: usize,
    redelivered: usize,
    still_owed: usize,
    gone: usize,
    next_page_token: Option<String>,
}

/// See the module.
pub async fn redeliver(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let caller = entry::plain(&state, &request, "deliveries:write").await?;
    let body = body::json(&request, payload, state.settings.max_body_bytes).await?;
    let object = Object::read(parse::body(&body)?, &Place::ROOT, MEMBERS)?;
    let filter = filter(object.required("filter")?, &object.place.member("filter"))?;
    let dry_run = object.flag("dryRun")?.unwrap_or(false);
    let meant = meant(&filter);
    let meant = meant.iter().map(|(name, value)| (*name, value.as_str()));
    let binding = Binding::new(&caller, "redeliver", meant);
    let before = match object.text(PAGE_TOKEN)? {
        Some(token) => {
            let position = paging::opened(&state.engine, &binding, &token);
            let position = position.ok_or_else(|| {
                paging::refused().at_pointer(object.place.member(PAGE_TOKEN).pointer())
            })?;
            paging::numbers::<2>(&position)?.into()
        }
        None => (i64::MAX, i64::MAX),
    };
    let done = state.engine.redeliver_matching(&caller, &filter, before, dry_run).await?;
    let next = done.next.map(|(created_at, key)| paging::written([created_at, key]));
    let next_page_token = paging::token(&state.engine, &binding, next)?;
    let redelivered = Redelivered {
        matched: done.matched,
        redelivered: done.redelivered,
        still_owed: done.still_owed,
        gone: done.gone,
        next_page_token,
    };
    answer::json(StatusCode::OK, &redelivered)
}

fn filter(raw: &RawValue, place: &Place<'_>) -> Result<DeliveryFilter, Problem> {
    let object = Object::read(raw, place, FILTERS)?;
    let mut statuses = Vec::new();
    if let Some(raw) = object.get("status") {
        let place = place.member("status");
        for (index, raw) in items(raw, &place, 1, STATUSES.len())?.into_iter().enumerate() {
            statuses.push(choice(raw, &place.item(index), STATUSES, |word| word)?.to_owned());
        }
    }
    if statuses.is_empty() {
        statuses.push(DEFAULT_STATUS.to_owned());
    }
    let events = match object.get("events") {
        Some(raw) => receiver::events(raw, &place.member("events"))?,
        None => Vec::new(),
    };
    let (since, until) = (object.time("since")?, object.time("until")?);
    if let (Some(since), Some(until)) = (since, until)
        && until <= since
    {
        let text = format!("is {until}, which is not after `since`, {since}");
        return Err(place.member("until").invalid(text));
    }
    Ok(DeliveryFilter {
        job: object.id("jobId")?,
        endpoint: object.id("endpointId")?,
        statuses,
        events,
        since,
        until,
    })
}

/// A filter as pairs, for a token that goes on with the same one.
fn meant(filter: &DeliveryFilter) -> Vec<(&'static str, String)> {
    let mut pairs = Vec::new();
    pairs.extend(filter.statuses.iter().map(|status| ("status", status.clone())));
    pairs.extend(filter.events.iter().map(|pattern| ("events", pattern.clone())));
    pairs.extend(filter.job.map(|id| ("jobId", id.to_string())));
    pairs.extend(filter.endpoint.map(|id| ("endpointId", id.to_string())));
    pairs.extend(filter.since.map(|time| ("since", time.to_string())));
    pairs.extend(filter.until.map(|time| ("until", time.to_string())));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::problem::Code;

    fn read(json: &str) -> Result<DeliveryFilter, Problem> {
        filter(parse::body(json.as_bytes()).unwrap(), &Place::ROOT)
    }

    #[test]
    fn what_gave_up_is_meant_unless_more_is_said() {
        let plain = read("{}").unwrap();
        assert_eq!(meant(&plain), [("status", "exhausted".to_owned())]);
        let id = "0199f0b2-7c7e-7d51-9d6a-3b0f6f1f5a01";
        let json = format!(
            r#"{{"status":["refused","cancelled"],"endpointId":"{id}","jobId":"{id}",
                 "events":["job.*"],"since":"2026-01-30T00:00:00Z","until":null}}"#
        );
        let filter = read(&json).unwrap();
        assert_eq!(filter.statuses, ["refused", "cancelled"]);
        assert_eq!(meant(&filter).len(), 6);
    }

    #[test]
    fn what_is_still_owed_cannot_be_meant() {
        for bad in [
            r#"{"status":[]}"#,
            r#"{"status":["pending"]}"#,
            r#"{"status":"exhausted"}"#,
            r#"{"jobId":"1"}"#,
            r#"{"events":["x"]}"#,
            r#"{"since":"2026-01-30T00:00:00Z","until":"2026-01-29T00:00:00Z"}"#,
        ] {
            assert_eq!(read(bad).err().unwrap().code, Code::InvalidRequest, "{bad}");
        }
        assert_eq!(read(r#"{"state":"x"}"#).err().unwrap().code, Code::UnknownField);
    }
}
