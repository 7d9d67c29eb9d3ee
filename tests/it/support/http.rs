//! A small blocking HTTP client: every status is an answer, nothing is followed or retried.

use std::time::Duration;

use serde_json::Value;
use ureq::http::{HeaderMap, Request as HttpRequest, Response};
use ureq::{Agent, Body, Proxy};

/// Longer than the longest `?wait=` that a test asks for.
const PATIENCE: Duration = Duration::from_secs(90);
/// Servers close idle connections after 5 s. A request that goes out just then gets no answer, and
/// the client cannot know whether it may be sent again.
const IDLE: Duration = Duration::from_secs(3);

/// A client of one server; clones share their connections.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    base_url: String,
    key: Option<String>,
}

impl Client {
    /// A client without a key.
    pub fn new(base_url: impl Into<String>) -> Client {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .allow_non_standard_methods(true)
            .proxy(None::<Proxy>)
            .timeout_global(Some(PATIENCE))
            .max_idle_age(IDLE)
            .max_idle_connections(64)
            .max_idle_connections_per_host(64)
            .build();
        Client { agent: Agent::new_with_config(config), base_url: base_url.into(), key: None }
    }

    /// The same client with `Authorization: Bearer KEY`.
    pub fn with_key(&self, key: &str) -> Client {
        Client { key: Some(key.to_owned()), ..self.clone() }
    }

    /// A request to be filled in.
    pub fn request(&self, method: &str, path: &str) -> Request<'_> {
        // Locations in answers are absolute.
        let absolute = path.starts_with("http://");
        let url = if absolute { path.to_owned() } else { format!("{}{path}", self.base_url) };
        Request {
            client: self,
            method: method.to_owned(),
            url,
            headers: Vec::new(),
            body: None,
            timeout: PATIENCE,
        }
    }

    /// `GET path`
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path).send()
    }

    /// `HEAD path`
    #[track_caller]
    pub fn head(&self, path: &str) -> Answer {
        self.request("HEAD", path).send()
    }

    /// `DELETE path`
    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path).send()
    }

    /// `POST path` with a JSON body.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path).json(body).send()
    }

    /// `POST path` without a body.
    #[track_caller]
    pub fn post_empty(&self, path: &str) -> Answer {
        self.request("POST", path).body(Vec::new()).send()
    }

    /// `PUT path` with bytes.
    #[track_caller]
    pub fn put(&self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.request("PUT", path).body(body).send()
    }
}

/// A request that is being filled in.
pub struct Request<'a> {
    client: &'a Client,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    timeout: Duration,
}

impl Request<'_> {
    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body and calls it JSON.
    pub fn json(self, body: &Value) -> Self {
        let body = serde_json::to_vec(body).expect("values can be written");
        self.header("content-type", "application/json").body(body)
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// How long the whole exchange may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The answer, whatever its status.
    ///
    /// # Panics
    /// When there is none; for servers that may be killed there is [`Request::try_send`].
    #[track_caller]
    pub fn send(self) -> Answer {
        let what = format!("{} {}", self.method, self.url);
        self.try_send().unwrap_or_else(|error| panic!("no answer to {what}: {error}"))
    }

    /// The answer, or why there is none.
    pub fn try_send(self) -> Result<Answer, String> {
        let mut request = HttpRequest::builder().method(self.method.as_str()).uri(&self.url);
        if let Some(key) = &self.client.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let said = |error: ureq::http::Error| error.to_string();
        let response = match self.body {
            Some(body) => self.client.exchange(request.body(body).map_err(said)?, self.timeout),
            None => self.client.exchange(request.body(()).map_err(said)?, self.timeout),
        };
        response.and_then(Answer::read).map_err(|error| error.to_string())
    }
}

impl Client {
    fn exchange(
        &self,
        request: HttpRequest<impl ureq::AsSendBody>,
        timeout: Duration,
    ) -> Result<Response<Body>, ureq::Error> {
        let request = self.agent.configure_request(request).timeout_global(Some(timeout)).build();
        self.agent.run(request)
    }
}

/// An answer of any status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Answer {
    fn read(mut response: Response<Body>) -> Result<Answer, ureq::Error> {
        let body = response.body_mut().with_config().limit(u64::MAX).read_to_vec()?;
        let status = response.status().as_u16();
        Ok(Answer { status, headers: response.headers().clone(), body })
    }

    /// The same answer, if it has that status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("plain text"))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}), {}: {}", self.status, self.text()))
    }
}
