//! Standard Webhooks against vectors, against the official library, and at its limits.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::*;

#[derive(serde::Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    secrets: Vec<String>,
    id: String,
    timestamp: i64,
    body: String,
    body_bytes: usize,
    signatures: Vec<String>,
}

fn secrets(texts: &[String]) -> Vec<SigningSecret> {
    texts.iter().map(|text| SigningSecret::parse(text).unwrap()).collect()
}

fn attempt(webhook_id: &str, timestamp_seconds: i64) -> AttemptView<'_> {
    AttemptView { webhook_id, number: 3, timestamp_seconds, event_type: "job.succeeded" }
}

fn value<'a>(headers: &'a [Header], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| *key == name).map(|(_, value)| &**value)
}

#[test]
fn signatures_match_the_vectors() {
    let text = include_str!("../../fixtures/signatures/standard.json");
    for case in serde_json::from_str::<Vectors>(text).unwrap().cases {
        assert_eq!(case.body.len(), case.body_bytes);
        let keys = secrets(&case.secrets);
        let try_3 = attempt(&case.id, case.timestamp);
        let headers = Standard::default().headers(&try_3, &keys, &case.body, None);
        assert_eq!(value(&headers, "webhook-id"), Some(&*case.id));
        assert_eq!(value(&headers, "webhook-timestamp"), Some(&*case.timestamp.to_string()));
        assert_eq!(value(&headers, "webhook-signature"), Some(&*case.signatures.join(" ")));
    }
}

#[test]
fn the_official_library_accepts_either_secret_and_no_other_body() {
    let keys = [[1u8; 32], [2; 32], [3; 32]].map(|key| SigningSecret::from_key(&key).unwrap());
    // The library compares with the real clock and takes no other, so this one test reads it.
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let body = r#"{"note":"café"}"#;
    let sent = signed_headers(&attempt("msg-1", now), &keys[..2], body, None);
    let received: HeaderMap = sent
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect();

    let verify = |key: &SigningSecret, body: &str| {
        standardwebhooks::Webhook::new(key.text()).unwrap().verify(body.as_bytes(), &received)
    };
    assert!(verify(&keys[0], body).is_ok(), "current");
    assert!(verify(&keys[1], body).is_ok(), "previous");
    assert!(verify(&keys[2], body).is_err(), "a stranger's");
    assert!(verify(&keys[0], r#"{"note":"cafe"}"#).is_err(), "wrong body");
}

#[test]
fn headers_tell_the_try_and_the_failure_before_it() {
    let try_3 = attempt("msg-1", 1_700_000_000);
    let headers = signed_headers(&try_3, &[], "{}", Some(&PreviousFailure { reason: "http_503" }));
    assert_eq!(value(&headers, "content-type"), Some("application/json"));
    assert_eq!(value(&headers, "user-agent"), Some(USER_AGENT));
    assert_eq!(value(&headers, "webhook-attempt"), Some("3"));
    assert_eq!(value(&headers, "webhook-previous-failure"), Some("http_503"));
    assert_eq!(value(&headers, "webhook-signature"), None, "unsigned");
    let first = signed_headers(&try_3, &[], "{}", None);
    assert_eq!(value(&first, "webhook-previous-failure"), None);
}

#[test]
fn answers_are_judged() {
    let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let later = Some(now + chrono::TimeDelta::seconds(120));
    let asked = [("Retry-After".to_owned(), "120".to_owned())];
    let judge = |status| Standard::default().judge(status, &asked, now);
    for status in [200, 201, 202, 204, 226, 299] {
        assert_eq!(judge(status), Verdict::Delivered, "{status}");
    }
    for status in [408, 425, 429, 500, 502, 503, 504, 599] {
        assert_eq!(judge(status), Verdict::Retry { at: later }, "{status}");
    }
    for status in [0, 100, 199, 300, 301, 304, 307, 308, 400, 401, 404, 422, 600] {
        assert_eq!(judge(status), Verdict::Retry { at: None }, "{status}");
    }
    assert_eq!(judge(410), Verdict::Disable);
    assert_eq!(Standard::default().judge(503, &[], now), Verdict::Retry { at: None });
}

#[test]
fn ten_tries_over_three_days() {
    let standard = Standard::default();
    assert_eq!(standard.schedule().tries(), 10);
    let total: Duration = standard.schedule().delays.iter().sum();
    assert_eq!(total.as_secs(), 75 * 3600 + 35 * 60 + 5);
}

fn body_of(data: &str) -> String {
    let data = RawValue::from_string(data.to_owned()).unwrap();
    let event = EventView {
        id: Uuid::from_u128(1),
        event_type: "job.succeeded",
        timestamp: "2026-11-21T10:00:00.000Z",
        sequence: 4,
        subject_type: "job",
        subject_id: Uuid::from_u128(2),
        data: &data,
    };
    Standard::default().body(&event, "https://jobs.example/")
}

#[test]
fn the_body_is_the_envelope_around_the_data_as_it_is() {
    assert_eq!(
        body_of(r#"{"id": "x", "cost": 1.50}"#),
        concat!(
            r#"{"id":"00000000-0000-0000-0000-000000000001","type":"job.succeeded","#,
            r#""timestamp":"2026-11-21T10:00:00.000Z","sequence":4,"schemaVersion":1,"#,
            r#""data":{"id": "x", "cost": 1.50}}"#
        )
    );
}

#[test]
fn the_cap_is_exact() {
    let around = body_of(r#"{"result":{"payload":""}}"#).len();
    let job = |bytes: usize| format!(r#"{{"result":{{"payload":"{}"}}}}"#, "x".repeat(bytes));

    let full = body_of(&job(MAX_BODY_BYTES - around));
    assert_eq!(full.len(), MAX_BODY_BYTES);
    assert!(!full.contains("href"));

    let cut = body_of(&job(MAX_BODY_BYTES - around + 1));
    assert!(cut.ends_with(
        r#""data":{"result":{"payload":{"href":"https://jobs.example/v1/jobs/00000000-0000-0000-0000-000000000002"}}}}"#
    ));
}

proptest::proptest! {
    #[test]
    fn no_job_exceeds_the_cap(sizes in proptest::array::uniform5(0usize..400_000)) {
        let [payload, specification, metadata, sources, message] = sizes.map(|n| "é".repeat(n / 2));
        let body = body_of(&format!(
            r#"{{"specification":"{specification}","metadata":"{metadata}","sources":"{sources}","result":{{"message":"{message}","payload":"{payload}"}}}}"#
        ));
        proptest::prop_assert!(body.len() <= MAX_BODY_BYTES);
        let parsed = serde_json::from_str::<serde_json::Value>(&body).unwrap();
        proptest::prop_assert_eq!(&parsed["sequence"], 4);
    }
}
