//! What an import may be told, and where its secrets go.

use super::*;
use crate::engine::{JobType, SourceName};
use crate::handlers::import::ImportFile;

fn with(url: &str, authorization: Value) -> Value {
    json!({
        "sourceUrl": url,
        "destination": {"directory": "/in/"},
        "externalAuthorization": authorization,
    })
}

fn error(specification: &Value) -> String {
    ImportFile.check(specification, &[]).map(|_| ()).unwrap_err()
}

#[test]
fn secrets_go_apart_and_come_back() {
    let url = "https://files.example/a.txt?X-Amz-Signature=marker&part=1";
    let given = with(url, json!({"headers": {"Authorization": "Basic marker", "X-Id": "marker"}}));
    let checked = ImportFile.check(&given, &[]).unwrap();
    assert!(!checked.specification.to_string().contains("marker"));
    assert_eq!(
        checked.specification,
        json!({
            "sourceUrl": "https://files.example/a.txt?X-Amz-Signature=***&part=1",
            "destination": {"directory": "/in", "acl": "private"},
            "externalAuthorization": {"headers": {"Authorization": "***", "X-Id": "***"}},
        })
    );
    assert_eq!(checked.outside_url.as_deref(), Some(url));
    assert!(checked.sources.is_empty());

    let order = Order::restored(&checked.specification, &checked.secrets).unwrap();
    assert_eq!(order.url, url);
    assert_eq!(order.headers[0], ("Authorization".to_owned(), "Basic marker".to_owned()));
    assert!(Order::restored(&checked.specification, &Value::Null).is_err());
}

#[test]
fn without_secrets_nothing_is_sealed() {
    for authorization in [Value::Null, json!({}), json!({"headers": null}), json!({"headers": {}})]
    {
        let checked = ImportFile.check(&with("http://h/a?b=c", authorization), &[]).unwrap();
        assert_eq!(checked.secrets, Value::Null);
        assert_eq!(checked.specification.get("externalAuthorization"), None);
        assert_eq!(checked.specification["sourceUrl"], "http://h/a?b=c");
    }
}

#[test]
fn urls_have_a_form() {
    for (url, part) in [
        ("", "is no URL"),
        ("example.com/a", "is no URL"),
        ("ftp://h/a", "an http or https URL with a host"),
        ("data:text/plain,x", "an http or https URL with a host"),
        ("https://user:marker@h/a", "carries a user name"),
        ("https://u:marker/x@h/", "is no URL"),
    ] {
        let error = error(&with(url, Value::Null));
        assert!(error.starts_with("specification.sourceUrl ") && error.contains(part), "{error}");
        assert!(!error.contains("marker"), "{error}");
    }
    let long = format!("https://h/{}", "a".repeat(MAX_URL_BYTES));
    assert!(error(&with(&long, Value::Null)).contains("allowed: up to 2048"));
    assert!(error(&json!({"destination": {"path": "/a"}})).contains("sourceUrl is missing"));
    assert!(error(&json!({"sourceUrl": "https://h/"})).contains("destination is missing"));
    let unknown = json!({"sourceUrl": "https://h/", "destination": {"path": "/a"}, "mode": 1});
    assert_eq!(
        error(&unknown),
        "specification.mode is not known; allowed: sourceUrl, destination, externalAuthorization"
    );
}

#[test]
fn headers_are_few_and_clean_and_never_shown() {
    let many: Map<_, _> = (0..21).map(|n| (format!("X-{n}"), json!("marker"))).collect();
    for (headers, part) in [
        (json!({"Host": "marker"}), "headers.Host may not be set"),
        (json!({"Webhook-Id": "marker"}), "may not be set"),
        (json!({"A": "marker\r\nB: c"}), "control character"),
        (json!({"a b": "marker"}), "header a b is invalid"),
        (json!({"A": ["marker"]}), "headers.A is an array; allowed: a string"),
        (json!({"A": "marker", "a": "x"}), "given twice"),
        (json!("marker"), "is a string; allowed: an object of strings"),
        (json!({"A": "marker".repeat(700), "B": "marker".repeat(700)}), "allowed: up to 8192"),
        (Value::Object(many), "has 21 members; allowed: up to 20"),
    ] {
        let error = error(&with("https://h/", json!({"headers": headers})));
        assert!(error.starts_with("specification.externalAuthorization.headers"), "{error}");
        assert!(error.contains(part) && !error.contains("marker"), "{error}");
    }
}

#[test]
fn sources_are_refused() {
    let source = SourceName { path: Some("/a".to_owned()), file_id: None };
    let error = ImportFile.check(&with("https://h/", Value::Null), &[source]).map(|_| ());
    assert!(error.unwrap_err().contains("specification.sourceUrl"));
}
