//! Who is told: the `callback` of a job or a group, checked in form and by address.

use std::borrow::Cow;

use super::parse::{Object, Place, text};
use super::receiver::{self, Unvetted};
use crate::engine::NewCallback;
use crate::ingress::problem::{Code, Problem};
use crate::ingress::state::State;

const MEMBERS: &[&str] = &["url", "events", "headers", "format", "rateLimit"];
const STANDARD: &str = "standard";

/// Reads the callback of a submission: `callback`, or `callbackUrl` for short.
pub fn either(
    state: &State,
    object: &Object<'_, '_>,
    unvetted: &mut Unvetted,
) -> Result<Option<NewCallback>, Problem> {
    let Some(url) = object.get("callbackUrl") else { return member(state, object, unvetted) };
    let place = object.place.member("callbackUrl");
    if object.get("callback").is_some() {
        return Err(place.invalid("is short for `callback.url`; give one of both"));
    }
    let url = text(url, &place)?;
    from_url(state, &url, &place, unvetted).map(Some)
}

/// Reads the member `callback`.
pub fn member(
    state: &State,
    object: &Object<'_, '_>,
    unvetted: &mut Unvetted,
) -> Result<Option<NewCallback>, Problem> {
    let Some(raw) = object.get("callback") else { return Ok(None) };
    let place = object.place.member("callback");
    let object = Object::read(raw, &place, MEMBERS)?;
    let at = place.member("url");
    let url = text(object.required("url")?, &at)?;
    let events = object
        .get("events")
        .map(|raw| receiver::events(raw, &place.member("events")))
        .transpose()?;
    let headers = match object.get("headers") {
        Some(raw) => receiver::headers(raw, &place.member("headers"), Code::CallbackRefused)?,
        None => Vec::new(),
    };
    let format = object.text("format")?.unwrap_or(Cow::Borrowed(STANDARD));
    if let Err(error) = state.engine.formats().get(&format) {
        return Err(place.member("format").invalid(format!("is not allowed: {error}")));
    }
    let rate_limit = match object.get("rateLimit") {
        Some(raw) => Some(receiver::rate_limit(raw, &place.member("rateLimit"))?),
        None => None,
    };
    let callback = from_url(state, &url, &at, unvetted)?;
    Ok(Some(NewCallback { events, headers, format: format.into_owned(), rate_limit, ..callback }))
}

fn from_url(
    state: &State,
    url: &str,
    place: &Place<'_>,
    unvetted: &mut Unvetted,
) -> Result<NewCallback, Problem> {
    let address = receiver::address(state, url, place, Code::CallbackRefused, unvetted)?;
    Ok(NewCallback {
        url: address.url,
        shown_url: address.shown_url,
        origin: address.origin,
        headers: Vec::new(),
        events: None,
        format: STANDARD.to_owned(),
        rate_limit: None,
    })
}
