//! Who is told: the `callback` of a job or a group, checked in form and by address.
//!
//! The text of an address is judged at once. Names are resolved as well, but remembered for a
//! moment when they were fine; a name that does not resolve now is no reason to refuse, because
//! every delivery is judged anew.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::parse::{Members, Object, Place, items, text};
use crate::egress::mask::mask_url_credentials;
use crate::egress::{self, Host, SendError, check_header, forbidden_header};
use crate::engine::{NewCallback, RateLimit};
use crate::ingress::causes::barred;
use crate::ingress::problem::{Code, Problem};
use crate::ingress::state::State;
use crate::lifecycle::EventType;

const MEMBERS: &[&str] = &["url", "events", "headers", "format", "rateLimit"];
const FAMILIES: &[&str] = &["*", "job.*", "group.*", "endpoint.*", "file.*"];
const MAX_EVENTS: usize = 32;
const MAX_HEADERS: usize = 20;
const MAX_HEADER_BYTES: usize = 8 * 1024;
const MAX_PER_SECOND: f64 = 10_000.0;

/// Names whose addresses were fine lately.
const VERDICT_AGE: Duration = Duration::from_secs(10);
const MAX_ORIGINS: usize = 10_000;
/// Names of one batch that are resolved at the same time.
const PARALLEL: usize = 16;

/// Addresses in a request that DNS has to be asked about.
#[derive(Default)]
pub struct Unvetted {
    /// URL and where it stands, by origin.
    by_origin: BTreeMap<String, (String, String)>,
}

/// Origins that need no question for a while.
#[derive(Default)]
pub struct VettedOrigins {
    until: Mutex<HashMap<String, Instant>>,
}

impl VettedOrigins {
    fn knows(&self, origin: &str) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.get(origin).is_some_and(|until| *until > Instant::now())
    }

    fn keep(&self, origin: String) {
        let mut known = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if known.len() >= MAX_ORIGINS {
            known.retain(|_, until| *until > now);
        }
        if known.len() < MAX_ORIGINS {
            known.insert(origin, now + VERDICT_AGE);
        }
    }

    /// Asks DNS about what a request named.
    pub async fn vet(&self, egress: &egress::Client, unvetted: Unvetted) -> Result<(), Problem> {
        let verdicts = futures_util::stream::iter(unvetted.by_origin).map(
            |(origin, (url, pointer))| async move {
                match egress.vet(&url).await {
                    Err(SendError::Refused(refusal)) => {
                        Err(barred(Code::CallbackRefused, &refusal).at_pointer(pointer))
                    }
                    // It has no address now; it may have one when there is something to deliver.
                    Ok(_) | Err(_) => {
                        self.keep(origin);
                        Ok(())
                    }
                }
            },
        );
        verdicts.buffer_unordered(PARALLEL).try_collect().await
    }
}

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
    let events =
        object.get("events").map(|raw| events(raw, &place.member("events"))).transpose()?;
    let headers = match object.get("headers") {
        Some(raw) => headers(raw, &place.member("headers"))?,
        None => Vec::new(),
    };
    let format = object.text("format")?.unwrap_or(Cow::Borrowed(STANDARD));
    if let Err(error) = state.engine.formats().get(&format) {
        return Err(place.member("format").invalid(format!("is not allowed: {error}")));
    }
    let rate_limit = match object.get("rateLimit") {
        Some(raw) => Some(rate_limit(raw, &place.member("rateLimit"))?),
        None => None,
    };
    let callback = from_url(state, &url, &at, unvetted)?;
    Ok(Some(NewCallback { events, headers, format: format.into_owned(), rate_limit, ..callback }))
}

const STANDARD: &str = "standard";

fn from_url(
    state: &State,
    url: &str,
    place: &Place<'_>,
    unvetted: &mut Unvetted,
) -> Result<NewCallback, Problem> {
    let target = state
        .egress
        .check_url(url)
        .map_err(|refusal| barred(Code::CallbackRefused, &refusal).at_pointer(place.pointer()))?;
    let origin = target.origin();
    if matches!(target.host, Host::Name(_)) && !state.origins.knows(&origin) {
        let question = (target.url.clone(), place.pointer());
        unvetted.by_origin.entry(origin.clone()).or_insert(question);
    }
    Ok(NewCallback {
        shown_url: mask_url_credentials(&target.url),
        url: target.url,
        origin,
        headers: Vec::new(),
        events: None,
        format: STANDARD.to_owned(),
        rate_limit: None,
    })
}

fn events(raw: &RawValue, place: &Place<'_>) -> Result<Vec<String>, Problem> {
    let items = items(raw, place, 1, MAX_EVENTS)?;
    let mut events = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let place = place.item(index);
        let event = text(item, &place)?;
        if EventType::parse(&event).is_none() && !FAMILIES.contains(&&*event) {
            let known: Vec<_> = EventType::ALL.iter().map(|event| event.as_str()).collect();
            let text =
                format!("is no event; allowed: {}, {}", known.join(", "), FAMILIES.join(", "));
            return Err(place.invalid(text));
        }
        events.push(event.into_owned());
    }
    Ok(events)
}

