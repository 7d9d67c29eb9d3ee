//! What is printed of a webhook.

use actix_web::http::header::{HeaderName, HeaderValue};
use serde_json::json;

use super::*;

fn received(body: &[u8], verdict: &Verdict, times_seen: u64) -> Received {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("webhook-id", "id-1"),
        ("webhook-attempt", "3"),
        ("webhook-previous-failure", "http_503"),
        ("webhook-redelivery", "replay"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let time = Timestamp(1_700_000_000_000_000);
    Received::new(time, "/hook", &headers, body, verdict, times_seen)
        .answered(&Answered { status: 204, note: None })
}

#[test]
fn people_see_what_matters_and_the_body_indented() {
    let body = br#"{"type":"job.failed","b":1,"a":2}"#;
    let page = received(body, &Verdict::Verified("v1"), 2).for_people();
    assert_eq!(
        page,
        "2023-11-14T22:13:20.000Z  job.failed  verified (v1)\n\
         \x20 webhook-id  id-1\n\
         \x20 DUPLICATE   this webhook-id has come 2 times\n\
         \x20 attempt     3, after http_503\n\
         \x20 redelivery  replay\n\
         \x20 answer      204\n\
         \x20 {\n    \"type\": \"job.failed\",\n    \"b\": 1,\n    \"a\": 2\n  }"
    );
    let refused = received(body, &Verdict::Refused("forged".to_owned()), 1).for_people();
    assert!(refused.contains("REFUSED: forged") && !refused.contains("DUPLICATE"), "{refused}");
}

#[test]
fn scripts_get_one_line() {
    let body = b"{\n \"type\": \"job.failed\",\n \"n\": 1.50}";
    let line = received(body, &Verdict::Verified("hex"), 2).as_json().unwrap();
    assert!(!line.contains('\n') && line.contains(r#""body":{"type":"job.failed","n":1.50}"#));
    let told: Value = serde_json::from_str(&line).unwrap();
    for (name, value) in [
        ("event", json!("job.failed")),
        ("webhookId", json!("id-1")),
        ("attempt", json!(3)),
        ("previousFailure", json!("http_503")),
        ("redelivery", json!("replay")),
        ("verified", json!(true)),
        ("signature", json!("hex")),
        ("timesSeen", json!(2)),
        ("duplicate", json!(true)),
        ("answer", json!(204)),
        ("path", json!("/hook")),
        ("text", Value::Null),
    ] {
        assert_eq!(told[name], value, "{name}");
    }
}

#[test]
fn what_is_no_json_is_shown_so_that_no_terminal_obeys_it() {
    let page = received(b"\x1b[2Jhello\xff", &Verdict::Unchecked, 1).for_people();
    assert!(page.contains("not JSON: \\u{1b}[2Jhello"), "{page}");
    assert!(!page.contains('\u{1b}') && page.contains("no event"), "{page}");
    let told: Value =
        serde_json::from_str(&received(b"", &Verdict::Unchecked, 1).as_json().unwrap()).unwrap();
    assert_eq!((&told["body"], &told["text"]), (&Value::Null, &json!("")));
    // A script gets what was sent, and no terminal that shows its lines obeys it either.
    for sent in ["\x1b[31m", "\u{9b}31m", "\\u{1b}[31m", "tab\there"] {
        let body = json!({"type": sent}).to_string();
        let line = received(body.as_bytes(), &Verdict::Unchecked, 1).as_json().unwrap();
        assert!(!line.chars().any(char::is_control), "{line}");
        let told: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&told["event"], &told["body"]["type"]), (&json!(sent), &json!(sent)));
        let text = format!("no JSON: {sent}");
        let line = received(text.as_bytes(), &Verdict::Unchecked, 1).as_json().unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(told["text"], json!(text));
    }
    // A type that is no text is no event, nor is anything in a list.
    for body in [&br#"{"type":1}"#[..], br#"["job.failed"]"#] {
        assert_eq!(received(body, &Verdict::Unchecked, 1).event, None);
    }
}
