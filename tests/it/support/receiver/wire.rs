//! HTTP/1.1 on a socket, as much of it as our own client speaks: keep-alive, `Content-Length`.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use super::reply::{Manner, Reply};
use super::{Received, Shared};

/// Gives every connection a thread, until the receiver closes.
pub(super) fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let mut state = shared.lock();
        if state.closing {
            return;
        }
        let number = state.connections;
        state.connections += 1;
        state.open.insert(number, stream.try_clone().expect("a second handle"));
        drop(state);
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let _the_client_went = converse(&stream, &shared);
            // Explicitly, because the second handle would keep the connection open.
            let _may_be_closed_already = stream.shutdown(Shutdown::Both);
            shared.lock().open.remove(&number);
        });
    }
}

fn converse(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let request = match read_request(&mut reader) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(error) => {
                if error.kind() == ErrorKind::InvalidData {
                    shared.lock().complaints.push(error.to_string());
                }
                return Err(error);
            }
        };
        let is_last = request.headers.get("connection").is_some_and(|value| value == "close");
        let is_head = request.method == "HEAD";
        let (received, reply) = record(request, shared);
        if !shared.gather(reply.gathered) || !shared.pause(reply.delay) {
            return Ok(());
        }
        if !reply.delay.is_zero() {
            received.left.store(is_gone(stream)?, Ordering::SeqCst);
        }
        if !answer(stream, &mut reader, &reply, is_head, shared)? {
            return Ok(());
        }
        if is_last {
            return Ok(());
        }
    }
}

struct Request {
    method: String,
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Puts a request into the log and asks the script for the answer.
fn record(request: Request, shared: &Shared) -> (Arc<Received>, Reply) {
    let arrived = Instant::now();
    let Request { method, path, headers, body } = request;
    let mut state = shared.lock();
    let mut received = Received {
        number: state.log.len(),
        arrived,
        method,
        path,
        headers,
        body,
        signature: Err("the receiver knows no secret".to_owned()),
        left: AtomicBool::new(false),
    };
    for secret in &state.secrets {
        received.signature = received.verify(secret);
        if received.signature.is_ok() {
            break;
        }
    }
    let received = Arc::new(received);
    state.log.push(Arc::clone(&received));
    let path = received.path.split('?').next().unwrap_or_default();
    let reply = match state.scripts.get_mut(path) {
        Some(script) => script(&received),
        None => state.otherwise.as_mut().map_or_else(Reply::ok, |script| script(&received)),
    };
    drop(state);
    shared.changed.notify_all();
    (received, reply)
}

/// Whether the client has closed its end.
fn is_gone(stream: &TcpStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    Ok(match peeked {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    })
}

fn nonsense(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}

/// The next request; `None` when the client has closed between two.
fn read_request(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut parts = line.split_whitespace();
    let (Some(method), Some(path), Some("HTTP/1.1"), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(cut_or(&line, "no request line"));
    };
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut headers = HeaderMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line == "\r\n" {
            break;
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(cut_or(&line, "no header"));
        };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| cut_or(&line, "name"))?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| cut_or(&line, "value"))?;
        headers.append(name, value);
    }
    if headers.contains_key("transfer-encoding") {
        return Err(nonsense(format!("{method} {path}: a body without Content-Length")));
    }
    let length = match headers.get("content-length") {
        None => 0,
        Some(value) => {
            let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
            parsed.ok_or_else(|| nonsense(format!("Content-Length: {value:?}")))?
        }
    };
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { method, path, headers, body }))
}

/// A line without its end is a client that was killed, which is nobody's mistake.
fn cut_or(line: &str, what: &str) -> io::Error {
    if line.ends_with('\n') {
        nonsense(format!("{what}: {line:?}"))
    } else {
        ErrorKind::UnexpectedEof.into()
    }
}

/// Answers; whether the connection stays open.
fn answer(
    mut stream: &TcpStream,
    reader: &mut BufReader<&TcpStream>,
    reply: &Reply,
    is_head: bool,
    shared: &Shared,
) -> io::Result<bool> {
    match reply.manner {
        Manner::HangUp => return Ok(false),
        Manner::Silence => {
            // Returns when the client goes or the receiver closes.
            let _nothing = reader.read(&mut [0])?;
            return Ok(false);
        }
        Manner::Whole | Manner::Slowly(..) | Manner::CutAfter(_) => {}
    }
    let mut text = format!("HTTP/1.1 {} Scripted\r\n", reply.status);
    let given =
        |wanted: &str| reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    if !given("content-length") && !matches!(reply.status, 204 | 304) {
        text.push_str(&format!("content-length: {}\r\n", reply.body.len()));
    }
    for (name, value) in &reply.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let body: &[u8] = if is_head { &[] } else { &reply.body };
    let mut bytes = text.into_bytes();
    match reply.manner {
        Manner::Slowly(piece, pause) => {
            stream.write_all(&bytes)?;
            for piece in body.chunks(piece) {
                stream.write_all(piece)?;
                if !shared.pause(pause) {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Manner::CutAfter(length) => {
            bytes.extend_from_slice(&body[..length.min(body.len())]);
            stream.write_all(&bytes)?;
            Ok(false)
        }
        _ => {
            bytes.extend_from_slice(body);
            stream.write_all(&bytes)?;
            Ok(true)
        }
    }
}
