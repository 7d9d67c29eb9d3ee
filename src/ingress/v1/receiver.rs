//! What callbacks and endpoints have in common: an address, patterns of events, headers, a rate.
//!
//! The text of an address is judged at once. Names are resolved as well; one that does not resolve
//! now, or not in time, is no reason to refuse, because every delivery is judged anew. What nothing
//! spoke against is not asked about again for a moment.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use super::parse::{Members, Object, Place, items, quoted, text};
use crate::egress::mask::{MASK, holds_mask, mask_url_credentials};
use crate::egress::{self, Host, SendError, check_header, forbidden_header};
use crate::engine::{
    Address, HeaderChanges, MOST_HEADER_BYTES, MOST_HEADERS, RateChange, RateLimit,
};
use crate::ingress::causes::barred;
use crate::ingress::problem::{Code, Problem};
use crate::ingress::state::State;
use crate::lifecycle::{MAX_PATTERNS, is_pattern, known_patterns};

/// What the body is, whatever a receiver would like to call it.
const BODY_HEADERS: &[&str] = &["content-type", "content-encoding"];
const MAX_PER_SECOND: f64 = 10_000.0;

/// How long an origin is left alone that nothing spoke against.
const VERDICT_AGE: Duration = Duration::from_secs(10);
const MAX_ORIGINS: usize = 10_000;
/// Longer than this no request waits for name servers, however many names it has.
const LOOKUP_TIME: Duration = Duration::from_secs(5);
/// Names of one batch that are resolved at the same time.
const PARALLEL: usize = 16;

/// Addresses in a request that DNS has to be asked about, by origin.
#[derive(Default)]
pub struct Unvetted(BTreeMap<String, Question>);

/// One of them.
struct Question {
    url: String,
    /// Where it stands in the body.
    pointer: String,
    /// What the request is refused with.
    code: Code,
}

/// Origins that nothing spoke against lately: their addresses were fine, or there were none.
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
        self.vet_until(Instant::now() + LOOKUP_TIME, egress, unvetted).await
    }

    async fn vet_until(
        &self,
        deadline: Instant,
        egress: &egress::Client,
        unvetted: Unvetted,
    ) -> Result<(), Problem> {
        let verdicts =
            futures_util::stream::iter(unvetted.0).map(|(origin, question)| async move {
                match asked(egress, &question.url, deadline).await {
                    Some(Err(SendError::Refused(refusal))) => {
                        Err(barred(question.code, &refusal).at_pointer(question.pointer))
                    }
                    // Without an address now it may have one when there is something to deliver.
                    Some(Ok(_) | Err(_)) | None => {
                        self.keep(origin);
                        Ok(())
                    }
                }
            });
        verdicts.buffer_unordered(PARALLEL).try_collect().await
    }
}

/// What is known of an address by a deadline, if anything is. Past it no lookup is begun.
async fn asked(
    egress: &egress::Client,
    url: &str,
    deadline: Instant,
) -> Option<Result<egress::Vetted, SendError>> {
    if Instant::now() >= deadline {
        return None;
    }
    timeout_at(deadline, egress.vet(url)).await.ok()
}

const MASKED: &str = "holds ***, which stands for what is not shown; give the value itself, or leave \
                      this out of a change that keeps it";

/// An address, by its text; `code` is for refusing it.
pub fn address(
    state: &State,
    url: &str,
    place: &Place<'_>,
    code: Code,
    unvetted: &mut Unvetted,
) -> Result<Address, Problem> {
    if holds_mask(url) {
        return Err(place.invalid(MASKED));
    }
    let target = state
        .egress
        .check_url(url)
        .map_err(|refusal| barred(code, &refusal).at_pointer(place.pointer()))?;
    let origin = target.origin();
    if matches!(target.host, Host::Name(_)) && !state.origins.knows(&origin) {
        let question = Question { url: target.url.clone(), pointer: place.pointer(), code };
        unvetted.0.entry(origin.clone()).or_insert(question);
    }
    Ok(Address { shown_url: mask_url_credentials(&target.url), url: target.url, origin })
}

/// A list of patterns.
pub fn events(raw: &RawValue, place: &Place<'_>) -> Result<Vec<String>, Problem> {
    let items = items(raw, place, 1, MAX_PATTERNS)?;
    let mut events = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let place = place.item(index);
        let event = text(item, &place)?;
        if !is_pattern(&event) {
            let (event, allowed) = (quoted(&event), known_patterns());
            let text = format!("is {event}, which is no event; allowed: {allowed}");
            return Err(place.invalid(text));
        }
        events.push(event.into_owned());
    }
    Ok(events)
}

/// Headers that are sent along.
pub fn headers(
    raw: &RawValue,
    place: &Place<'_>,
    code: Code,
) -> Result<Vec<(String, String)>, Problem> {
    let mut headers = Vec::new();
    for (name, value) in header_changes(raw, place, code)? {
        let Some(value) = value else {
            return Err(place.member(&name).invalid("is null; expected a string"));
        };
        headers.push((name, value));
    }
    Ok(headers)
}

