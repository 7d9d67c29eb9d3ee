//! `archive.create` and `archive.extract`: what comes out again, what fails and how, what is left behind.

use std::sync::Arc;

use ringback::engine::SourceName;
use ringback::handlers::archive::Limits;
use ringback::handlers::{Ending, Stop};
use serde_json::{Value, json};

use super::{World, stop_after};
use crate::support::node::bounded;

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    });
    bytes.take(length).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_packed_comes_out_again_in_every_format() {
    let world = World::new().await;
    let large = noise(3_000_000);
    world.put("/in/a.txt", "hello").await;
    let empty = world.put("/in/empty", "").await;
    world.put("/in/large.bin", large.clone()).await;
    for kind in ["zip", "tar", "tar.gz", "tar.bz2"] {
        let context = world
            .begin(
                "archive.create",
                json!({
                    "sources": [
                        {"path": "/in/a.txt", "pathInArchive": "renamed/b.txt"},
                        {"fileId": empty},
                        {"path": "/in/large.bin"},
                    ],
                    "destination": {"directory": "/archives", "acl": "private"},
                    "archiveType": kind,
                }),
            )
            .await;
        let path = format!("/archives/{}.{kind}", context.job.id);
        // Pinned at submission: what comes later is not packed.
        world.put("/in/a.txt", "later").await;
        let payload = world.finish(context).await;
        world.put("/in/a.txt", "hello").await;
        assert_eq!(payload["path"], path);
        assert_eq!(payload["acl"], "private");
        assert_eq!(payload["createdFileDescriptor"]["path"], path);
        assert_eq!(payload["createdFileDescriptor"]["hash"], payload["hash"]);

        let out = format!("/out/{kind}");
        let payload = world
            .done(
                "archive.extract",
                json!({
                    "source": {"path": path},
                    "destination": {"directory": out},
                    "extractedFilesReport": {
                        "destination": {"path": format!("{out}.csv")}, "format": "csv",
                    },
                }),
            )
            .await;
        assert_eq!((&payload["files"], &payload["bytes"]), (&json!(3), &json!(3_000_005)));
        assert_eq!(payload["reportFileDescriptor"]["mimeType"], "text/csv");
        assert_eq!(payload["extractedFilesReport"]["format"], "csv");
        assert_eq!(world.get(&format!("{out}/renamed/b.txt")).await, b"hello");
        assert_eq!(world.get(&format!("{out}/in/empty")).await, b"");
        assert!(world.get(&format!("{out}/in/large.bin")).await == large);
        let report = String::from_utf8(world.get(&format!("{out}.csv")).await).unwrap();
        let path = format!("{out}/in/empty");
        let file = world.engine.find_file(world.caller.application, &path).await.unwrap();
        let line = format!("{},0,{},{},{}\r\n", file.path, file.mime_type, file.hash, file.id);
        assert!(report.contains(&line), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_knows_ids_that_stay() {
    let world = World::new().await;
    let kept = world.put("/out/a", "old").await;
    world.put("/a", "new").await;
    let create = json!({
        "destination": {"path": "/a.tar"}, "archiveType": "tar", "sources": [{"path": "/a"}],
    });
    world.done("archive.create", create).await;
    let payload = world
        .done(
            "archive.extract",
            json!({
                "source": {"path": "/a.tar"},
                "destination": {"path": "/out"},
                "extractedFilesReport": {"destination": {"directory": "/r"}, "format": "json"},
            }),
        )
        .await;
    let path = payload["reportFileDescriptor"]["path"].as_str().unwrap();
    assert!(path.starts_with("/r/") && path.ends_with(".json"), "{path}");
    let report: Value = serde_json::from_slice(&world.get(path).await).unwrap();
    assert_eq!(report[0]["fileId"], kept.to_string());
    assert_eq!(world.get("/out/a").await, b"new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_files_and_sources_outside() {
    let world = World::new().await;
    let mut sources = Vec::new();
    for number in 0..300 {
        let path = format!("/n/{number}");
        world.put(&path, vec![b'x'; number]).await;
        sources.push(SourceName { path: Some(path), file_id: None });
    }
    let create = json!({"destination": {"path": "/n.zip"}, "archiveType": "zip"});
    let context = world.begin_with("archive.create", create, sources).await;
    world.finish(context).await;
    let extract = json!({"source": {"path": "/n.zip"}, "destination": {"directory": "/m"}});
    let payload = world.done("archive.extract", extract).await;
    assert_eq!(payload["files"], 300);
    for number in [0, 1, 299] {
        assert_eq!(world.get(&format!("/m/n/{number}")).await.len(), number);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archive_failures_say_what_and_leave_nothing() {
    let world = World::with(100_000, Limits { max_entries: 2, ..Limits::default() }).await;
    world.put("/plain", "this is no archive").await;
    world.put("/noise", noise(120_000)).await;
    let create = |source: &str| {
        json!({
            "sources": [{"path": source}], "destination": {"path": "/o"}, "archiveType": "tar",
        })
    };
    let extract =
        |source: &str| json!({"source": {"path": source}, "destination": {"directory": "/o"}});
    let (code, transient, detail) = world.fails("archive.create", create("/gone")).await;
    assert_eq!((code.as_str(), transient), ("source_not_found", false));
    assert!(detail.contains("/gone"), "{detail}");
    let (code, transient, detail) = world.fails("archive.create", create("/noise")).await;
    assert_eq!((code.as_str(), transient), ("too_large", false));
    assert!(detail.contains("100000"), "{detail}");
    let (code, ..) = world.fails("archive.extract", extract("/gone")).await;
    assert_eq!(code, "source_not_found");
    let (code, transient, _) = world.fails("archive.extract", extract("/plain")).await;
    assert_eq!((code.as_str(), transient), ("not_an_archive", false));

    for name in ["/1", "/2", "/3"] {
        world.put(name, "x").await;
    }
    let three = json!({
        "sources": [{"path": "/1"}, {"path": "/2"}, {"path": "/3"}],
        "destination": {"path": "/three.zip"}, "archiveType": "zip",
    });
    world.done("archive.create", three).await;
    let before = world.blobs();
    let (code, transient, _) = world.fails("archive.extract", extract("/three.zip")).await;
    assert_eq!((code.as_str(), transient), ("too_large", false));
    world.has_blobs(before).await;

    // Bytes that somebody removed from the store.
    let context = world.begin("archive.create", create("/1")).await;
    let version = context.job.submission.sources[0].version.unwrap();
    world.services.blobs.delete(version).await.unwrap();
    let Ending::Failed { failure, transient } = world.work(context).await else { panic!() };
    assert_eq!((failure.code.as_str(), transient), ("blob_not_found", false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archive_work_stops_in_the_middle() {
    let world = World::new().await;
    world.put("/big", vec![0; 400_000_000]).await;
    let specification = |kind: &str| {
        json!({
            "sources": [{"path": "/big"}], "destination": {"path": "/o"}, "archiveType": kind,
        })
    };
    let before = world.blobs();
    let mut context = world.begin("archive.create", specification("tar.bz2")).await;
    let (switch, stop) = Stop::new();
    context.stop = stop;
    let progress = context.progress.clone();
    let _switch = stop_after(switch, progress.clone(), 0.0);
    let ending = world.work(context).await;
    assert!(matches!(ending, Ending::Stopped));
    assert!(progress.get() < 1.0, "in the middle: {}", progress.get());
    world.has_blobs(before).await;

    world.done("archive.create", specification("tar")).await;
    let before = world.blobs();
    let extract = json!({"source": {"path": "/o"}, "destination": {"directory": "/x"}});
    let mut context = world.begin("archive.extract", extract).await;
    let (switch, stop) = Stop::new();
    context.stop = stop;
    let progress = context.progress.clone();
    let _switch = stop_after(switch, progress.clone(), 0.2);
    let ending = world.work(context).await;
    assert!(matches!(ending, Ending::Stopped));
    assert!(progress.get() < 1.0, "in the middle: {}", progress.get());
    world.has_blobs(before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abandoned_work_cleans_up_after_itself() {
    let world = World::new().await;
    world.put("/big", noise(60_000_000)).await;
    let before = world.blobs();
    let specification = json!({
        "sources": [{"path": "/big"}], "destination": {"path": "/o"}, "archiveType": "tar.bz2",
    });
    let context = world.begin("archive.create", specification).await;
    let handler = world.handlers.iter().find(|h| h.name() == "urn:job:archive.create").unwrap();
    let progress = context.progress.clone();
    let work = Arc::clone(handler).run(context);
    tokio::select! {
        _ = work => panic!("it is through before it is abandoned"),
        () = bounded("the first progress", || progress.get() > 0.0) => {}
    }
    let empty = || std::fs::read_dir(&world.services.temporary).unwrap().count() == 0;
    bounded("work files to be removed", empty).await;
    world.has_blobs(before).await;
}
