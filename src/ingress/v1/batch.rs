//! `POST /v1/jobs/batch`: many jobs or none.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};

use super::callback;
use super::entry;
use super::idempotency::{self, Making};
use super::parse::{self, Object, Place, items};
use super::receiver::Unvetted;
use super::submission;
use crate::engine::{NewCallback, NewJob};
use crate::ingress::problem::Problem;
use crate::ingress::state::State;
use crate::ingress::{answer, body};

const MAX_JOBS: usize = 1_000;

/// `POST /v1/jobs/batch`
pub async fn submit(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let caller = entry::plain(&state, &request, "jobs:write").await?;
    let key = idempotency::key(&request)?;
    let body = body::json(&request, payload, state.settings.max_batch_body_bytes).await?;
    let mut unvetted = Unvetted::default();
    let (jobs, callback) = read(&state, &body, &mut unvetted)?;
    state.origins.vet(&state.egress, unvetted).await?;
    let (making, key) = Making::begin(&state, &request, key, &body);
    let batch = state.engine.submit_batch(&caller, jobs, callback, key, &making.request_id).await?;

    let mut json = format!("{{\"groupId\":\"{}\",\"jobs\":", batch.group_id);
    answer::push_jobs(&mut json, &batch.jobs);
    json.push('}');
    let url = format!("{}/v1/groups/{}", state.settings.public_url, batch.group_id);
    let answer = answer::located(answer::text(StatusCode::ACCEPTED, json), url);
    Ok(making.marked(answer, batch.jobs.first()))
}

fn read(
    state: &State,
    body: &[u8],
    unvetted: &mut Unvetted,
) -> Result<(Vec<NewJob>, Option<NewCallback>), Problem> {
    let object = Object::read(parse::body(body)?, &Place::ROOT, &["jobs", "callback"])?;
    let place = Place::ROOT.member("jobs");
    let items = items(object.required("jobs")?, &place, 1, MAX_JOBS)?;
    let mut jobs = Vec::with_capacity(items.len());
    for (index, raw) in items.into_iter().enumerate() {
        let place = place.item(index);
        let job = submission::job(state, raw, &place, unvetted)?;
        if job.group_id.is_some() {
            let text = "is not allowed inside a batch, which is a group of its own";
            return Err(place.member("groupId").invalid(text));
        }
        jobs.push(job);
    }
    Ok((jobs, callback::member(state, &object, unvetted)?))
}
