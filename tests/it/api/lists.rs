//! Lists: filters, order, pages that stay right while rows are added, tokens.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{World, ids, import, list, noop, pack, problem, text, with};
use crate::support::database::{Database, on_both};
use crate::support::http::Client;
use crate::support::receiver::Reply;

/// Follows tokens to the end; between pages something happens.
#[track_caller]
fn walk(client: &Client, path: &str, name: &str, mut between: impl FnMut()) -> Vec<Value> {
    let mut found = Vec::new();
    let mut token = Value::Null;
    for _ in 0..200 {
        let joint = if path.contains('?') { '&' } else { '?' };
        let next = match &token {
            Value::Null => path.to_owned(),
            token => format!("{path}{joint}pageToken={}", text(token)),
        };
        let page = client.get(&next).expect(200).json();
        found.extend(list(&page, name).iter().cloned());
        token = page["nextPageToken"].clone();
        if token.is_null() {
            return found;
        }
        between();
    }
    panic!("{path} has no end");
}

#[track_caller]
fn found(world: &World, query: &str) -> Vec<String> {
    let mut found = ids(
        &json!({"jobs": walk(&world.client, &format!("/v1/jobs?{query}"), "jobs", || {})}),
        "jobs",
    );
    found.sort();
    found
}

fn sorted(ids: &[&String]) -> Vec<String> {
    let mut ids: Vec<String> = ids.iter().map(|id| (*id).clone()).collect();
    ids.sort();
    ids
}

on_both!(filters_combine_and_repeat);
fn filters_combine_and_repeat(database: Database) {
    let world = World::start(database);
    let source = world.client.put("/v1/files/src/deep/a.txt", "a").expect(201).json();
    world.receiver.on("/b", [Reply::ok().body("b")]);
    let done = text(&world.ran(&noop(0.0))["id"]);
    let packed = world.ran(&pack("/src/deep/a.txt", "/out/one.zip", "zip"));
    let output = text(&packed["result"]["payload"]["createdFileDescriptor"]["id"]);
    let packed = text(&packed["id"]);
    let imported = text(&world.ran(&import(&world.receiver.url("/b"), "/out/two.txt"))["id"]);
    let failed = text(&world.ran(&pack("/src/none", "/out/none.zip", "zip"))["id"]);
    let unpack = json!({
        "type": "urn:job:archive.extract",
        "specification": {"source": {"path": "/out/one.zip"}, "destination": {"directory": "/x"}},
    });
    let unpacked = text(&world.ran(&unpack)["id"]);
    let group = text(&world.client.post_empty("/v1/groups").expect(201).json()["id"]);
    let later = with(with(noop(0.0), "runAt", "2090-01-01T00:00:00Z"), "groupId", group.clone());
    let later = world.id_of(&later);
    let all = [&done, &packed, &imported, &failed, &unpacked, &later];
    let own = format!("urn:app:{}", world.application.id);
    let (source, none) = (text(&source["id"]), "0199f0b2-7c7e-7d51-9d6a-3b0f6f1f5a01");

    let wanted: Vec<(String, Vec<&String>)> = vec![
        (String::new(), all.to_vec()),
        ("status=error".into(), vec![&failed]),
        ("status=success".into(), vec![&done, &packed, &imported, &unpacked]),
        ("status=error&status=pending".into(), vec![&failed, &later]),
        ("type=urn:job:noop".into(), vec![&done, &later]),
        ("type=urn:job:noop&type=urn:job:import.file".into(), vec![&done, &later, &imported]),
        ("type=urn:job:noop&status=success".into(), vec![&done]),
        ("type=urn:job:never.heard".into(), vec![]),
        (format!("groupId={group}"), vec![&later]),
        (format!("groupId={group}&groupId={none}&status=pending"), vec![&later]),
        (format!("groupId={group}&status=success"), vec![]),
        (format!("issuer={own}"), all.to_vec()),
        ("issuer=urn:app:somebody".into(), vec![]),
        (format!("issuer=urn:app:somebody&issuer={own}&status=error"), vec![&failed]),
        // Sources and outputs, by name, by folder, by id.
        ("path=/src/deep/a.txt".into(), vec![&packed]),
        ("path=/out/one.zip".into(), vec![&packed, &unpacked]),
        ("path=/x/src/deep/a.txt".into(), vec![&unpacked]),
        ("path=/src/".into(), vec![&packed, &failed]),
        ("path=/src/deep/".into(), vec![&packed]),
        ("path=/out/&status=success".into(), vec![&packed, &imported, &unpacked]),
        ("path=/x/&path=/out/two.txt".into(), vec![&unpacked, &imported]),
        ("path=/sr/".into(), vec![]),
        ("path=/src/deep".into(), vec![]),
        ("path=/src/deep/a".into(), vec![]),
        ("path=/src/deep/a.txt/".into(), vec![]),
        (format!("fileId={source}"), vec![&packed]),
        (format!("fileId={output}"), vec![&packed, &unpacked]),
        (format!("fileId={output}&fileId={source}&type=urn:job:archive.extract"), vec![&unpacked]),
        (format!("fileId={none}"), vec![]),
        (format!("fileId={source}&path=/out/"), vec![&packed]),
    ];
    for (query, jobs) in wanted {
        assert_eq!(found(&world, &query), sorted(&jobs), "{query}");
        // The same when every page holds one.
        assert_eq!(found(&world, &format!("{query}&pageSize=1")), sorted(&jobs), "{query} by one");
    }
    for bad in
        ["status=done", "orderBy=id", "order=up", "path=x", "fileId=1", "groupId=", "issuer=me"]
    {
        problem(world.client.get(&format!("/v1/jobs?{bad}")), 400, "invalid_request");
    }
    problem(world.client.get("/v1/jobs?state=error"), 400, "unknown_field");
}