fn headers(raw: &RawValue, place: &Place<'_>) -> Result<Vec<(String, String)>, Problem> {
    let members = Members::read(raw, place, MAX_HEADERS)?;
    let mut headers = Vec::with_capacity(members.iter().len());
    let mut bytes = 0;
    for (name, raw) in members.iter() {
        let place = place.member(name);
        let value = text(raw, &place)?;
        if headers.iter().any(|(known, _): &(String, String)| known.eq_ignore_ascii_case(name)) {
            return Err(place.invalid("is given twice; names of headers know no case".to_owned()));
        }
        // The body is JSON, whatever a callback would like to call it.
        let refused = match forbidden_header(name) || name.eq_ignore_ascii_case("content-type") {
            true => Err(egress::Refusal::HeaderNotAllowed {
                name: name.chars().take(64).flat_map(char::escape_default).collect(),
            }),
            false => check_header(name, &value),
        };
        refused.map_err(|refusal| {
            barred(Code::CallbackRefused, &refusal).at_pointer(place.pointer())
        })?;
        bytes += name.len() + value.len();
        headers.push((name.to_owned(), value.into_owned()));
    }
    if bytes > MAX_HEADER_BYTES {
        let text = format!("holds {bytes} bytes; allowed: {MAX_HEADER_BYTES} together");
        return Err(place.invalid(text));
    }
    Ok(headers)
}

fn rate_limit(raw: &RawValue, place: &Place<'_>) -> Result<RateLimit, Problem> {
    let object = Object::read(raw, place, &["perSecond", "burst"])?;
    object.required("perSecond")?;
    let per_second = object.number("perSecond", 0.001, MAX_PER_SECOND)?.unwrap_or(MAX_PER_SECOND);
    let burst = object.integer("burst", 1, MAX_PER_SECOND as i64)?;
    // Within 1 to 10000, either way.
    let burst = burst.map_or(per_second.ceil().max(1.0) as u32, |burst| burst as u32);
    Ok(RateLimit { per_second, burst })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::v1::parse::body;

    fn read_headers(json: &str) -> Result<Vec<(String, String)>, Problem> {
        headers(body(json.as_bytes()).unwrap(), &Place::ROOT)
    }

    #[test]
    fn headers_are_bounded_and_vetted() {
        assert_eq!(read_headers(r#"{"X-A":"b"}"#).unwrap(), [("X-A".to_owned(), "b".to_owned())]);
        for (json, code) in [
            (r#"{"Host":"b"}"#, Code::CallbackRefused),
            (r#"{"webhook-id":"b"}"#, Code::CallbackRefused),
            (r#"{"a b":"c"}"#, Code::CallbackRefused),
            (r#"{"a":"b\r\nc: d"}"#, Code::CallbackRefused),
            (r#"{"a":1}"#, Code::InvalidRequest),
            (r#"{"a":"b","a":"c"}"#, Code::InvalidRequest),
            (r#"["a"]"#, Code::InvalidRequest),
        ] {
            assert_eq!(read_headers(json).unwrap_err().code, code, "{json}");
        }
        let many: Vec<String> = (0..21).map(|number| format!("\"x-{number}\":\"\"")).collect();
        assert!(read_headers(&format!("{{{}}}", many[..20].join(","))).is_ok());
        assert!(read_headers(&format!("{{{}}}", many.join(","))).is_err());
        let half = "v".repeat(MAX_HEADER_BYTES / 2 - 1);
        assert!(read_headers(&format!(r#"{{"a":"{half}","b":"{half}"}}"#)).is_ok());
        assert!(read_headers(&format!(r#"{{"a":"{half}","b":"{half}v"}}"#)).is_err());
    }

    #[test]
    fn a_refused_header_does_not_show_its_value() {
        let problem = read_headers(r#"{"Authorization":"hunter2\u0001"}"#).unwrap_err();
        assert!(!serde_json::to_string(&problem).unwrap().contains("hunter2"));
    }

    #[test]
    fn patterns_are_the_documented_ones() {
        let read = |json: &str| events(body(json.as_bytes()).unwrap(), &Place::ROOT);
        assert_eq!(read(r#"["job.failed","*"]"#).unwrap(), ["job.failed", "*"]);
        for bad in ["[]", r#"["job.f*"]"#, r#"["nothing"]"#, "[1]", r#""*""#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rate_has_a_burst() {
        let read = |json: &str| rate_limit(body(json.as_bytes()).unwrap(), &Place::ROOT).ok();
        let rate = |per_second, burst| Some(RateLimit { per_second, burst });
        assert_eq!(read(r#"{"perSecond":0.5}"#), rate(0.5, 1));
        assert_eq!(read(r#"{"perSecond":2.5,"burst":null}"#), rate(2.5, 3));
        assert_eq!(read(r#"{"perSecond":10000,"burst":10000}"#), rate(10_000.0, 10_000));
        for bad in ["{}", r#"{"perSecond":0}"#, r#"{"perSecond":1,"burst":0}"#, r#"{"burst":1}"#] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_verdict_is_remembered_for_a_while() {
        let origins = VettedOrigins::default();
        assert!(!origins.knows("https://a.example"));
        origins.keep("https://a.example".to_owned());
        assert!(origins.knows("https://a.example") && !origins.knows("https://b.example"));
    }
}
