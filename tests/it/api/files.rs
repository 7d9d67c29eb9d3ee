//! Files over HTTP: streamed in, served with ranges and tags, versions, and what jobs make of them.

use std::fs;

use ringback::clock::Clock;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{World, list, noise, pack, problem, text, with};
use crate::support::database::{Database, on_both};
use crate::support::receiver::Reply;

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The most memory that the server has held so far.
fn peak_kilobytes(world: &World) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", world.server.pid()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

on_both!(a_large_file_streams_through);
fn a_large_file_streams_through(database: Database) {
    const LARGE: usize = 128 << 20;
    let world = World::start_with(database, &["--max-file-bytes", "136000000"]);
    world.client.put("/v1/files/small", "warm").expect(201);
    world.client.get("/v1/files/small").expect(200);
    let before = peak_kilobytes(&world);
    let large = noise(LARGE);
    let stored = world.client.put("/v1/files/large.bin", large.clone()).expect(201).json();
    assert_eq!((&stored["size"], &stored["hash"]), (&json!(LARGE), &json!(hash(&large))));
    let read = world.client.get("/v1/files/large.bin").expect(200);
    assert!(read.body == large);
    // What is under way at once, and what the allocator takes for it: half of that as a rule.
    let grown = peak_kilobytes(&world).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} kB more for a file of {LARGE} bytes");

    // Beyond the cap, said beforehand or found out on the way, nothing is kept.
    let over = world.client.put("/v1/files/over", noise(136_000_001));
    problem(over, 413, "payload_too_large");
    problem(world.client.get("/v1/files/over"), 404, "not_found");
}

on_both!(a_file_is_served_as_http_has_it);
fn a_file_is_served_as_http_has_it(database: Database) {
    let world = World::start(database);
    let put = world.client.request("PUT", "/v1/files/a%20b/c.csv?acl=public");
    let answer = put.header("content-type", "text/csv; charset=utf-8").body("0123456789").send();
    let file = answer.clone().expect(201).json();
    let location = format!("{}/v1/files/a%20b/c.csv", world.server.base_url());
    assert_eq!(answer.header("location"), Some(location.as_str()));
    assert_eq!((&file["path"], &file["acl"]), (&json!("/a b/c.csv"), &json!("public")));
    assert_eq!((&file["size"], &file["type"]), (&json!(10), &json!("-")));
    assert_eq!(file["hash"], hash(b"0123456789"));
    assert_eq!(file["urn"], format!("urn:file:{}", text(&file["id"])));
    assert!(text(&file["mimeType"]).starts_with("text/csv"), "{file}");

    let whole = world.client.get(&location).expect(200);
    assert_eq!(whole.text(), "0123456789");
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    let tag = whole.header("etag").expect("a tag").to_owned();
    let head = world.client.head(&location).expect(200);
    assert!(head.body.is_empty());
    for name in ["content-length", "content-type", "etag", "last-modified", "repr-digest"] {
        assert!(whole.header(name).is_some(), "{name}");
        assert_eq!(head.header(name), whole.header(name), "{name}");
    }
    let ask = |method: &str, headers: &[(&str, &str)]| {
        let request = world.client.request(method, &location);
        headers.iter().fold(request, |request, (name, value)| request.header(name, value)).send()
    };
    for (range, part, content_range) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
        ("bytes=-99", "0123456789", "bytes 0-9/10"),
    ] {
        let answer = ask("GET", &[("range", range)]).expect(206);
        assert_eq!(
            (answer.text().as_str(), answer.header("content-range")),
            (part, Some(content_range))
        );
        let head = ask("HEAD", &[("range", range)]);
        assert_eq!((head.status, head.header("content-range")), (206, Some(content_range)));
    }
    let nothing = ask("GET", &[("range", "bytes=10-")]);
    assert_eq!(nothing.header("content-range"), Some("bytes */10"));
    problem(nothing, 416, "range_not_satisfiable");
    for odd in ["bytes=1-2,4-5", "lines=1-2", "bytes=b"] {
        assert_eq!(ask("GET", &[("range", odd)]).expect(200).text(), "0123456789");
    }
    let joined = [("range", "bytes=0-1"), ("if-range", tag.as_str())];
    assert_eq!(ask("GET", &joined).expect(206).text(), "01");
    ask("GET", &[("range", "bytes=0-1"), ("if-range", "\"other\"")]).expect(200);
    for method in ["GET", "HEAD"] {
        let unchanged = ask(method, &[("if-none-match", &tag)]).expect(304);
        assert!(unchanged.body.is_empty() && unchanged.header("etag") == Some(&tag));
    }
    ask("GET", &[("if-none-match", "\"other\"")]).expect(200);

    // Other ways to write the same path, and paths that nobody may have.
    world.client.get("/v1/files/a%20b%2Fc.csv").expect(200);
    world.client.get("/v1/files//a%20b//c.csv").expect(200);
    for bad in ["a/%2e%2e/b", "a%00", "a%5Cb", "%FF", "a/"] {
        problem(world.client.put(&format!("/v1/files/{bad}"), "x"), 400, "invalid_request");
    }
    problem(world.client.put("/v1/files/x?acl=all", "x"), 400, "invalid_request");
    world.client.delete(&location).expect(204);
    problem(world.client.get(&location), 404, "not_found");
    problem(world.client.delete(&location), 404, "not_found");
    assert_eq!(world.client.head(&location).expect(404).body, b"");
}

