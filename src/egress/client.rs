//! The door: check a URL, vet it with DNS, send a request, open a download.
//!
//! Must not know what answers mean to anybody. Nothing here keeps a verdict: each request is judged
//! anew, text and addresses.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::RootCertStore;

use super::connection::{Dial, Opener, SystemDialer};
use super::download::Download;
use super::error::{Phase, SendError};
use super::exchange::{self, Answer, Begun, Outgoing, Partial, Prepared, Sent};
use super::policy::Policy;
use super::pool::Pool;
use super::refusal::Refusal;
use super::resolver::Resolver;
use super::target::{Host, Target, loopback};
use super::tls::Tls;
use super::trace::Progress;

/// How long a caller who registers a URL waits for its name to resolve.
const VETTING_TIME: Duration = Duration::from_secs(5);

/// Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    policy: Policy,
    resolver: Arc<dyn Resolver>,
    opener: Opener,
    pool: Arc<Pool>,
}

/// A URL that may be called now, and the addresses this was decided for.
#[derive(Clone, Debug)]
pub struct Vetted {
    pub target: Target,
    pub addresses: Vec<SocketAddr>,
}

impl Client {
    pub fn new(policy: Policy, resolver: Arc<dyn Resolver>) -> Self {
        Self::with_dialer(policy, resolver, Arc::new(SystemDialer))
    }

    /// With another way to open sockets. The dialer is trusted: it gets judged addresses only, and
    /// where it really connects to is its own affair.
    pub fn with_dialer(policy: Policy, resolver: Arc<dyn Resolver>, dialer: Arc<dyn Dial>) -> Self {
        Self::assemble(policy, resolver, dialer, Tls::with_system_roots())
    }

    /// Trusting these roots instead of the system's.
    pub fn with_roots(
        policy: Policy,
        resolver: Arc<dyn Resolver>,
        dialer: Arc<dyn Dial>,
        roots: RootCertStore,
    ) -> Result<Self, String> {
        Ok(Self::assemble(policy, resolver, dialer, Tls::with_roots(roots)?))
    }

    fn assemble(
        policy: Policy,
        resolver: Arc<dyn Resolver>,
        dialer: Arc<dyn Dial>,
        tls: Tls,
    ) -> Self {
        let opener = Opener { dialer, tls };
        Self { shared: Arc::new(Shared { policy, resolver, opener, pool: Arc::default() }) }
    }

    /// The static half of the verdict: no DNS, so it costs nothing and cannot fail for a while.
    pub fn check_url(&self, url: &str) -> Result<Target, Refusal> {
        Target::parse(url, &self.shared.policy)
    }

    /// The whole verdict, as every request will meet it.
    pub async fn vet(&self, url: &str) -> Result<Vetted, SendError> {
        let target = self.check_url(url)?;
        let deadline = Instant::now() + VETTING_TIME;
        let answers = timeout_at(deadline, self.shared.resolve(&target))
            .await
            .map_err(|_| SendError::Timeout { phase: Phase::Dns, deadline: VETTING_TIME })??;
        let addresses = self.shared.judge(&target, answers)?;
        Ok(Vetted { target, addresses })
    }

    /// Sends a request and reads its answer. The trace is there whatever the result.
    pub async fn send(&self, outgoing: Outgoing) -> Sent {
        let mut progress = Progress::begin(outgoing.deadline);
        let mut partial = None;
        let result = self.answer(outgoing, &mut progress, &mut partial).await;
        let begun = partial.filter(|_| result.is_err()).map(|partial| partial.end(true));
        Sent { result, begun, trace: progress.end() }
    }

    async fn answer(
        &self,
        outgoing: Outgoing,
        progress: &mut Progress,
        partial: &mut Option<Partial>,
    ) -> Result<Answer, SendError> {
        let cap = outgoing.body_cap;
        let shared = &self.shared;
        let mut prepared = Prepared::new(self.check_url(&outgoing.url)?, outgoing)?;
        let answered = timeout_at(progress.deadline, async {
            let begun = shared.begin(&mut prepared, progress).await?;
            exchange::finish(begun, &prepared.target, cap, &shared.pool, progress, partial).await
        })
        .await;
        answered.unwrap_or_else(|_| Err(progress.timed_out()))
    }

    /// Sends a request and returns as soon as the response's headers are here. The same deadline
    /// goes on for the body.
    pub async fn open(&self, outgoing: Outgoing) -> Result<Download, SendError> {
        let deadline = outgoing.deadline;
        let mut progress = Progress::begin(deadline);
        let shared = &self.shared;
        let mut prepared = Prepared::new(self.check_url(&outgoing.url)?, outgoing)?;
        let until = progress.deadline;
        let begun = timeout_at(until, shared.begin(&mut prepared, &mut progress))
            .await
            .unwrap_or_else(|_| Err(progress.timed_out()))?;
        Ok(Download::new(begun, prepared.target, Arc::clone(&shared.pool), until, deadline))
    }

    #[cfg(test)]
    pub(super) fn pool(&self) -> &Pool {
        &self.shared.pool
    }
}

impl Shared {
    async fn begin(
        &self,
        prepared: &mut Prepared,
        progress: &mut Progress,
    ) -> Result<Begun, SendError> {
        let answers = self.resolve(&prepared.target).await?;
        if matches!(prepared.target.host, Host::Name(_)) {
            progress.resolved(&answers);
        }
        let judged = self.judge(&prepared.target, answers)?;
        exchange::begin(prepared, &judged, &self.policy, &self.opener, &self.pool, progress).await
    }

    /// The only question to DNS that a request asks.
    async fn resolve(&self, target: &Target) -> Result<Vec<IpAddr>, SendError> {
        let failed = |detail: String| SendError::Dns { host: target.host.to_string(), detail };
        let answers = match &target.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) if name == "localhost" => loopback(&self.policy, target.port),
            Host::Name(name) => {
                let resolved = self.resolver.resolve(name.clone()).await;
                resolved.map_err(|error| failed(error.to_string()))?
            }
        };
        if answers.is_empty() {
            return Err(failed("it has no address".to_owned()));
        }
        Ok(answers)
    }

    /// The addresses of a target, each once, all of them judged. One bad answer refuses them all:
    /// whoever mixes a private address into public ones does not mean well.
    fn judge(&self, target: &Target, answers: Vec<IpAddr>) -> Result<Vec<SocketAddr>, Refusal> {
        for answer in &answers {
            self.policy.judge_address(*answer, target.port)?;
        }
        let mut addresses = Vec::with_capacity(answers.len());
        for answer in answers {
            let address = SocketAddr::new(answer, target.port);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }
}