/// What becomes of headers, by name; those without a value go.
pub fn header_changes(
    raw: &RawValue,
    place: &Place<'_>,
    code: Code,
) -> Result<HeaderChanges, Problem> {
    let members = Members::read(raw, place, MOST_HEADERS)?;
    let mut headers = HeaderChanges::with_capacity(members.iter().len());
    let mut bytes = 0;
    for (name, raw) in members.iter() {
        let place = place.member(name);
        let value = match raw.get() {
            "null" => None,
            _ => Some(text(raw, &place)?.into_owned()),
        };
        if value.as_deref() == Some(MASK) {
            return Err(place.invalid(MASKED));
        }
        if headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return Err(place.invalid("is given twice; names of headers know no case"));
        }
        let shown = value.as_deref().unwrap_or_default();
        let is_of_body = BODY_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own));
        let refused = match forbidden_header(name) || is_of_body {
            true => Err(egress::Refusal::HeaderNotAllowed {
                name: name.chars().take(64).flat_map(char::escape_default).collect(),
            }),
            false => check_header(name, shown),
        };
        refused.map_err(|refusal| barred(code, &refusal).at_pointer(place.pointer()))?;
        bytes += name.len() + shown.len();
        headers.push((name.to_owned(), value));
    }
    if bytes > MOST_HEADER_BYTES {
        let text = format!("holds {bytes} bytes; allowed: {MOST_HEADER_BYTES} together");
        return Err(place.invalid(text));
    }
    Ok(headers)
}

/// How fast deliveries may come.
pub fn rate_limit(raw: &RawValue, place: &Place<'_>) -> Result<RateLimit, Problem> {
    let object = Object::read(raw, place, RATE_MEMBERS)?;
    object.required("perSecond")?;
    let per_second = per_second(&object)?.unwrap_or(MAX_PER_SECOND);
    Ok(RateLimit::new(per_second, burst(&object)?))
}

/// What becomes of a rate.
pub fn rate_change(raw: &RawValue, place: &Place<'_>) -> Result<RateChange, Problem> {
    let object = Object::read(raw, place, RATE_MEMBERS)?;
    if matches!(object.patched("perSecond"), Some(None)) {
        let text = "cannot be removed alone; set `rateLimit` to null for no limit";
        return Err(place.member("perSecond").invalid(text));
    }
    let burst = match object.patched("burst") {
        None => None,
        Some(_) => Some(burst(&object)?),
    };
    Ok(RateChange { per_second: per_second(&object)?, burst })
}

const RATE_MEMBERS: &[&str] = &["perSecond", "burst"];

fn per_second(object: &Object<'_, '_>) -> Result<Option<f64>, Problem> {
    object.number("perSecond", 0.001, MAX_PER_SECOND)
}

fn burst(object: &Object<'_, '_>) -> Result<Option<u32>, Problem> {
    // Within 1 to 10000.
    Ok(object.integer("burst", 1, MAX_PER_SECOND as i64)?.map(|burst| burst as u32))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use futures_util::future::BoxFuture;

    use super::*;
    use crate::egress::Resolver;
    use crate::ingress::v1::parse::body;

    fn read_headers(json: &str) -> Result<Vec<(String, String)>, Problem> {
        headers(body(json.as_bytes()).unwrap(), &Place::ROOT, Code::CallbackRefused)
    }

    #[test]
    fn headers_are_bounded_and_vetted() {
        assert_eq!(read_headers(r#"{"X-A":"b"}"#).unwrap(), [("X-A".to_owned(), "b".to_owned())]);
        for (json, code) in [
            (r#"{"X-A":"***"}"#, Code::InvalidRequest),
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
        let half = "v".repeat(MOST_HEADER_BYTES / 2 - 1);
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

    /// Name servers that drop what they are asked.
    #[derive(Default)]
    struct Silence(AtomicUsize);

    impl Resolver for Silence {
        fn resolve(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            self.0.fetch_add(1, Relaxed);
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test]
    async fn a_thousand_silent_names_are_waited_for_together() {
        let resolver = Arc::new(Silence::default());
        let client = egress::Client::new(egress::Policy::default(), resolver.clone());
        let mut unvetted = Unvetted::default();
        for number in 0..1_000 {
            let url = format!("https://host-{number}.example");
            let (pointer, code) = (String::new(), Code::CallbackRefused);
            unvetted.0.insert(url.clone(), Question { url, pointer, code });
        }
        let (origins, soon) =
            (VettedOrigins::default(), Instant::now() + Duration::from_millis(20));
        let vetting = origins.vet_until(soon, &client, unvetted);
        let vetted = tokio::time::timeout(Duration::from_secs(30), vetting).await;
        vetted.expect("it ends with its deadline").expect("nothing speaks against the names");
        let asked = resolver.0.load(Relaxed);
        assert!(asked <= PARALLEL, "{asked}: nothing was asked after the deadline");
        // As after any other lookup that failed, the names are left alone for a moment.
        assert!(
            origins.knows("https://host-0.example") && origins.knows("https://host-999.example")
        );
    }

    #[test]
    fn a_verdict_is_remembered_for_a_while() {
        let origins = VettedOrigins::default();
        assert!(!origins.knows("https://a.example"));
        origins.keep("https://a.example".to_owned());
        assert!(origins.knows("https://a.example") && !origins.knows("https://b.example"));
    }
}
