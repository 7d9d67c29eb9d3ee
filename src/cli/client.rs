//! One HTTP request to where the user of a command says, and its answer.
//!
//! Not the guarded way out: whoever starts a command names the target, and names and addresses of
//! their own network are what integrators test against. Redirects are answers like others. Must
//! not know what is sent.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper::header::{HOST, HeaderValue};
use hyper::{HeaderMap, Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::rustls::pki_types::ServerName;
use url::{Position, Url};

use crate::egress::Tls;

/// For DNS, connecting, TLS, the request and the answer together; a delivery's default deadline.
const PATIENCE: Duration = Duration::from_secs(20);
const ANSWER_LIMIT: usize = 16 * 1_024 * 1_024;

static TLS: LazyLock<Tls> = LazyLock::new(Tls::with_system_roots);

/// Where a request goes.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Target(Url);

/// What came back.
pub(in crate::cli) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub took: Duration,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let good = |url: &Url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.fragment().is_none()
        };
        Url::parse(text).ok().filter(good).map(Target).ok_or_else(|| {
            "a URL is http(s)://HOST[:PORT][/PATH], without user, password and fragment".to_owned()
        })
    }
}

impl Target {
    /// The server at an address.
    pub(in crate::cli) fn at(address: SocketAddr) -> anyhow::Result<Target> {
        format!("http://{address}").parse().map_err(anyhow::Error::msg)
    }

    /// The same server with a path, and perhaps a query, below this URL's own.
    pub(in crate::cli) fn below(&self, path: &str) -> Target {
        let (path, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q)));
        let mut url = self.0.clone();
        url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        url.set_query(query);
        Target(url)
    }

    /// `scheme://host:port`: paths and queries may hold secrets.
    pub(in crate::cli) fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// Sends a request, with `Host` and the framing made here.
    pub(in crate::cli) async fn send(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let began = Instant::now();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_str(&self.0[Position::BeforePath..Position::AfterQuery])?;
        *request.headers_mut() = headers;
        let host = HeaderValue::from_str(&self.0[Position::BeforeHost..Position::AfterPort])?;
        request.headers_mut().insert(HOST, host);
        let mut answer = tokio::time::timeout(PATIENCE, self.exchange(request))
            .await
            .map_err(|_| anyhow::anyhow!("no complete answer within {} s", PATIENCE.as_secs()))??;
        answer.took = began.elapsed();
        Ok(answer)
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let host = match self.0.host().context("a URL without host")? {
            url::Host::Domain(name) => name.to_owned(),
            url::Host::Ipv4(address) => address.to_string(),
            url::Host::Ipv6(address) => address.to_string(),
        };
        let port = self.0.port_or_known_default().context("a URL without port")?;
        let stream = TcpStream::connect((host.as_str(), port))
            .await
            .with_context(|| format!("cannot connect to {}", self.origin()))?;
        stream.set_nodelay(true)?;
        if self.0.scheme() == "http" {
            return converse(stream, request).await;
        }
        let name = ServerName::try_from(host).context("not a name that TLS can check")?;
        let connector = TLS.connector().await.map_err(anyhow::Error::msg)?;
        let stream = connector
            .connect(name, stream)
            .await
            .with_context(|| format!("no secure connection to {}", self.origin()))?;
        converse(stream, request).await
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends with this value, also when the time is up. Its errors come up again below.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let answer = sender.send_request(request).await.context("no valid answer")?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_LIMIT).collect().await;
    let body = body.map_err(anyhow::Error::from_boxed).context("no whole answer")?.to_bytes();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, took: Duration::ZERO })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_http_url_and_nothing_else() {
        for good in ["http://127.0.0.1:9000/hooks?a=b", "https://backend", "http://[::1]:80"] {
            assert!(good.parse::<Target>().is_ok(), "{good}");
        }
        for bad in ["", "localhost:9000", "ftp://x/", "http://", "http://u:p@x/", "http://x/#y"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_goes_below_the_one_of_the_url() {
        for (base, path, whole) in [
            ("http://h:1", "/v1/x", "http://h:1/v1/x"),
            ("http://h:1/", "/v1/x", "http://h:1/v1/x"),
            ("http://h:1/jobs/?a", "/v1/x", "http://h:1/jobs/v1/x"),
            ("http://h:1/?a", "/v1/x?b=c", "http://h:1/v1/x?b=c"),
        ] {
            let target: Target = base.parse().unwrap();
            assert_eq!(target.below(path).0.as_str(), whole);
        }
    }
}
