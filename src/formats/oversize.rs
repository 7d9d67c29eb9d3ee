//! Making a subject fit into a body: the largest and least urgent parts become links.
//!
//! Must not know: envelopes, or what else is in the body.

use std::borrow::Cow;

use super::json::{Members, Text};

/// Above this, any member counts as large once cutting the known ones was not enough.
const LARGE_MEMBER_BYTES: usize = 1024;

/// `data` in at most `room` bytes. What does not fit is replaced by `{"href": url}`, in steps,
/// and only as many steps as needed: the result's payload, the specification, the metadata, then
/// every large member, at last everything.
///
/// The last step is not checked against `room`: there is nothing smaller that still helps anyone.
pub fn fit<'a>(data: &'a str, room: usize, url: &str) -> Cow<'a, str> {
    if data.len() <= room {
        return Cow::Borrowed(data);
    }
    let link = format!(r#"{{"href":{}}}"#, Text(url));
    let Some(mut members) = Members::read(data) else {
        return Cow::Owned(link);
    };

    for cut in [cut_payload, cut_specification, cut_metadata, cut_large] {
        cut(&mut members, &link);
        let json = members.write();
        if json.len() <= room {
            return Cow::Owned(json);
        }
    }
    Cow::Owned(link)
}

fn cut_payload(members: &mut Members<'_>, link: &str) {
    let Some(result) = members.get_mut("result") else {
        return;
    };
    let Some(mut inner) = Members::read(result) else {
        return;
    };
    let Some(payload) = inner.get_mut("payload") else {
        return;
    };
    replace(payload, link);
    let rewritten = inner.write();
    *result = Cow::Owned(rewritten);
}

fn cut_specification(members: &mut Members<'_>, link: &str) {
    members.get_mut("specification").into_iter().for_each(|value| replace(value, link));
}

fn cut_metadata(members: &mut Members<'_>, link: &str) {
    members.get_mut("metadata").into_iter().for_each(|value| replace(value, link));
}

fn cut_large(members: &mut Members<'_>, link: &str) {
    members
        .0
        .iter_mut()
        .filter(|(_, value)| value.len() > LARGE_MEMBER_BYTES)
        .for_each(|(_, value)| replace(value, link));
}

/// A value shorter than the link stays: it tells more in less room.
fn replace(value: &mut Cow<'_, str>, link: &str) {
    if value.len() > link.len() {
        *value = Cow::Owned(link.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://jobs.example/v1/jobs/1";
    const LINK: &str = r#"{"href":"https://jobs.example/v1/jobs/1"}"#;

    fn job(payload: usize, specification: usize, metadata: usize, sources: usize) -> String {
        let text = |bytes| "x".repeat(bytes);
        format!(
            r#"{{"id":"1","status":"success","specification":"{}","metadata":"{}","sources":["{}"],"result":{{"code":0,"message":"ok","payload":"{}"}}}}"#,
            text(specification),
            text(metadata),
            text(sources),
            text(payload)
        )
    }

    /// Which parts of the job are still there in full.
    fn kept(payload: usize, specification: usize, metadata: usize, sources: usize) -> Vec<bool> {
        let json = job(payload, specification, metadata, sources);
        let fitted = fit(&json, 1000, URL);
        assert!(fitted.len() <= 1000);
        let value: serde_json::Value = serde_json::from_str(&fitted).unwrap();
        assert_eq!(value["status"], "success");
        let parts = [&value["result"]["payload"], &value["specification"], &value["metadata"]];
        parts.iter().chain([&&value["sources"]]).map(|part| part.get("href").is_none()).collect()
    }

    #[test]
    fn no_more_is_cut_than_needed() {
        assert_eq!(kept(100, 100, 100, 100), [true, true, true, true]);
        assert_eq!(kept(2000, 100, 100, 100), [false, true, true, true]);
        assert_eq!(kept(2000, 2000, 100, 100), [false, false, true, true]);
        assert_eq!(kept(2000, 2000, 2000, 100), [false, false, false, true]);
        assert_eq!(kept(100, 20, 2000, 2000), [false, true, false, false]);
    }

    #[test]
    fn the_rest_of_the_result_stays() {
        let json = job(2000, 0, 0, 0);
        let fitted = fit(&json, 1000, URL);
        assert!(
            fitted.contains(&format!(r#""result":{{"code":0,"message":"ok","payload":{LINK}}}"#))
        );
    }

    #[test]
    fn what_cannot_be_taken_apart_becomes_a_link() {
        assert_eq!(fit(&format!("[{}]", "1,".repeat(900) + "1"), 1000, URL), LINK);
        assert_eq!(fit(&job(0, 0, 0, 0), 60, URL), LINK);
    }
}
