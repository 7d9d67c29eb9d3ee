//! Standard Webhooks against vectors, against the official library, and at its limits.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::super::Ed25519Key;
use super::*;

#[derive(serde::Deserialize)]
struct Vectors<T> {
    cases: Vec<T>,
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

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyPairCase {
    private_key: String,
    public_key: String,
    id: String,
    timestamp: i64,
    body: String,
    body_bytes: usize,
    signature: String,
}

#[derive(serde::Deserialize)]
struct HexCase {
    secrets: Vec<String>,
    timestamp: i64,
    body: String,
    header: String,
}

fn keys(texts: &[String]) -> SigningKeys {
    texts.iter().map(|text| SigningSecret::parse(text).unwrap()).collect::<Vec<_>>().into()
}

fn attempt(webhook_id: &str, timestamp_seconds: i64) -> AttemptView<'_> {
    let event_type = "job.succeeded";
    AttemptView { webhook_id, number: 3, timestamp_seconds, event_type, redelivery: None }
}

fn value<'a>(headers: &'a [Header], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| *key == name).map(|(_, value)| &**value)
}

#[test]
fn signatures_match_the_vectors() {
    let text = include_str!("../../fixtures/signatures/standard.json");
    for case in serde_json::from_str::<Vectors<Case>>(text).unwrap().cases {
        assert_eq!(case.body.len(), case.body_bytes);
        let keys = keys(&case.secrets);
        let try_3 = attempt(&case.id, case.timestamp);
        for signature in Signature::ALL {
            let headers = Standard::default().headers(&try_3, &keys, signature, &case.body, None);
            assert_eq!(value(&headers, "webhook-id"), Some(&*case.id));
            assert_eq!(value(&headers, "webhook-timestamp"), Some(&*case.timestamp.to_string()));
            assert_eq!(value(&headers, "webhook-signature"), Some(&*case.signatures.join(" ")));
        }
    }
}

#[test]
fn ed25519_signatures_match_the_vector_and_come_before_those_of_secrets() {
    let text = include_str!("../../fixtures/signatures/ed25519.json");
    let hmac = include_str!("../../fixtures/signatures/standard.json");
    let pairs = serde_json::from_str::<Vectors<KeyPairCase>>(text).unwrap().cases;
    let secrets = serde_json::from_str::<Vectors<Case>>(hmac).unwrap().cases;
    for (case, same) in pairs.iter().zip(&secrets) {
        assert_eq!(case.body.len(), case.body_bytes);
        assert_eq!((&case.id, case.timestamp, &case.body), (&same.id, same.timestamp, &same.body));
        let older = Ed25519Key::from_seed(&[9; 32]).unwrap();
        let key = Ed25519Key::parse(&case.private_key).unwrap();
        assert_eq!(key.text(), case.private_key);
        assert_eq!(key.public_text(), case.public_key);

        let sent = |keys: &SigningKeys, signature| {
            let try_3 = attempt(&case.id, case.timestamp);
            let headers = Standard::default().headers(&try_3, keys, signature, &case.body, None);
            value(&headers, "webhook-signature").map(str::to_owned)
        };
        let mut keys = SigningKeys { ed25519: vec![key], ..SigningKeys::default() };
        assert_eq!(sent(&keys, Signature::Ed25519).as_ref(), Some(&case.signature));
        assert_eq!(sent(&keys, Signature::Standard), None, "unsigned");
        keys.ed25519.push(older);
        keys.secrets = self::keys(&same.secrets).secrets;
        let all = sent(&keys, Signature::Ed25519).unwrap();
        let all: Vec<&str> = all.split(' ').collect();
        assert_eq!(all.len(), 4);
        assert_eq!(all[0], case.signature);
        assert!(all[1].starts_with("v1a,") && all[1] != all[0]);
        assert_eq!(all[2..], same.signatures);
        assert_eq!(sent(&keys, Signature::Standard), Some(same.signatures.join(" ")));
    }
}

#[test]
fn the_hex_signature_comes_beside_the_standard_one_for_those_who_want_it() {
    let text = include_str!("../../fixtures/signatures/stripe.json");
    let cases = serde_json::from_str::<Vectors<HexCase>>(text).unwrap().cases;
    let mut compared = 0;
    for case in &cases {
        // Stripe's own secrets need not be base64; ours are.
        let parsed = case.secrets.iter().map(|text| SigningSecret::parse(text));
        let Ok(secrets) = parsed.collect::<Result<Vec<_>, _>>() else { continue };
        let keys = SigningKeys::from(secrets);
        let headers =
            signed_headers(&attempt("1", case.timestamp), &keys, Signature::Hex, &case.body, None);
        assert_eq!(value(&headers, HEX_HEADER), Some(&*case.header));
        assert!(value(&headers, "webhook-signature").unwrap().starts_with("v1,"));
        compared += 1;
    }
    assert!(compared > 0);
    let try_3 = attempt("1", 1_700_000_000);
    let both = SigningKeys {
        secrets: [1u8, 2].map(|byte| SigningSecret::from_key(&[byte; 32]).unwrap()).to_vec(),
        ed25519: vec![Ed25519Key::from_seed(&[3; 32]).unwrap()],
    };
    let hex = signed_headers(&try_3, &both, Signature::Hex, "{}", None);
    assert_eq!(value(&hex, HEX_HEADER).unwrap().matches(",v1=").count(), 2);
    assert!(!value(&hex, "webhook-signature").unwrap().contains("v1a"));
    for other in [Signature::Standard, Signature::Ed25519] {
        assert_eq!(value(&signed_headers(&try_3, &both, other, "{}", None), HEX_HEADER), None);
    }
    let unsigned = signed_headers(&try_3, &SigningKeys::default(), Signature::Hex, "{}", None);
    assert_eq!(value(&unsigned, HEX_HEADER), None);
}

