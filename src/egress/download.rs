//! A response body that is read piece by piece, for imports.
//!
//! Must not limit sizes: the caller knows its quota. The deadline of the request holds to the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout_at};

use super::connection::Connection;
use super::error::{Phase, SendError};
use super::exchange::{Begun, broken_off, may_be_kept, texts};
use super::pool::Pool;
use super::target::Target;

enum Source {
    Open(Incoming, Connection),
    Ended,
    /// Kept apart from the end, so that half a body is never taken for a whole one.
    Failed,
}

pub struct Download {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// As announced; a chunked body announces nothing.
    pub content_length: Option<u64>,
    pub address: SocketAddr,
    source: Source,
    may_be_kept: bool,
    target: Target,
    pool: Arc<Pool>,
    until: Instant,
    deadline: Duration,
}

impl Download {
    pub(super) fn new(
        begun: Begun,
        target: Target,
        pool: Arc<Pool>,
        until: Instant,
        deadline: Duration,
    ) -> Self {
        let Begun { response, connection, .. } = begun;
        let may_be_kept = may_be_kept(&response);
        let (head, body) = response.into_parts();
        Self {
            status: head.status.as_u16(),
            headers: texts(&head.headers),
            content_length: body.size_hint().exact(),
            address: connection.address,
            source: Source::Open(body, connection),
            may_be_kept,
            target,
            pool,
            until,
            deadline,
        }
    }

    /// The next piece, or `None` at the end. Safe to give up waiting for and to ask again; after an
    /// error every further call is an error.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, SendError> {
        loop {
            let body = match &mut self.source {
                Source::Open(body, _) => body,
                Source::Ended => return Ok(None),
                Source::Failed => return Err(self.failed_before()),
            };
            let frame = match timeout_at(self.until, body.frame()).await {
                Ok(frame) => frame.transpose().map_err(|error| broken_off(&self.target, &error)),
                Err(_) => Err(SendError::Timeout { phase: Phase::Body, deadline: self.deadline }),
            };
            match frame {
                Ok(Some(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Ok(None) => {
                    let ended = std::mem::replace(&mut self.source, Source::Ended);
                    if let Source::Open(_, connection) = ended
                        && self.may_be_kept
                    {
                        self.pool.put(connection, Instant::now());
                    }
                }
                Err(error) => {
                    self.source = Source::Failed;
                    return Err(error);
                }
            }
        }
    }

    fn failed_before(&self) -> SendError {
        let host = self.target.host.to_string();
        SendError::BodyClosed { host, detail: "the download has failed before".to_owned() }
    }
}
