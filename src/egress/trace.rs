//! How far a request came and what each step took, whether it was answered or not.
//!
//! Pure bookkeeping: must not touch sockets, and must not judge.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use super::error::{Phase, SendError};

/// A name may have thousands of addresses, and what is told of a request is stored.
const MOST_RESOLVED: usize = 64;

/// What is known of a request, as far as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// What the host's name stood for, at most 64 addresses of it, allowed or not. Empty for a host
    /// that is an address itself.
    pub resolved: Vec<IpAddr>,
    /// The one that was connected to, or tried last.
    pub address: Option<SocketAddr>,
    pub timings: Timings,
    /// An idle connection was used, so there was no connecting and no TLS.
    pub reused: bool,
    pub tls_version: Option<&'static str>,
}

/// How long each step took that was completed; `None` for the others. `first_byte` is the wait
/// from having a connection to having the response's headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    pub dns: Option<Duration>,
    pub connect: Option<Duration>,
    pub tls: Option<Duration>,
    pub first_byte: Option<Duration>,
    /// From the beginning to the end, whatever the end was.
    pub total: Duration,
}

/// A request under way. Outlives what it is told of when the deadline strikes.
pub(super) struct Progress {
    pub deadline: Instant,
    pub trace: Trace,
    began: Instant,
    phase: Phase,
    phase_began: Instant,
    allowed: Duration,
}

impl Progress {
    pub fn begin(allowed: Duration) -> Self {
        const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
        let began = Instant::now();
        Self {
            deadline: began + allowed.min(LONGEST),
            trace: Trace::default(),
            began,
            phase: Phase::Dns,
            phase_began: began,
            allowed,
        }
    }

    pub fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.phase_began = Instant::now();
    }

    /// The present phase has done what it is for.
    pub fn complete(&mut self) {
        let took = Some(self.phase_began.elapsed());
        let timings = &mut self.trace.timings;
        match self.phase {
            Phase::Dns => timings.dns = took,
            Phase::Connect => timings.connect = took,
            Phase::Tls => timings.tls = took,
            Phase::Response => timings.first_byte = took,
            Phase::Body => {}
        }
    }

    pub fn resolved(&mut self, answers: &[IpAddr]) {
        self.complete();
        self.trace.resolved = answers.iter().copied().take(MOST_RESOLVED).collect();
    }

    pub fn timed_out(&self) -> SendError {
        SendError::Timeout { phase: self.phase, deadline: self.allowed }
    }

    pub fn end(mut self) -> Trace {
        self.trace.timings.total = self.began.elapsed();
        self.trace
    }
}
