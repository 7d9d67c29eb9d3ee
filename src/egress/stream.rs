//! The bytes of one connection, plain or TLS, and whether the receiver has said anything yet.
//!
//! Must not know HTTP. Whether a byte has arrived decides if a request may be sent again, so it is
//! noted here, above TLS (its own records are no answer) and below HTTP (half a status line is one).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Set when the receiver sends its first byte, cleared before each request.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<AtomicBool>);

impl Heard {
    pub fn clear(&self) {
        self.0.store(false, Ordering::Release);
    }

    pub fn anything(&self) -> bool {
        self.0.load(Ordering::Acquire)
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
        let polled =
            on_transport!(self.as_mut(), transport => transport.poll_read(context, buffer));
        if buffer.filled().len() > before {
            self.heard.0.store(true, Ordering::Release);
        }
        polled
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
