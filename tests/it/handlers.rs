//! The handlers at work: a real engine on SQLite, real bytes in a local folder, a real socket.
//!
//! No runner: a test claims, runs the handler and applies its product itself, so that each step
//! can be looked at.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use ringback::clock::Clock;
use ringback::egress::{Client, Policy, ScriptedResolver};
use ringback::engine::{
    Applied, Caller, Engine, NewJob, Output, Parts, Sealer, SourceName, lookup_of,
};
use ringback::files::Blobs;
use ringback::formats::Formats;
use ringback::handlers::archive::Limits;
use ringback::handlers::{self, Context, Ending, Handler, Services, Stop, context::Progress};
use ringback::ids::new_id;
use ringback::store::{Access, Store};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::machine;
use crate::support::node::bounded;

struct World {
    engine: Arc<Engine>,
    caller: Caller,
    services: Arc<Services>,
    handlers: Vec<Arc<dyn Handler>>,
    folder: TempDir,
}

impl World {
    async fn new() -> World {
        World::with(1 << 30, Limits::default()).await
    }

    async fn with(max_file_bytes: u64, archive_limits: Limits) -> World {
        let folder = tempfile::tempdir().unwrap();
        let temporary = folder.path().join("work");
        std::fs::create_dir(&temporary).unwrap();
        let url = format!("sqlite://{}", folder.path().join("r.db").display());
        let store = Store::open(&url, Access::Server).unwrap();
        let handlers = handlers::all();
        let engine = Engine::start(Parts {
            store,
            clock: Clock::system(),
            catalog: handlers::catalog(&handlers),
            formats: Formats::standard_only(),
            sealer: Sealer::new(&[7; 32]).unwrap(),
            public_url: "http://localhost".to_owned(),
            disable_after: Duration::from_secs(120 * 60 * 60),
            lane_rate: None,
            observe_batch: Box::new(|_| {}),
        });
        let engine = Arc::new(engine.await.unwrap());
        engine.beat(engine.now()).await.unwrap();
        let new = engine.create_application("test", &["*".to_owned()], None, None).await.unwrap();
        let caller = engine.authenticate(lookup_of(&new.api_key)).await.unwrap().unwrap();
        let policy = Policy { allow: vec!["127.0.0.1/32".parse().unwrap()], ..Policy::default() };
        let services = Services {
            engine: Arc::clone(&engine),
            blobs: Blobs::local(&folder.path().join("files")).unwrap(),
            egress: Client::new(policy, Arc::new(ScriptedResolver::new())),
            temporary,
            max_file_bytes,
            import_deadline: Duration::from_secs(20),
            archive_limits,
        };
        World { engine, caller, services: Arc::new(services), handlers, folder }
    }

