//! Answers that went well.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, LOCATION};
use serde::Serialize;
use serde_json::value::RawValue;

use super::problem::Problem;
use crate::engine::{StoredJob, job_view};

/// JSON text as it is.
pub fn text(status: StatusCode, json: String) -> HttpResponse {
    HttpResponse::build(status).insert_header((CONTENT_TYPE, "application/json")).body(json)
}

/// A value as JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Result<HttpResponse, Problem> {
    let json = serde_json::to_string(value).map_err(Problem::internal)?;
    Ok(text(status, json))
}

/// JSON that somebody else wrote.
pub fn raw(status: StatusCode, json: Box<RawValue>) -> HttpResponse {
    text(status, String::from(Box::<str>::from(json)))
}

/// A job.
pub fn job(status: StatusCode, job: &StoredJob) -> HttpResponse {
    raw(status, job_view(job))
}

/// A list of jobs in brackets, behind what is already written.
pub fn push_jobs(json: &mut String, jobs: &[StoredJob]) {
    json.push('[');
    for (place, job) in jobs.iter().enumerate() {
        if place > 0 {
            json.push(',');
        }
        json.push_str(job_view(job).get());
    }
    json.push(']');
}

/// Adds where the thing is.
pub fn located(mut answer: HttpResponse, url: String) -> HttpResponse {
    if let Ok(value) = url.try_into() {
        answer.headers_mut().insert(LOCATION, value);
    }
    answer
}
