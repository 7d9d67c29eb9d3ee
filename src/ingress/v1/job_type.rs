//! Names of job types in requests: those that jobs may be submitted of, and those that are only
//! spoken of.

use serde_json::value::RawValue;

use super::parse::{Place, quoted, text};
use crate::engine::{JobType, MadeBy};
use crate::ingress::problem::{Code, Problem};
use crate::ingress::state::State;

/// The name of a type that this server knows.
pub fn known(state: &State, raw: &RawValue, place: &Place<'_>) -> Result<String, Problem> {
    let name = text(raw, place)?;
    find(state, &name, place, |_| true).map(|found| found.name().to_owned())
}

/// A type that a job may be submitted of.
pub fn submitted<'a>(
    state: &'a State,
    raw: &RawValue,
    place: &Place<'_>,
) -> Result<&'a dyn JobType, Problem> {
    let name = text(raw, place)?;
    let found = find(state, &name, place, |job_type| other_door(job_type).is_none())?;
    match other_door(found) {
        Some(door) => {
            let name = found.name();
            Err(place.invalid(format!("is {name}, which is not submitted as a job; use {door}")))
        }
        None => Ok(found),
    }
}

/// Where jobs of a type are asked for when they are not submitted.
fn other_door(job_type: &dyn JobType) -> Option<&'static str> {
    match job_type.made_by() {
        MadeBy::Submission => None,
        MadeBy::Replay => Some("POST /v1/endpoints/{endpointId}/replay"),
    }
}

/// The type of that name; the refusal lists those that fit.
fn find<'a>(
    state: &'a State,
    name: &str,
    place: &Place<'_>,
    fits: impl Fn(&dyn JobType) -> bool,
) -> Result<&'a dyn JobType, Problem> {
    let catalog = state.engine.catalog();
    catalog.get(name).map(|job_type| &**job_type).map_err(|_| {
        let known = catalog.iter().filter(|job_type| fits(*job_type));
        let names: Vec<&str> = known.map(JobType::name).collect();
        let allowed = names.join(", ");
        let text = format!("is {}, which is no job type; allowed: {allowed}", quoted(name));
        place.problem(Code::UnknownJobType, text)
    })
}
