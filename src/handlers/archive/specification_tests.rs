//! What archive jobs may be told, and how it is stored.

use super::*;
use crate::engine::JobType;
use crate::handlers::archive::{CreateArchive, ExtractArchive};

fn by_path(path: &str) -> SourceName {
    SourceName { path: Some(path.to_owned()), file_id: None }
}

fn creation(sources: Value) -> Value {
    json!({"sources": sources, "destination": {"path": "/a.zip"}, "archiveType": "zip"})
}

fn refused(job: &dyn JobType, specification: &Value, sources: &[SourceName]) -> String {
    job.check(specification, sources).map(|_| ()).unwrap_err()
}

#[test]
fn sources_are_listed_in_order_and_stored_tidied() {
    let id = "0190163d-8694-739b-aea5-966c26f8ad91";
    let specification = creation(json!([
        {"path": "//b//c", "fileId": null, "pathInArchive": "./x//y"},
        {"path": null, "fileId": id.replace('-', "").to_uppercase(), "pathInArchive": null},
        {"path": "/b/c"},
    ]));
    let checked = CreateArchive.check(&specification, &[]).unwrap();
    let by_id = SourceName { path: None, file_id: parse_id(id) };
    assert_eq!(checked.sources, [by_path("/b/c"), by_id, by_path("/b/c")]);
    assert_eq!(checked.secrets, Value::Null);
    assert_eq!(
        checked.specification,
        json!({
            "sources": [
                {"path": "/b/c", "pathInArchive": "x/y"},
                {"fileId": id},
                {"path": "/b/c"},
            ],
            "destination": {"path": "/a.zip", "acl": "private"},
            "archiveType": "zip",
        })
    );
    let again = CreateArchive.check(&checked.specification, &[]).unwrap();
    assert_eq!(again.specification, checked.specification);
}

#[test]
fn sources_may_stand_outside_instead() {
    for empty in [Value::Null, json!([])] {
        let checked = CreateArchive.check(&creation(empty.clone()), &[by_path("//b")]).unwrap();
        assert_eq!(checked.sources, [by_path("/b")]);
        assert_eq!(checked.specification.get("sources"), None);
        assert_eq!(
            refused(&CreateArchive, &creation(empty), &[]),
            "sources has 0 entries; allowed: 1 to 10000"
        );
    }
    let both = creation(json!([{"path": "/a"}]));
    assert!(refused(&CreateArchive, &both, &[by_path("/b")]).contains("one of the two"));
    let clash = refused(&CreateArchive, &creation(Value::Null), &[by_path("/b"), by_path("/b")]);
    assert!(clash.contains("\"b\" is given twice"), "{clash}");
    let nobody = SourceName { path: None, file_id: None };
    assert!(refused(&CreateArchive, &creation(Value::Null), &[nobody]).contains("sources[0]"));
}

#[test]
fn a_creation_says_what_is_wrong() {
    let many: Vec<Value> = (0..10_001).map(|n| json!({"path": format!("/{n}")})).collect();
    for (sources, part) in [
        (json!("x"), "specification.sources is a string; allowed: an array"),
        (json!([{}]), "sources[0] has neither path nor fileId; allowed: exactly one"),
        (json!([{"path": "/a", "fileId": "x"}]), "has both path and fileId"),
        (json!([{"fileId": "x"}]), "sources[0].fileId \"x\" is no file id; allowed: a UUID"),
        (json!([{"path": "/a/"}]), "sources[0].path: the path \"/a/\" names a directory"),
        (json!([{"path": "/a", "mode": 7}]), "sources[0].mode is not known; allowed: path"),
        (json!([{"path": "/a", "pathInArchive": "../b"}]), "sources[0].pathInArchive: the path"),
        (json!([{"path": "/a"}, {"path": "/b", "pathInArchive": "a"}]), "\"a\" is given twice"),
        (json!([{"path": "/a"}, {"path": "/a/b"}]), "is a file and also the folder"),
        (json!([{"path": "/C:/b"}]), "sources[0]: the path \"C:/b\" is refused"),
        (Value::Array(many), "specification.sources has 10001 entries; allowed: 1 to 10000"),
    ] {
        let error = refused(&CreateArchive, &creation(sources), &[]);
        assert!(error.starts_with("specification.sources") && error.contains(part), "{error}");
    }
    for (member, value, part) in [
        ("archiveType", json!("rar"), "\"rar\" is not an archive type; allowed are zip, tar"),
        ("archiveType", Value::Null, "archiveType is missing; allowed: zip, tar, tar.gz, tar.bz2"),
        ("destination", Value::Null, "specification.destination is missing"),
        ("level", json!(9), "specification.level is not known"),
    ] {
        let mut specification = creation(json!([{"path": "/a"}]));
        specification[member] = value;
        let error = refused(&CreateArchive, &specification, &[]);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn an_extraction_is_stored_tidied() {
    let given = json!({
        "source": {"path": "//a.zip", "fileId": null},
        "destination": {"path": "/out/", "acl": "private"},
        "extractedFilesReport": {"destination": {"directory": "/r/"}, "format": "csv"},
    });
    let checked = ExtractArchive.check(&given, &[]).unwrap();
    assert_eq!(checked.sources, [by_path("/a.zip")]);
    assert_eq!(
        checked.specification,
        json!({
            "source": {"path": "/a.zip"},
            "destination": {"directory": "/out", "acl": "private"},
            "extractedFilesReport": {
                "destination": {"directory": "/r", "acl": "private"},
                "format": "csv",
            },
        })
    );
    let outside = json!({"destination": {"directory": "/"}, "extractedFilesReport": null});
    let checked = ExtractArchive.check(&outside, &[by_path("/b.zip")]).unwrap();
    assert_eq!(checked.sources, [by_path("/b.zip")]);
}

#[test]
fn an_extraction_says_what_is_wrong() {
    let report = |value: Value| {
        json!({
            "source": {"path": "/a"},
            "destination": {"directory": "/"},
            "extractedFilesReport": value,
        })
    };
    for (specification, part) in [
        (json!({"destination": {"directory": "/"}}), "specification.source is missing"),
        (json!({"source": {"path": "/a"}}), "specification.destination is missing"),
        (json!({"source": {"id": 1}, "destination": {}}), "specification.source.id is not known"),
        (report(json!({"format": "csv"})), "extractedFilesReport.destination is missing"),
        (report(json!({"destination": {"path": "/r"}, "format": "xml"})), "allowed are csv, json"),
        (report(json!([])), "extractedFilesReport is an array; allowed: an object"),
    ] {
        let error = refused(&ExtractArchive, &specification, &[]);
        assert!(error.contains(part), "{error}");
    }
    let two = [by_path("/a"), by_path("/b")];
    let none = json!({"destination": {"directory": "/"}});
    assert_eq!(refused(&ExtractArchive, &none, &two), "sources has 2 entries; allowed: exactly 1");
}
