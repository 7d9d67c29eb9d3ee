//! The server's API over HTTP, as a caller in no hurry uses it: the client with an API key.
//!
//! Must not know what is asked for.

use anyhow::Context as _;
use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method};
use serde_json::Value;

use super::client::{Answer, Target};

/// One server and one key.
pub(in crate::cli) struct Api {
    server: Target,
    authorization: HeaderValue,
}

impl Api {
    pub(in crate::cli) fn new(server: Target, api_key: &str) -> anyhow::Result<Api> {
        let authorization = HeaderValue::from_str(&format!("Bearer {api_key}"));
        // The value is not repeated.
        let authorization =
            authorization.map_err(|_| anyhow::anyhow!("an API key has plain characters only"))?;
        Ok(Api { server, authorization })
    }

    /// Any answer.
    pub(in crate::cli) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let mut headers = HeaderMap::from_iter([(AUTHORIZATION, self.authorization.clone())]);
        headers.extend(content_type.map(|kind| (CONTENT_TYPE, HeaderValue::from_static(kind))));
        let what = format!("{method} {path}");
        self.server.below(path).send(method, headers, body).await.context(what)
    }

    /// Sends JSON; any answer.
    pub(in crate::cli) async fn post(&self, path: &str, value: &Value) -> anyhow::Result<Answer> {
        let body = Bytes::from(value.to_string());
        self.send(Method::POST, path, Some("application/json"), body).await
    }

    /// The body of a good answer.
    pub(in crate::cli) async fn get(&self, path: &str) -> anyhow::Result<Bytes> {
        let answer = self.send(Method::GET, path, None, Bytes::new()).await?;
        let text = String::from_utf8_lossy(&answer.body);
        anyhow::ensure!(answer.status == 200, "GET {path}: {} {text}", answer.status);
        Ok(answer.body)
    }

    /// The same, read as JSON.
    pub(in crate::cli) async fn get_json(&self, path: &str) -> anyhow::Result<Value> {
        let body = self.get(path).await?;
        serde_json::from_slice(&body).with_context(|| format!("GET {path}: not JSON"))
    }

    /// Sends JSON and expects this status and JSON.
    pub(in crate::cli) async fn post_json(
        &self,
        path: &str,
        value: &Value,
        expected: u16,
    ) -> anyhow::Result<Value> {
        let answer = self.post(path, value).await?;
        let text = String::from_utf8_lossy(&answer.body);
        anyhow::ensure!(answer.status == expected, "POST {path}: {} {text}", answer.status);
        serde_json::from_slice(&answer.body).with_context(|| format!("POST {path}: not JSON"))
    }
}