on_both!(pages_have_neither_gaps_nor_repeats_while_jobs_come);
fn pages_have_neither_gaps_nor_repeats_while_jobs_come(database: Database) {
    let world = World::start(database);
    let batch = |count: usize| {
        let jobs: Vec<Value> = (0..count).map(|_| noop(0.0)).collect();
        ids(&world.client.post("/v1/jobs/batch", &json!({"jobs": jobs})).expect(202).json(), "jobs")
    };
    let mut there = Vec::new();
    for _ in 0..5 {
        there.extend(batch(5));
    }
    // All final, so that only new ones move in an order by the last change.
    for id in &there {
        world.finished(id);
    }
    for order_by in ["dateCreated", "dateUpdated"] {
        for order in ["asc", "desc"] {
            let path = format!("/v1/jobs?pageSize=4&orderBy={order_by}&order={order}");
            let jobs = walk(&world.client, &path, "jobs", || {
                for id in batch(2) {
                    world.finished(&id);
                }
            });
            let ids: Vec<String> = jobs.iter().map(|job| text(&job["id"])).collect();
            let distinct: HashSet<&String> = ids.iter().collect();
            assert_eq!(distinct.len(), ids.len(), "{path}");
            let missing: Vec<_> = there.iter().filter(|id| !distinct.contains(id)).collect();
            assert!(missing.is_empty(), "{path}: {missing:?}");
            let mut dates: Vec<String> = jobs.iter().map(|job| text(&job[order_by])).collect();
            if order == "desc" {
                dates.reverse();
            }
            assert!(dates.is_sorted(), "{path}: {dates:?}");
            if order == "desc" {
                assert_eq!(ids.len(), there.len(), "what came later is above the first page");
            }
            // Those that came in between are there for the next walk.
            there = found(&world, "pageSize=100");
        }
    }
}

