//! What a receiver answers, and how badly.

use std::time::Duration;

/// One answer of a script.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) delay: Duration,
    pub(super) gathered: usize,
    pub(super) manner: Manner,
}

/// How the answer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// In one piece.
    Whole,
    /// In pieces of so many bytes, with a pause between them.
    Slowly(usize, Duration),
    /// Only so many bytes of the body, then the connection is closed.
    CutAfter(usize),
    /// The connection is closed instead.
    HangUp,
    /// Nothing, with the connection left open until the client goes.
    Silence,
}

impl Reply {
    /// That status, an empty body.
    pub fn status(status: u16) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            delay: Duration::ZERO,
            gathered: 0,
            manner: Manner::Whole,
        }
    }

    /// 200.
    pub fn ok() -> Reply {
        Reply::status(200)
    }

    /// Whether it says that the request was received.
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status) && self.manner == Manner::Whole
    }

    /// Reads the request and closes without an answer.
    pub fn hang_up() -> Reply {
        Reply { manner: Manner::HangUp, ..Reply::ok() }
    }

    /// Reads the request and never answers.
    pub fn silence() -> Reply {
        Reply { manner: Manner::Silence, ..Reply::ok() }
    }

    /// Adds a header. `Content-Length` is made from the body unless one is given.
    pub fn header(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    pub fn body(self, body: impl Into<Vec<u8>>) -> Reply {
        Reply { body: body.into(), ..self }
    }

    /// Waits before it answers (or hangs up).
    pub fn after(self, delay: Duration) -> Reply {
        Reply { delay, ..self }
    }

    /// Is held back until so many requests have come, and only then waits and answers. Whoever is
    /// answered has had that many under way at once.
    pub fn once_there_are(self, gathered: usize) -> Reply {
        Reply { gathered, ..self }
    }

    /// Sends the body in pieces with a pause after each.
    pub fn slowly(self, piece: usize, pause: Duration) -> Reply {
        assert!(piece > 0, "pieces have bytes");
        Reply { manner: Manner::Slowly(piece, pause), ..self }
    }

    /// Promises the whole body, sends so many bytes of it, and closes.
    pub fn cut_after(self, bytes: usize) -> Reply {
        Reply { manner: Manner::CutAfter(bytes), ..self }
    }
}
