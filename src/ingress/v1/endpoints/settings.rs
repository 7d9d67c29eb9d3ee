//! What a request says of an endpoint: all of it at the registration, any part of it later.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::engine::{
    ClientErrors, EndpointPatch, EndpointSettings, NewEndpoint, Ordering, Signature, SigningSecret,
};
use crate::ingress::problem::{Code, Problem};
use crate::ingress::state::State;
use crate::ingress::v1::job_type;
use crate::ingress::v1::parse::{self, Object, Place, choice, flag, items, text, whole};
use crate::ingress::v1::receiver::{self, Unvetted};

const MEMBERS: &[&str] = &[
    "url",
    "description",
    "events",
    "types",
    "headers",
    "rateLimit",
    "maxInFlight",
    "ordering",
    "signature",
    "retrySchedule",
    "clientErrors",
    "enabled",
];
const MAX_DESCRIPTION: usize = 500;
const MAX_TYPES: usize = 32;
const MAX_IN_FLIGHT: i64 = 1_000;
const MAX_RETRIES: usize = 20;
const WEEK_SECONDS: i64 = 7 * 24 * 60 * 60;

/// A registration.
pub fn new(state: &State, body: &[u8], unvetted: &mut Unvetted) -> Result<NewEndpoint, Problem> {
    let object = Object::read(parse::body(body)?, &Place::ROOT, MEMBERS)?;
    let place = object.place.member("url");
    let url = text(object.required("url")?, &place)?;
    let types = |raw: &RawValue, place: &Place<'_>| types(state, raw, place);
    let settings = EndpointSettings {
        description: given(&object, "description", description)?,
        events: given(&object, "events", receiver::events)?,
        types: given(&object, "types", types)?,
        headers: given(&object, "headers", |raw, place| {
            receiver::headers(raw, place, Code::EndpointRefused)
        })?
        .unwrap_or_default(),
        rate_limit: given(&object, "rateLimit", receiver::rate_limit)?,
        max_in_flight: given(&object, "maxInFlight", max_in_flight)?,
        ordering: given(&object, "ordering", ordering)?.unwrap_or_default(),
        signature: given(&object, "signature", signature)?.unwrap_or_default(),
        schedule: given(&object, "retrySchedule", schedule)?,
        client_errors: given(&object, "clientErrors", client_errors)?,
    };
    let enabled = object.flag("enabled")?.unwrap_or(true);
    let address = receiver::address(state, &url, &place, Code::EndpointRefused, unvetted)?;
    Ok(NewEndpoint { address, settings, enabled })
}

/// A change, as a JSON merge patch (RFC 7396).
pub fn patch(
    state: &State,
    body: &[u8],
    unvetted: &mut Unvetted,
) -> Result<EndpointPatch, Problem> {
    let object = Object::read(parse::body(body)?, &Place::ROOT, MEMBERS)?;
    let place = object.place.member("url");
    let url = match object.patched("url") {
        None => None,
        Some(None) => return Err(place.invalid("cannot be removed: an endpoint has an address")),
        Some(Some(raw)) => Some(text(raw, &place)?),
    };
    let types = |raw: &RawValue, place: &Place<'_>| types(state, raw, place);
    let patch = EndpointPatch {
        address: None,
        description: changed(&object, "description", description)?,
        events: changed(&object, "events", receiver::events)?,
        types: changed(&object, "types", types)?,
        headers: changed(&object, "headers", |raw, place| {
            receiver::header_changes(raw, place, Code::EndpointRefused)
        })?,
        rate_limit: changed(&object, "rateLimit", receiver::rate_change)?,
        max_in_flight: changed(&object, "maxInFlight", max_in_flight)?,
        ordering: changed(&object, "ordering", ordering)?.map(Option::unwrap_or_default),
        signature: changed(&object, "signature", signature)?.map(Option::unwrap_or_default),
        schedule: changed(&object, "retrySchedule", schedule)?,
        client_errors: changed(&object, "clientErrors", client_errors)?,
        enabled: changed(&object, "enabled", flag)?.map(|enabled| enabled.unwrap_or(true)),
    };
    let address = url
        .map(|url| receiver::address(state, &url, &place, Code::EndpointRefused, unvetted))
        .transpose()?;
    Ok(EndpointPatch { address, ..patch })
}

/// The member `secret`: one that the receiver knows already.
pub fn secret(object: &Object<'_, '_>) -> Result<Option<SigningSecret>, Problem> {
    let Some(given) = object.text("secret")? else { return Ok(None) };
    let secret = SigningSecret::parse(&given);
    let place = object.place.member("secret");
    secret.map(Some).map_err(|error| place.invalid(format!("is not allowed: {error}")))
}

fn given<T>(
    object: &Object<'_, '_>,
    name: &str,
    read: impl FnOnce(&RawValue, &Place<'_>) -> Result<T, Problem>,
) -> Result<Option<T>, Problem> {
    object.get(name).map(|raw| read(raw, &object.place.member(name))).transpose()
}

fn changed<T>(
    object: &Object<'_, '_>,
    name: &str,
    read: impl FnOnce(&RawValue, &Place<'_>) -> Result<T, Problem>,
) -> Result<Option<Option<T>>, Problem> {
    match object.patched(name) {
        None => Ok(None),
        Some(_) => given(object, name, read).map(Some),
    }
}

fn description(raw: &RawValue, place: &Place<'_>) -> Result<String, Problem> {
    let text = text(raw, place).map(Cow::into_owned)?;
    match text.chars().count() {
        0..=MAX_DESCRIPTION => Ok(text),
        length => {
            let text = format!("has {length} characters; allowed: {MAX_DESCRIPTION} at most");
            Err(place.invalid(text))
        }
    }
}

fn types(state: &State, raw: &RawValue, place: &Place<'_>) -> Result<Vec<String>, Problem> {
    let items = items(raw, place, 1, MAX_TYPES)?;
    let mut types = Vec::with_capacity(items.len());
    for (index, raw) in items.into_iter().enumerate() {
        types.push(job_type::known(state, raw, &place.item(index))?);
    }
    Ok(types)
}

fn max_in_flight(raw: &RawValue, place: &Place<'_>) -> Result<u32, Problem> {
    // Within 1 to 1000.
    whole(raw, place, 1, MAX_IN_FLIGHT).map(|number| number as u32)
}

fn ordering(raw: &RawValue, place: &Place<'_>) -> Result<Ordering, Problem> {
    choice(raw, place, Ordering::ALL, Ordering::as_str)
}

fn signature(raw: &RawValue, place: &Place<'_>) -> Result<Signature, Problem> {
    choice(raw, place, Signature::ALL, Signature::as_str)
}

fn client_errors(raw: &RawValue, place: &Place<'_>) -> Result<ClientErrors, Problem> {
    choice(raw, place, ClientErrors::ALL, ClientErrors::as_str)
}

/// Seconds after the first try; an empty list is a single try.
fn schedule(raw: &RawValue, place: &Place<'_>) -> Result<Vec<u64>, Problem> {
    let items = items(raw, place, 0, MAX_RETRIES)?;
    let mut waits = Vec::with_capacity(items.len());
    for (index, raw) in items.into_iter().enumerate() {
        // Never negative.
        waits.push(whole(raw, &place.item(index), 1, WEEK_SECONDS)? as u64);
    }
    Ok(waits)
}