    async fn put(&self, path: &str, content: impl Into<Vec<u8>>) -> uuid::Uuid {
        let content = bytes::Bytes::from(content.into());
        let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(content)]);
        let staged = self.services.blobs.stage(new_id(), stream, u64::MAX).await.unwrap();
        let output = Output {
            path: path.to_owned(),
            version: staged.key,
            file_id: new_id(),
            size: staged.size,
            sha256: staged.sha256_hex,
            media_type: "text/plain".to_owned(),
            acl: "public".to_owned(),
        };
        self.engine.put_file(&self.caller, output).await.unwrap().id
    }

    async fn get(&self, path: &str) -> Vec<u8> {
        let file = self.engine.find_file(self.caller.application, path).await.unwrap();
        let opened = self.services.blobs.open(file.version, None).await.unwrap();
        opened.stream.try_collect::<Vec<_>>().await.unwrap().concat()
    }

    async fn begin(&self, job_type: &str, specification: Value) -> Context {
        self.begin_with(job_type, specification, Vec::new()).await
    }

    /// Submits and claims.
    async fn begin_with(
        &self,
        job_type: &str,
        specification: Value,
        sources: Vec<SourceName>,
    ) -> Context {
        let job = NewJob {
            job_type: format!("urn:job:{job_type}"),
            specification,
            sources,
            group_id: None,
            callback: None,
            metadata: None,
            priority: 0,
            queue: "default".to_owned(),
            run_at: None,
            expires_at: None,
            max_attempts: None,
            timeout_seconds: None,
        };
        self.engine.submit(&self.caller, job, None, "request").await.unwrap();
        let batch = self.engine.claim(vec![("default".to_owned(), 1)], 1).await.unwrap();
        let claimed = batch.jobs.into_iter().next().unwrap();
        let (_, stop) = Stop::new();
        Context {
            job: claimed.job,
            secrets: claimed.secrets,
            services: Arc::clone(&self.services),
            progress: Progress::default(),
            stop,
        }
    }

    async fn work(&self, context: Context) -> Ending {
        let name = context.job.submission.job_type.clone();
        let handler = self.handlers.iter().find(|handler| handler.name() == name).unwrap();
        let ending = Arc::clone(handler).run(context).await;
        // Dropped as in the runner, before the ending is looked at.
        assert_eq!(std::fs::read_dir(&self.services.temporary).unwrap().count(), 0);
        ending
    }

    /// Runs to a success and publishes; the result's payload.
    async fn done(&self, job_type: &str, specification: Value) -> Value {
        let context = self.begin(job_type, specification).await;
        self.finish(context).await
    }

    async fn finish(&self, context: Context) -> Value {
        let (job, progress) = (Arc::new(context.job.clone()), context.progress.clone());
        let product = match self.work(context).await {
            Ending::Done(product) => product,
            Ending::Failed { failure, .. } => panic!("{failure:?}"),
            Ending::Stopped => panic!("stopped"),
        };
        assert!(progress.get() > 0.99, "{}", progress.get());
        let applied: Applied =
            self.engine.succeed(&job, product.outputs, product.render).await.unwrap();
        let result = applied.state.result.unwrap();
        serde_json::from_str(result.payload.get()).unwrap()
    }

    async fn fails(&self, job_type: &str, specification: Value) -> (String, bool, String) {
        let context = self.begin(job_type, specification).await;
        match self.work(context).await {
            Ending::Failed { failure, transient } => (failure.code, transient, failure.detail),
            Ending::Done(_) => panic!("it went well"),
            Ending::Stopped => panic!("stopped"),
        }
    }

    fn blobs(&self) -> usize {
        fn count(folder: &std::path::Path) -> usize {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
        }
        count(&self.folder.path().join("files"))
    }

    /// Staged bytes are removed by a task of their own.
    async fn has_blobs(&self, wanted: usize) {
        bounded("staged bytes to be removed", || self.blobs() == wanted).await;
    }
}

/// Asks for a stop as soon as so much is done. The switch it gives is to be kept until the work ends.
fn stop_after(
    switch: watch::Sender<bool>,
    progress: Progress,
    done: f64,
) -> JoinHandle<watch::Sender<bool>> {
    tokio::spawn(async move {
        bounded("work to be under way", || progress.get() > done).await;
        switch.send_replace(true);
        switch
    })
}

/// Answers every request with these bytes, pausing after each piece.
fn server(pieces: Vec<Vec<u8>>, pause: Duration) -> (SocketAddr, Arc<std::sync::Mutex<String>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let heard: Arc<std::sync::Mutex<String>> = Arc::default();
    let log = Arc::clone(&heard);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut buffer = [0; 4096];
            let count = socket.read(&mut buffer).unwrap_or(0);
            log.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            for piece in &pieces {
                if socket.write_all(piece).is_err() {
                    break;
                }
                std::thread::park_timeout(pause);
            }
        }
    });
    (address, heard)
}

