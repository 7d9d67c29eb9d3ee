//! A job as a request asks for it, read member by member.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::parse::{Object, Place, is_name, items, tree};
use super::receiver::Unvetted;
use super::{callback, job_type};
use crate::engine::{NewJob, SourceName};
use crate::files::FilePath;
use crate::ingress::causes::barred;
use crate::ingress::problem::{Code, Problem};
use crate::ingress::state::State;

const MEMBERS: &[&str] = &[
    "type",
    "specification",
    "sources",
    "groupId",
    "callback",
    "callbackUrl",
    "metadata",
    "priority",
    "runAt",
    "expiresAt",
    "maxAttempts",
    "timeoutSeconds",
    "queue",
];
const MAX_SOURCES: usize = 1_000;
const MAX_METADATA_BYTES: usize = 16 * 1024;
const MAX_PRIORITY: i64 = 100;
const MAX_ATTEMPTS: i64 = 100;
const WEEK_SECONDS: i64 = 7 * 24 * 60 * 60;
const DEFAULT_QUEUE: &str = "default";
const MAX_QUEUE_BYTES: usize = 64;

/// Reads a job.
pub fn job(
    state: &State,
    raw: &RawValue,
    place: &Place<'_>,
    unvetted: &mut Unvetted,
) -> Result<NewJob, Problem> {
    let object = Object::read(raw, place, MEMBERS)?;
    let job_type = job_type::submitted(state, object.required("type")?, &place.member("type"))?;
    let at = place.member("specification");
    let raw = object.required("specification")?;
    if !raw.get().starts_with('{') {
        return Err(at.invalid("must be an object"));
    }
    let specification = tree(raw, &at)?;
    let sources = match object.get("sources") {
        Some(raw) => sources(raw, &place.member("sources"))?,
        None => Vec::new(),
    };
    let checked = job_type
        .check(&specification, &sources)
        .map_err(|text| Problem::new(Code::InvalidSpecification, text).at_pointer(at.pointer()))?;
    if let Some(url) = &checked.outside_url {
        state
            .egress
            .check_url(url)
            .map_err(|refusal| barred(Code::SourceRefused, &refusal).at_pointer(at.pointer()))?;
    }

    Ok(NewJob {
        job_type: job_type.name().to_owned(),
        specification,
        sources,
        group_id: object.id("groupId")?,
        callback: callback::either(state, &object, unvetted)?,
        metadata: metadata(&object)?,
        priority: object.integer("priority", -MAX_PRIORITY, MAX_PRIORITY)?.unwrap_or(0),
        queue: queue(&object)?.into_owned(),
        run_at: object.time("runAt")?,
        expires_at: object.time("expiresAt")?,
        max_attempts: object.integer("maxAttempts", 1, MAX_ATTEMPTS)?,
        timeout_seconds: object.integer("timeoutSeconds", 1, WEEK_SECONDS)?,
    })
}

fn sources(raw: &RawValue, place: &Place<'_>) -> Result<Vec<SourceName>, Problem> {
    let items = items(raw, place, 0, MAX_SOURCES)?;
    let mut sources = Vec::with_capacity(items.len());
    for (index, raw) in items.into_iter().enumerate() {
        let place = place.item(index);
        let object = Object::read(raw, &place, &["path", "fileId"])?;
        let path = match object.text("path")? {
            Some(path) => {
                let path = FilePath::parse(&path).map_err(|error| {
                    place.member("path").invalid(format!("is refused: {error}"))
                })?;
                Some(path.as_str().to_owned())
            }
            None => None,
        };
        let file_id = object.id("fileId")?;
        if path.is_none() && file_id.is_none() {
            return Err(place.invalid("needs `path` or `fileId`"));
        }
        sources.push(SourceName { path, file_id });
    }
    Ok(sources)
}

/// Kept byte for byte, but only what every reader of JSON can read.
fn metadata(object: &Object<'_, '_>) -> Result<Option<Box<RawValue>>, Problem> {
    let Some(raw) = object.get("metadata") else { return Ok(None) };
    let place = object.place.member("metadata");
    let bytes = raw.get().len();
    if bytes > MAX_METADATA_BYTES {
        let text = format!("has {bytes} bytes; allowed: {MAX_METADATA_BYTES} at most");
        return Err(place.invalid(text));
    }
    if !raw.get().starts_with('{') {
        return Err(place.invalid("must be an object"));
    }
    tree(raw, &place)?;
    Ok(Some(raw.to_owned()))
}

fn queue<'a>(object: &Object<'a, '_>) -> Result<Cow<'a, str>, Problem> {
    let Some(name) = object.text("queue")? else { return Ok(Cow::Borrowed(DEFAULT_QUEUE)) };
    if name.len() > MAX_QUEUE_BYTES || !is_name(&name) {
        let text = format!(
            "is not allowed: 1 to {MAX_QUEUE_BYTES} of a-z, 0-9, `.`, `_`, `-`, a letter or digit \
             first"
        );
        return Err(object.place.member("queue").invalid(text));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::v1::parse::body;

    fn object(json: &str) -> Object<'_, 'static> {
        static ROOT: Place<'static> = Place::ROOT;
        Object::read(body(json.as_bytes()).unwrap(), &ROOT, MEMBERS).unwrap()
    }

    #[test]
    fn metadata_is_kept_byte_for_byte() {
        let text = r#"{"b": 1.50,  "a":"\u00fc"}"#;
        let json = format!(r#"{{"metadata":{text}}}"#);
        assert_eq!(metadata(&object(&json)).unwrap().unwrap().get(), text);
        assert!(metadata(&object(r#"{"metadata":null}"#)).unwrap().is_none());
        let full = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_METADATA_BYTES - 8));
        assert!(metadata(&object(&format!(r#"{{"metadata":{full}}}"#))).is_ok());
        let over = full.replace('a', "aa");
        for bad in ["[]", "1", r#""{}""#, r#"{"a":1e999}"#, r#"{"a":"\u0000"}"#, &over] {
            assert!(metadata(&object(&format!(r#"{{"metadata":{bad}}}"#))).is_err(), "{bad:.20}");
        }
    }

    #[test]
    fn queues_have_plain_names() {
        let read = |name: &str| {
            let json = format!(r#"{{"queue":"{name}"}}"#);
            queue(&object(&json)).map(Cow::into_owned).ok()
        };
        assert_eq!(queue(&object("{}")).unwrap(), "default");
        assert_eq!(read("0a._-z").as_deref(), Some("0a._-z"));
        let long = "q".repeat(65);
        for bad in ["", ".a", "A", "a b", "\u{fc}", &long] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn sources_have_a_path_or_an_id() {
        let read = |json: &str| sources(body(json.as_bytes()).unwrap(), &Place::ROOT);
        let id = "0199f0b2-7c7e-7d51-9d6a-3b0f6f1f5a01";
        let both = format!(r#"[{{"path":"//a//b","fileId":null}},{{"fileId":"{id}"}}]"#);
        let found = read(&both).unwrap();
        assert_eq!(found[0].path.as_deref(), Some("/a/b"));
        assert!(found[1].file_id.is_some());
        for bad in ["{}", "[{}]", r#"[{"path":"a"}]"#, r#"[{"fileId":"x"}]"#, r#"[{"name":"/a"}]"#]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
