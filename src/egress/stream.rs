//! The bytes of one connection, plain or TLS, and how much the receiver has said since the request.
//!
//! Must not know HTTP. Whether a byte has arrived decides if a request may be sent again, so it is
//! noted here, above TLS (its own records are no answer) and below HTTP (half a status line is one).
//! How many may arrive is bounded here too: HTTP lets a receiver precede its answer with any number
//! of interim ones, and a client that reads them all works for whoever sends them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::connection::MAX_HEAD_BYTES;

pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Several times the largest head, because some of the body is read before anybody has seen that
/// the head is complete.
const MOST_BEFORE_ANSWER: usize = 4 * MAX_HEAD_BYTES;

#[derive(Debug, thiserror::Error)]
#[error("more than {MOST_BEFORE_ANSWER} bytes came and no answer was among them")]
pub(super) struct TooMuchSaid;

/// What has arrived since the latest request.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Counts>);

#[derive(Default)]
struct Counts {
    bytes: AtomicUsize,
    answered: AtomicBool,
}

impl Heard {
    /// A request is about to be sent.
    pub fn clear(&self) {
        self.0.bytes.store(0, Ordering::Release);
        self.0.answered.store(false, Ordering::Release);
    }

    /// The head of the answer is here; how much of the body is read is decided elsewhere.
    pub fn answered(&self) {
        self.0.answered.store(true, Ordering::Release);
    }

    fn add(&self, bytes: usize) -> io::Result<()> {
        let before = self.0.bytes.fetch_add(bytes, Ordering::AcqRel);
        if before.saturating_add(bytes) > MOST_BEFORE_ANSWER
            && !self.0.answered.load(Ordering::Acquire)
        {
            return Err(io::Error::other(TooMuchSaid));
        }
        Ok(())
    }
}

pub(super) struct Stream {
    transport: Transport,
    heard: Heard,
}

impl Stream {
    pub fn new(transport: Transport, heard: Heard) -> Self {
        Self { transport, heard }
    }
}

/// Runs `$call` on whichever transport it is.
macro_rules! on_transport {
    ($stream:expr, $transport:ident => $call:expr) => {
        match &mut $stream.get_mut().transport {
            Transport::Plain(plain) => {
                let $transport = Pin::new(plain);
                $call
            }
            Transport::Tls(tls) => {
                let $transport = Pin::new(tls.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(on_transport!(self.as_mut(), transport => transport.poll_read(context, buffer)))?;
        Poll::Ready(self.heard.add(buffer.filled().len() - before))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_transport!(self, transport => transport.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_transport!(self, transport => transport.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_transport!(self, transport => transport.poll_shutdown(context))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_transport!(self, transport => transport.poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(plain) => plain.is_write_vectored(),
            Transport::Tls(tls) => tls.is_write_vectored(),
        }
    }
}