#[test]
fn the_official_library_accepts_either_secret_and_no_other_body() {
    let secrets = [[1u8; 32], [2; 32], [3; 32]].map(|key| SigningSecret::from_key(&key).unwrap());
    let keys = SigningKeys {
        secrets: secrets[..2].to_vec(),
        ed25519: vec![Ed25519Key::from_seed(&[4; 32]).unwrap()],
    };
    // The library compares with the real clock and takes no other, so this one test reads it.
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let body = r#"{"note":"café"}"#;
    for signature in Signature::ALL {
        let sent = signed_headers(&attempt("msg-1", now), &keys, signature, body, None);
        let received: HeaderMap = sent
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            })
            .collect();

        let verify = |secret: &SigningSecret, body: &str| {
            let library = standardwebhooks::Webhook::new(secret.text()).unwrap();
            library.verify(body.as_bytes(), &received)
        };
        assert!(verify(&secrets[0], body).is_ok(), "current, {signature:?}");
        assert!(verify(&secrets[1], body).is_ok(), "previous, {signature:?}");
        assert!(verify(&secrets[2], body).is_err(), "a stranger's, {signature:?}");
        assert!(verify(&secrets[0], r#"{"note":"cafe"}"#).is_err(), "wrong body, {signature:?}");
    }
}

#[test]
fn headers_tell_the_try_and_the_failure_before_it() {
    let try_3 = attempt("msg-1", 1_700_000_000);
    let unsigned = SigningKeys::default();
    let failure = PreviousFailure { reason: "http_503" };
    let headers = signed_headers(&try_3, &unsigned, Signature::Standard, "{}", Some(&failure));
    assert_eq!(value(&headers, "content-type"), Some("application/json"));
    assert_eq!(value(&headers, "user-agent"), Some(USER_AGENT));
    assert_eq!(value(&headers, "webhook-attempt"), Some("3"));
    assert_eq!(value(&headers, "webhook-previous-failure"), Some("http_503"));
    assert_eq!(value(&headers, "webhook-signature"), None, "unsigned");
    let first = signed_headers(&try_3, &unsigned, Signature::Standard, "{}", None);
    assert_eq!(value(&first, "webhook-previous-failure"), None);
    assert_eq!(value(&first, "webhook-redelivery"), None, "in its order");
    let replayed = AttemptView { redelivery: Some("replay"), ..try_3 };
    let headers = signed_headers(&replayed, &unsigned, Signature::Standard, "{}", None);
    assert_eq!(value(&headers, "webhook-redelivery"), Some("replay"));
}

#[test]
fn answers_are_judged() {
    let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let later = Some(now + chrono::TimeDelta::seconds(120));
    let asked = [("Retry-After".to_owned(), "120".to_owned())];
    let judge = |status| {
        let judgement = Standard::default().judge(status, &asked, now);
        assert_eq!(judgement.wants_no_more, (status == 410).then_some("gone"), "{status}");
        judgement.verdict
    };
    for status in [200, 201, 202, 204, 226, 299] {
        assert_eq!(judge(status), Verdict::Delivered, "{status}");
    }
    for status in [408, 425, 429, 500, 502, 503, 504, 599] {
        assert_eq!(judge(status), Verdict::Retry { at: later }, "{status}");
    }
    for status in [400, 401, 403, 404, 409, 411, 422, 451, 499] {
        assert_eq!(judge(status), Verdict::RetryBriefly, "{status}");
    }
    for status in [0, 100, 199, 300, 301, 304, 307, 308, 600] {
        assert_eq!(judge(status), Verdict::Retry { at: None }, "{status}");
    }
    assert_eq!(judge(410), Verdict::Final { reason: "receiver_gone" });
    let unasked = Standard::default().judge(503, &[], now);
    assert_eq!(unasked, Verdict::Retry { at: None }.into());
}

#[test]
fn receivers_are_obeyed() {
    let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let judge = |status, word: &str| {
        let headers = [("Webhook-Delivery".to_owned(), word.to_owned())];
        let judgement = Standard::default().judge(status, &headers, now);
        (judgement.verdict, judgement.wants_no_more)
    };
    let aborted = Verdict::Final { reason: "aborted_by_receiver" };
    let gone = Verdict::Final { reason: "receiver_gone" };
    let disabled = Some("disabled_by_receiver");
    for status in [0, 307, 400, 429, 503] {
        assert_eq!(judge(status, "abort-message"), (aborted, None), "{status}");
        assert_eq!(judge(status, "disable, abort-message"), (aborted, disabled), "{status}");
    }
    assert_eq!(judge(200, "abort-message"), (Verdict::Delivered, None), "nothing to abort");
    assert_eq!(judge(204, "disable"), (Verdict::Delivered, disabled));
    assert_eq!(judge(503, "disable"), (Verdict::Retry { at: None }, disabled));
    assert_eq!(judge(404, "disable"), (Verdict::RetryBriefly, disabled));
    assert_eq!(judge(410, "disable"), (gone, Some("gone")));
    assert_eq!(judge(410, "abort-message"), (aborted, Some("gone")));
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
    #![proptest_config(proptest::test_runner::Config {
        rng_seed: proptest::test_runner::RngSeed::Fixed(2026),
        failure_persistence: None,
        ..proptest::test_runner::Config::default()
    })]

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
