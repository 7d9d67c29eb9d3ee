//! Hostile and careless JSON, and what it is told.

use super::*;

const KNOWN: &[&str] = &["a", "b"];

fn read(json: &str) -> Result<Object<'_, 'static>, Problem> {
    static ROOT: Place<'static> = Place::ROOT;
    Object::read(body(json.as_bytes())?, &ROOT, KNOWN)
}

fn pointer(problem: &Problem) -> String {
    let (_, errors) = problem.extensions.iter().find(|(name, _)| *name == "errors").unwrap();
    errors[0]["pointer"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_no_json_is_told_where() {
    for bad in ["", " \n", "{", "{\"a\":1", "{\"a\":01}", "[1,]", "{\"a\":tru}", "\u{feff}{}"] {
        assert_eq!(body(bad.as_bytes()).unwrap_err().code, Code::InvalidJson, "{bad:?}");
    }
    let problem = body(b"{\n  \"a\": x}").unwrap_err();
    assert!(problem.detail.contains("line 2"), "{problem}");
    assert_eq!(body(b"{\"a\":\"\xff\"}").unwrap_err().code, Code::InvalidJson);
}

#[test]
fn unknown_and_repeated_members_are_named() {
    let problem = read(r#"{"a":1,"c/d~":2}"#).err().unwrap();
    assert_eq!((problem.code, pointer(&problem).as_str()), (Code::UnknownField, "/c~1d~0"));
    assert!(problem.detail.contains("allowed: a, b"), "{problem}");
    let problem = read(r#"{"a":1,"\u0061":2}"#).err().unwrap();
    assert_eq!((problem.code, pointer(&problem).as_str()), (Code::InvalidRequest, "/a"));
    for bad in ["[]", "1", "null", "\"a\""] {
        assert_eq!(read(bad).err().unwrap().code, Code::InvalidRequest, "{bad}");
    }
    let long = format!("{{\"{}\":1}}", "x".repeat(10_000));
    assert!(read(&long).err().unwrap().detail.len() < 200);
}

#[test]
fn null_is_absent() {
    let object = read(r#"{"a":null}"#).unwrap();
    assert!(object.get("a").is_none() && object.get("b").is_none());
    assert_eq!(object.required("a").unwrap_err().code, Code::InvalidRequest);
}

#[test]
fn a_patch_tells_null_from_absent() {
    let object = read(r#"{"a":null}"#).unwrap();
    assert!(matches!((object.patched("a"), object.patched("b")), (Some(None), None)));
    let object = read(r#"{"a":1}"#).unwrap();
    assert_eq!(object.patched("a").flatten().map(RawValue::get), Some("1"));
}

#[test]
fn words_are_told_the_known_ones() {
    let read = |json: &str| {
        choice(body(json.as_bytes()).unwrap(), &Place::ROOT, [1, 2], |one| ["", "x", "y"][one])
    };
    assert_eq!(read("\"y\"").unwrap(), 2);
    assert!(read("\"z\"").unwrap_err().detail.ends_with("allowed: x, y"));
    assert!(read("1").is_err());
    let flag = |json: &str| flag(body(json.as_bytes()).unwrap(), &Place::ROOT).ok();
    assert_eq!((flag("true"), flag("false")), (Some(true), Some(false)));
    assert!(["1", "\"true\"", "null", "[]"].into_iter().all(|bad| flag(bad).is_none()));
}

#[test]
fn a_body_may_be_left_out() {
    assert!(optional(b"", KNOWN).unwrap().is_none());
    assert!(optional(b"{}", KNOWN).unwrap().is_some());
    for bad in ["null", " ", r#"{"c":1}"#] {
        assert!(optional(bad.as_bytes(), KNOWN).is_err(), "{bad:?}");
    }
}

#[test]
fn numbers_have_bounds_and_never_overflow() {
    let integer = |text: &str| {
        let json = format!("{{\"a\":{text}}}");
        read(&json).and_then(|object| object.integer("a", -100, 100)).ok().flatten()
    };
    for (text, number) in [("7", 7), ("-100", -100), ("1e2", 100), ("3.0", 3), ("-0", 0)] {
        assert_eq!(integer(text), Some(number), "{text}");
    }
    let huge = "9".repeat(400);
    for bad in ["101", "-101", "0.5", "1e400", "-1e400", &huge, "\"7\"", "true", "{}", "1e15"] {
        assert_eq!(integer(bad), None, "{bad}");
    }
    let number = |text: &str| {
        let json = format!("{{\"a\":{text}}}");
        read(&json).and_then(|object| object.number("a", 0.001, 10_000.0)).ok().flatten()
    };
    assert_eq!(number("0.5"), Some(0.5));
    for bad in ["0", "1e999", "-1", "10000.1", "\"1\""] {
        assert_eq!(number(bad), None, "{bad}");
    }
}

#[test]
fn text_that_cannot_be_stored_is_refused() {
    for bad in [r#"{"a":"\u0000"}"#, r#"{"a":"\ud800"}"#, r#"{"a":"\udc00x"}"#, r#"{"a":1}"#] {
        let object = read(bad).unwrap();
        assert!(object.text("a").is_err(), "{bad}");
    }
    assert_eq!(read(r#"{"\ud800":1}"#).err().unwrap().code, Code::InvalidJson);
    for bad in [r#"["\u0000"]"#, r#"{"\u0000":1}"#, "[1e999]", r#"["\ud800"]"#] {
        let json = format!("{{\"a\":{bad}}}");
        let object = read(&json).unwrap();
        assert!(tree(object.get("a").unwrap(), &Place::ROOT).is_err(), "{bad}");
    }
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let object = read(&deep);
    assert!(object.is_err() || tree(object.unwrap().get("a").unwrap(), &Place::ROOT).is_err());
}

#[test]
fn times_can_be_written_again() {
    let time = |text: &str| {
        let json = format!("{{\"a\":\"{text}\"}}");
        read(&json).and_then(|object| object.time("a")).ok().flatten()
    };
    let shown = time("2026-01-31T13:00:00.123456+01:00").unwrap().to_string();
    assert_eq!(shown, "2026-01-31T12:00:00.123Z");
    for fine in ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "1969-12-31T23:59:59.9999Z"] {
        let time = time(fine).unwrap();
        assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
    }
    for bad in ["9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00", "soon", "2026-01-31"] {
        assert_eq!(time(bad), None, "{bad}");
    }
}

#[test]
fn places_read_well() {
    let jobs = Place::ROOT.member("jobs");
    let job = jobs.item(3);
    let url = job.member("callback");
    assert_eq!(
        (url.shown().as_str(), url.pointer().as_str()),
        ("jobs[3].callback", "/jobs/3/callback")
    );
    assert_eq!(Place::ROOT.invalid("is odd").detail, "the body is odd");
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config {
        rng_seed: proptest::test_runner::RngSeed::Fixed(2026),
        failure_persistence: None,
        ..proptest::test_runner::Config::default()
    })]

    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        if let Ok(raw) = body(&bytes) {
            let _ = Object::read(raw, &Place::ROOT, KNOWN);
            let _ = tree(raw, &Place::ROOT);
        }
    }
}
