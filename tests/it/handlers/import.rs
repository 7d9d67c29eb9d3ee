//! `import.file`: what is taken along from a source, and sources that fail, for good or for a while.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ringback::handlers::archive::Limits;
use ringback::handlers::{Ending, Stop};
use serde_json::json;

use super::{World, stop_after};
use crate::support::machine;

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