fn answer(head: &str, body: &[u8]) -> Vec<Vec<u8>> {
    let length = body.len();
    let head = format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    vec![[head.as_bytes(), body].concat()]
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_takes_name_type_and_secrets_along() {
    let world = World::new().await;
    let head = "200 OK\r\nContent-Type: text/csv; charset=utf-8\r\n\
                Content-Disposition: attachment; filename=\"../r\u{e9}port.csv\"";
    let (address, heard) = server(answer(head, b"a,b\r\n"), Duration::ZERO);
    let context = world
        .begin(
            "import.file",
            json!({
                "sourceUrl": format!("http://{address}/x/y.bin?token=marker&a=1"),
                "destination": {"directory": "/in", "acl": "private"},
                "externalAuthorization": {"headers": {"Authorization": "Basic marker2"}},
            }),
        )
        .await;
    assert!(!context.job.submission.specification.get().contains("marker"));
    let payload = world.finish(context).await;
    assert_eq!(payload["path"], "/in/r\u{e9}port.csv");
    assert_eq!(payload["mimeType"], "text/csv");
    assert_eq!((&payload["size"], &payload["acl"]), (&json!(5), &json!("private")));
    assert_eq!(world.get("/in/r\u{e9}port.csv").await, b"a,b\r\n");
    let heard = heard.lock().unwrap().to_lowercase();
    assert!(heard.starts_with("get /x/y.bin?token=marker&a=1 http/1.1"), "{heard}");
    assert!(heard.contains("authorization: basic marker2"), "{heard}");

    let (address, _) = server(answer("200 OK", b"%PDF-1.7"), Duration::ZERO);
    for (path, end) in [("/a%20b.pdf?x", "/a b.pdf"), ("/", ".pdf")] {
        let specification = json!({
            "sourceUrl": format!("http://{address}{path}"), "destination": {"directory": "/p"},
        });
        let payload = world.done("import.file", specification).await;
        assert!(payload["path"].as_str().unwrap().ends_with(end), "{payload}");
        assert_eq!(payload["mimeType"], "application/pdf");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_fail_for_good_or_for_now() {
    let world = World::with(10, Limits::default()).await;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                   8\r\naaaaaaaa\r\n8\r\naaaaaaaa\r\n0\r\n\r\n";
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nabc";
    for (pieces, code, transient) in [
        (answer("404 Not Found", b""), "source_not_found", false),
        (answer("403 Forbidden", b""), "source_refused", false),
        (answer("503 Busy", b""), "source_unavailable", true),
        (answer("302 Found\r\nLocation: http://127.0.0.1/", b""), "source_redirects", false),
        (answer("206 Partial Content", b"a"), "source_unexpected_status", false),
        (answer("200 OK", &[b'a'; 11]), "file_too_large", false),
        (vec![chunked.into()], "file_too_large", false),
        (vec![short.into()], "body_closed", true),
        (vec![b"what?\r\n\r\n".to_vec()], "protocol_error", true),
    ] {
        let (address, _) = server(pieces, Duration::ZERO);
        let specification = json!({
            "sourceUrl": format!("http://{address}/a"), "destination": {"path": "/a"},
        });
        let (found, again, detail) = world.fails("import.file", specification).await;
        assert_eq!((found.as_str(), again), (code, transient), "{detail}");
        world.has_blobs(0).await;
    }
    let closed = machine::free_port();
    for (url, code, transient) in [
        (format!("http://127.0.0.1:{closed}/"), "connect_failed", true),
        ("http://10.0.0.1/".to_owned(), "address_private", false),
        ("http://169.254.169.254/".to_owned(), "address_forbidden", false),
    ] {
        let specification = json!({"sourceUrl": url, "destination": {"path": "/a"}});
        let (found, again, _) = world.fails("import.file", specification).await;
        assert_eq!((found.as_str(), again), (code, transient));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_stops_in_the_middle() {
    let world = World::new().await;
    let mut pieces = vec![b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec()];
    pieces.extend((0..100).map(|_| vec![b'x'; 10]));
    let (address, _) = server(pieces, Duration::from_millis(100));
    let specification =
        json!({"sourceUrl": format!("http://{address}/"), "destination": {"path": "/a"}});
    let mut context = world.begin("import.file", specification).await;
    let (switch, stop) = Stop::new();
    context.stop = stop;
    let progress = context.progress.clone();
    let _switch = stop_after(switch, progress.clone(), 0.0);
    assert!(matches!(world.work(context).await, Ending::Stopped));
    assert!(progress.get() < 1.0, "in the middle: {}", progress.get());
    world.has_blobs(0).await;
}