on_both!(a_pinned_job_reads_the_version_it_was_given);
fn a_pinned_job_reads_the_version_it_was_given(database: Database) {
    let world = World::start(database);
    let old = world.client.put("/v1/files/doc.txt", "old").expect(201).json();
    let run_at = Clock::system().now().plus_millis(1_500).to_string();
    let submit =
        |path: &str| world.id_of(&with(pack("/doc.txt", path, "tar"), "runAt", run_at.clone()));
    let before = submit("/before.tar");
    let new = world.client.put("/v1/files/doc.txt", "newer").expect(200).json();
    assert_eq!((&new["id"], &new["dateCreated"]), (&old["id"], &old["dateCreated"]));
    assert_ne!((&new["versionId"], &new["hash"]), (&old["versionId"], &old["hash"]));
    assert_eq!(world.client.get("/v1/files/doc.txt").text(), "newer");
    let after = submit("/after.tar");
    world.client.delete("/v1/files/doc.txt").expect(204);
    for (id, content) in [(before, "old"), (after, "newer")] {
        let job = world.finished(&id);
        assert_eq!(job["status"], "success", "{job}");
        let path = text(&job["result"]["payload"]["path"]);
        let archive = world.client.get(&format!("/v1/files{path}")).expect(200).body;
        let holds = |wanted: &str| {
            // A tar holds small files as they are, padded with zeros.
            archive.windows(wanted.len() + 1).any(|piece| piece == format!("{wanted}\0").as_bytes())
        };
        assert!(holds(content), "{path}");
    }
}

on_both!(archives_go_there_and_back_over_http);
fn archives_go_there_and_back_over_http(database: Database) {
    let world = World::start(database);
    let binary = noise(300_000);
    world.client.put("/v1/files/in/a.txt", "hello").expect(201);
    world.client.put("/v1/files/in/b.bin", binary.clone()).expect(201);
    for (kind, report) in [("zip", "csv"), ("tar", "json"), ("tar.gz", "csv"), ("tar.bz2", "json")]
    {
        let create = json!({
            "type": "urn:job:archive.create",
            "specification": {
                "sources": [{"path": "/in/a.txt", "pathInArchive": "t/a.txt"}, {"path": "/in/b.bin"}],
                "destination": {"directory": "/made", "acl": "private"},
                "archiveType": kind,
            },
        });
        let made = world.ran(&create);
        assert_eq!(made["status"], "success", "{made}");
        let path = format!("/made/{}.{kind}", text(&made["id"]));
        assert_eq!(made["result"]["payload"]["path"], path.as_str());
        let archive = world.client.get(&format!("/v1/files{path}")).expect(200);
        let descriptor = &made["result"]["payload"]["createdFileDescriptor"];
        assert_eq!(descriptor["hash"], hash(&archive.body));
        let size = descriptor["size"].as_u64().and_then(|size| usize::try_from(size).ok());
        assert_eq!(size, Some(archive.body.len()));

        // Out into the world and in again, and then unpacked: told by content, not by name.
        let served = format!("/served/{kind}");
        world.receiver.on(&served, [Reply::ok().body(archive.body)]);
        let import = super::import(&world.receiver.url(&served), &format!("/back/{kind}.dat"));
        let imported = world.ran(&import);
        assert_eq!(imported["status"], "success", "{imported}");
        assert_eq!(imported["result"]["payload"]["hash"], descriptor["hash"]);
        let extract = json!({
            "type": "urn:job:archive.extract",
            "specification": {
                "source": {"fileId": imported["result"]["payload"]["id"]},
                "destination": {"directory": format!("/out/{kind}")},
                "extractedFilesReport": {
                    "destination": {"path": format!("/reports/{kind}")}, "format": report,
                },
            },
        });
        let unpacked = world.ran(&extract);
        assert_eq!(unpacked["status"], "success", "{unpacked}");
        assert_eq!(unpacked["result"]["payload"]["files"], 2);
        let out =
            |path: &str| world.client.get(&format!("/v1/files/out/{kind}/{path}")).expect(200);
        assert_eq!(out("t/a.txt").text(), "hello");
        assert!(out("in/b.bin").body == binary);
        check_report(&world, kind, report, &hash(&binary));
    }
    let files = world.client.get("/v1/files?prefix=/out/&pageSize=100").expect(200).json();
    assert_eq!(list(&files, "files").len(), 8);
}

#[track_caller]
fn check_report(world: &World, kind: &str, format: &str, hash: &str) {
    let report = world.client.get(&format!("/v1/files/reports/{kind}")).expect(200);
    let path = format!("/out/{kind}/in/b.bin");
    if format == "csv" {
        assert_eq!(report.header("content-type"), Some("text/csv"));
        let line = report.text().lines().find(|line| line.starts_with(&path)).map(str::to_owned);
        let line = line.unwrap_or_else(|| panic!("{path} is not in {}", report.text()));
        assert!(line.contains(",300000,") && line.contains(hash), "{line}");
    } else {
        assert_eq!(report.header("content-type"), Some("application/json"));
        let report = report.json();
        let entries: &Vec<Value> = report.as_array().expect("a list");
        let entry = entries.iter().find(|entry| entry.to_string().contains(&path));
        let entry = entry.unwrap_or_else(|| panic!("{path} is not in {report}"));
        let file = world.client.get(&format!("/v1/files?prefix={path}")).expect(200).json();
        assert_eq!(entry["fileId"], file["files"][0]["id"]);
        assert!(entry.to_string().contains(hash), "{entry}");
    }
}