on_both!(pages_have_bounds_and_tokens_their_list);
fn pages_have_bounds_and_tokens_their_list(database: Database) {
    let world = World::start(database);
    let other = world.other();
    let jobs: Vec<Value> =
        (0..101).map(|_| with(noop(0.0), "runAt", "2090-01-01T00:00:00Z")).collect();
    world.client.post("/v1/jobs/batch", &json!({"jobs": jobs})).expect(202);
    let page = |query: &str| world.client.get(&format!("/v1/jobs?{query}")).expect(200).json();
    assert_eq!(list(&page(""), "jobs").len(), 20);
    assert_eq!(list(&page("pageSize=1"), "jobs").len(), 1);
    let full = page("pageSize=100");
    assert_eq!(list(&full, "jobs").len(), 100);
    for bad in ["0", "101", "-1", "x", ""] {
        problem(world.client.get(&format!("/v1/jobs?pageSize={bad}")), 400, "invalid_request");
    }

    let token = text(&full["nextPageToken"]);
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    assert_eq!(list(&page(&format!("pageToken={token}")), "jobs").len(), 1, "a size may change");
    let mut changed = token.clone().into_bytes();
    changed[token.len() / 2] ^= 1;
    let changed = String::from_utf8(changed).expect("still ASCII");
    for (client, query) in [
        (&world.client, format!("pageToken={changed}")),
        (&world.client, format!("pageToken={}", &token[..token.len() - 4])),
        (&world.client, "pageToken=abc".to_owned()),
        (&world.client, format!("pageToken={token}&status=pending")),
        (&world.client, format!("pageToken={token}&order=asc")),
        (&world.client, format!("pageToken={token}&orderBy=dateUpdated")),
        (&other, format!("pageToken={token}")),
    ] {
        problem(client.get(&format!("/v1/jobs?{query}")), 400, "page_token_invalid");
    }
    for list in ["files", "deliveries"] {
        let answer = world.client.get(&format!("/v1/{list}?pageToken={token}"));
        problem(answer, 400, "page_token_invalid");
    }
}

on_both!(files_and_deliveries_have_pages_too);
fn files_and_deliveries_have_pages_too(database: Database) {
    let world = World::start(database);
    for number in 0..7 {
        world.client.put(&format!("/v1/files/a/{number}"), "x").expect(201);
    }
    world.client.put("/v1/files/b/1", "x").expect(201);
    let mut more = 0;
    let files = walk(&world.client, "/v1/files?prefix=/a/&pageSize=2", "files", || {
        more += 1;
        world.client.put(&format!("/v1/files/a/3{more}"), "x").expect(201);
    });
    let mut paths: Vec<String> = files.iter().map(|file| text(&file["path"])).collect();
    assert!(paths.is_sorted(), "{paths:?}");
    paths.dedup();
    assert_eq!(paths.len(), files.len());
    assert!((0..7).all(|number| paths.contains(&format!("/a/{number}"))), "{paths:?}");
    let all = world.client.get("/v1/files?pageSize=100").expect(200).json();
    assert_eq!(list(&all, "files").len(), 8 + more);
    problem(world.client.get("/v1/files?prefix=a"), 400, "invalid_request");

    world.receiver.on("/gone", [Reply::status(410)]);
    let told = |path: &str| with(noop(0.0), "callbackUrl", world.receiver.url(path));
    let jobs: Vec<String> = (0..5).map(|_| text(&world.ran(&told("/fine"))["id"])).collect();
    let refused = text(&world.ran(&told("/gone"))["id"]);
    world.receiver.wait_for(6, super::PATIENCE);
    crate::support::wait::eventually("all deliveries have ended", super::PATIENCE, || {
        let live = world.client.get("/v1/deliveries?status=pending&status=sending").expect(200);
        list(&live.json(), "deliveries").is_empty().then_some(())
    });
    let walked = walk(&world.client, "/v1/deliveries?pageSize=2", "deliveries", || {});
    let told: Vec<String> = walked.iter().map(|delivery| text(&delivery["jobId"])).collect();
    let mut newest_first = jobs.clone();
    newest_first.push(refused.clone());
    newest_first.reverse();
    assert_eq!(told, newest_first);
    let delivered = world.client.get("/v1/deliveries?status=delivered").expect(200).json();
    assert_eq!(list(&delivered, "deliveries").len(), 5);
    let one = world.client.get(&format!("/v1/deliveries?jobId={refused}")).expect(200).json();
    let one = &list(&one, "deliveries")[0];
    assert!(!["delivered", "pending"].contains(&text(&one["status"]).as_str()), "{one}");
    let both = format!("/v1/deliveries?jobId={refused}&status=delivered");
    assert_eq!(world.client.get(&both).expect(200).json()["deliveries"], json!([]));
    problem(world.client.get("/v1/deliveries?status=late"), 400, "invalid_request");
}
