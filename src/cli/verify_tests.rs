//! The listener's check against the vectors, and every reason to refuse.

use actix_web::http::header::{HeaderName, HeaderValue};

use super::*;

const ID: &str = "msg-1";
const TIME: i64 = 1_700_000_000;
const BODY: &[u8] = b"{}";

#[derive(serde::Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

/// A case of any of the files; each has its own of these.
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Case {
    secrets: Vec<String>,
    public_key: String,
    id: String,
    timestamp: i64,
    body: String,
    signatures: Vec<String>,
    signature: String,
    header: String,
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn keys(texts: &[&str]) -> Keys {
    Keys::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn cases(text: &str) -> Vec<Case> {
    let cases = serde_json::from_str::<Vectors>(text).unwrap().cases;
    assert!(!cases.is_empty());
    cases
}

fn check(case: &Case, key: &str, signatures: &str, kind: &'static str) {
    let sent = headers(&[
        ("webhook-id", &case.id),
        ("webhook-timestamp", &case.timestamp.to_string()),
        ("webhook-signature", signatures),
    ]);
    let verify = |body: &str| keys(&[key]).verify(&sent, body.as_bytes(), case.timestamp);
    assert_eq!(verify(&case.body), Verdict::Verified(kind));
    assert!(matches!(verify(&format!("{} ", case.body)), Verdict::Refused(_)));
}

#[test]
fn every_key_of_the_standard_vectors_verifies() {
    for case in cases(include_str!("../../fixtures/signatures/standard.json")) {
        assert!(!case.secrets.is_empty());
        for secret in &case.secrets {
            check(&case, secret, &case.signatures.join(" "), "v1");
        }
    }
    for case in cases(include_str!("../../fixtures/signatures/ed25519.json")) {
        check(&case, &case.public_key, &case.signature, "v1a");
    }
}

#[test]
fn every_secret_of_the_hex_vectors_verifies() {
    let mut checked = 0;
    for case in cases(include_str!("../../fixtures/signatures/stripe.json")) {
        let sent = headers(&[("ringback-signature", &case.header)]);
        // Not all of the vectors' secrets are ones that we would hand out.
        for secret in &case.secrets {
            let Ok(keys) = Keys::parse(std::slice::from_ref(secret)) else { continue };
            let verify = |body: &[u8]| keys.verify(&sent, body, case.timestamp);
            assert_eq!(verify(case.body.as_bytes()), Verdict::Verified("hex"));
            assert!(matches!(verify(b"else"), Verdict::Refused(_)));
            checked += 1;
        }
    }
    assert!(checked > 0, "no vector could be used");
}

/// What the reason is for headers that differ in one way from right ones.
fn refused(keys: &Keys, change: (&str, Option<&str>)) -> String {
    let mut sent = headers(&[
        ("webhook-id", ID),
        ("webhook-timestamp", &TIME.to_string()),
        ("webhook-signature", "v1,AAAA v1a,AAAA v2,AAAA nonsense"),
    ]);
    let name = HeaderName::from_bytes(change.0.as_bytes()).unwrap();
    match change.1 {
        Some(value) => drop(sent.insert(name, HeaderValue::from_str(value).unwrap())),
        None => drop(sent.remove(name)),
    }
    match keys.verify(&sent, BODY, TIME) {
        Verdict::Refused(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refusal_says_why() {
    let secret = SigningSecret::from_key(&[7; 32]).unwrap();
    let public = format!("whpk_{}", STANDARD.encode([7; 32]));
    let (secret, public) = (keys(&[secret.text()]), keys(&[&public]));
    let older = (TIME - 301).to_string();
    let newer = (TIME + 301).to_string();
    for (change, word) in [
        (("webhook-signature", None), "no signature"),
        (("webhook-id", None), "webhook-id is missing"),
        (("webhook-timestamp", None), "webhook-timestamp is missing"),
        (("webhook-timestamp", Some("soon")), "`soon`"),
        (("webhook-timestamp", Some(older.as_str())), "301 s old"),
        (("webhook-timestamp", Some(newer.as_str())), "301 s ahead"),
        (("webhook-signature", Some("v1,AAAA")), "does not match"),
        (("webhook-signature", Some("v1a,AAAA")), "whsec_ was given"),
        (("webhook-signature", Some("nonsense")), "whsec_ was given"),
    ] {
        let reason = refused(&secret, change);
        assert!(reason.contains(word), "{change:?}: {reason}");
    }
    assert!(refused(&public, ("webhook-signature", Some("v1,AAAA"))).contains("whpk_ was given"));
    assert!(refused(&public, ("x", None)).contains("does not match"));
}

#[test]
fn a_hex_signature_is_refused_for_its_own_reasons() {
    let secret = SigningSecret::from_key(&[7; 32]).unwrap();
    let secret = keys(&[secret.text()]);
    for (value, word) in [
        ("v1=00", "no t="),
        ("t=soon,v1=00", "`soon`"),
        ("t=1,v1=00", "old"),
        ("t=1700000000", "does not match"),
        ("t=1700000000,v1=zz,v1=00", "does not match"),
    ] {
        let verdict = secret.verify(&headers(&[("ringback-signature", value)]), BODY, TIME);
        assert!(
            matches!(&verdict, Verdict::Refused(reason) if reason.contains(word)),
            "{value}: {verdict:?}"
        );
    }
}

#[test]
fn without_a_key_nothing_is_checked_and_bad_keys_are_not_repeated() {
    assert_eq!(keys(&[]).verify(&headers(&[]), BODY, TIME), Verdict::Unchecked);
    for bad in ["hunter2", "whsec_hunter2", "whpk_hunter2", "whpk_AAAA"] {
        let error = Keys::parse(&[bad.to_owned()]).err().unwrap();
        let said = format!("{error:#}");
        assert!(said.contains("whpk_") && !said.contains("hunter2"), "{said}");
    }
}
