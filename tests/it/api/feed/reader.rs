//! A reader of server-sent events on a bare socket, so that it can be as slow as a test wants.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::support::process::Server;

/// Longer than two signs of life are apart.
const PATIENCE: Duration = Duration::from_secs(90);

/// One block of a stream.
#[derive(Debug, Default, PartialEq)]
pub struct Block {
    /// Places in the feed are numbers.
    pub id: Option<String>,
    /// Name of the event.
    pub event: Option<String>,
    /// What it holds.
    pub data: Option<Value>,
    /// Milliseconds.
    pub retry: Option<String>,
    /// Of all comments.
    pub comment: Option<String>,
}

/// An open stream.
pub struct Reader {
    socket: BufReader<TcpStream>,
    /// What the first line says.
    pub status: u16,
    /// As sent, in lower case.
    pub headers: Vec<(String, String)>,
    /// What is left of the chunk that is being read.
    chunk: Vec<u8>,
}

impl Reader {
    /// Asks with a key; the answer's head is read, its body is not.
    #[track_caller]
    pub fn open(server: &Server, key: &str, query: &str, headers: &[(&str, &str)]) -> Reader {
        let socket = TcpStream::connect(("127.0.0.1", server.port())).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut request = format!(
            "GET /v1/events/stream{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer \
             {key}\r\nAccept: text/event-stream\r\nAccept-Encoding: gzip, br\r\n"
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        (&socket).write_all(format!("{request}\r\n").as_bytes()).expect("it reads");
        let mut socket = BufReader::new(socket);
        let mut line = || {
            let mut line = String::new();
            socket.read_line(&mut line).expect("the head of an answer");
            line.trim_end().to_owned()
        };
        let first = line();
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {first}"));
        let mut headers = Vec::new();
        loop {
            let line = line();
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        Reader { socket, status, headers, chunk: Vec::new() }
    }

    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether bytes wait at the server's end because there is no room at this end: more than the
    /// system holds is to come.
    pub fn is_behind(&self) -> bool {
        let socket = self.socket.get_ref();
        let port = |address: std::io::Result<SocketAddr>| address.expect("connected").port();
        let ends = [port(socket.peer_addr()), port(socket.local_addr())];
        let [server, client] = ends.map(|port| format!(":{port:04X}"));
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the system's sockets");
        table.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, remote, _, queues, ..] = fields.as_slice() else { return false };
            let waits = !queues.starts_with("00000000:");
            local.ends_with(&server) && remote.ends_with(&client) && waits
        })
    }

    /// The next line; nothing when the stream has ended in good order.
    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.chunk.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.chunk.drain(..=end).collect();
                return Some(String::from_utf8(line).expect("text").trim_end().to_owned());
            }
            let mut size = String::new();
            self.socket.read_line(&mut size).expect("a chunk within its time");
            let size = usize::from_str_radix(size.trim(), 16).expect("the size of a chunk");
            let mut chunk = vec![0; size + 2];
            self.socket.read_exact(&mut chunk).expect("a whole chunk");
            chunk.truncate(size);
            if size == 0 {
                assert!(self.chunk.is_empty(), "the stream ends in the middle of a line");
                return None;
            }
            self.chunk.extend(chunk);
        }
    }

    /// The next block; nothing when the stream has ended in good order.
    pub fn block(&mut self) -> Option<Block> {
        let mut block = Block::default();
        loop {
            let line = self.line()?;
            match line.split_once(':') {
                None if line.is_empty() => return Some(block),
                Some(("", comment)) => block.comment = Some(comment.trim().to_owned()),
                Some((name, value)) => {
                    let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
                    match name {
                        "id" => block.id = Some(value),
                        "event" => block.event = Some(value),
                        "retry" => block.retry = Some(value),
                        "data" => {
                            assert!(block.data.is_none(), "one line of data");
                            block.data = Some(serde_json::from_str(&value).expect("JSON"));
                        }
                        other => panic!("no field {other:?}: {line}"),
                    }
                }
                None => panic!("no field: {line}"),
            }
        }
    }

    /// The next event: its place and what it holds. Signs of life are passed over.
    #[track_caller]
    pub fn event(&mut self) -> (i64, Value) {
        loop {
            let block = self.block().expect("the stream goes on");
            let Some(data) = block.data else { continue };
            assert_eq!(block.event.as_deref(), data["type"].as_str(), "{data}");
            return (block.id.expect("an id").parse().expect("a number"), data);
        }
    }

    /// Reads to the end of the stream; the comments on the way.
    pub fn rest(&mut self) -> Vec<String> {
        let mut comments = Vec::new();
        while let Some(block) = self.block() {
            comments.extend(block.comment);
        }
        comments
    }
}
