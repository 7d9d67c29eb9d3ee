//! The server's API over HTTP, as a caller in no hurry uses it.
//!
//! Must not know what is asked for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::Value;

use crate::egress::{Client, Method, Outgoing, Policy, SystemResolver};

const PATIENCE: Duration = Duration::from_secs(20);
const ANSWER_LIMIT: usize = 64 * 1_024 * 1_024;

/// One server and one key.
pub(in crate::cli) struct Api {
    client: Client,
    server: SocketAddr,
    authorization: String,
}

impl Api {
    pub(in crate::cli) fn new(server: SocketAddr, api_key: &str) -> anyhow::Result<Api> {
        // The server that this process started listens on loopback.
        let policy = Policy { allow: vec!["127.0.0.0/8".parse()?], ..Policy::default() };
        Ok(Api {
            client: Client::new(policy, Arc::new(SystemResolver::default())),
            server,
            authorization: format!("Bearer {api_key}"),
        })
    }

    /// The status and body of an answer.
    pub(in crate::cli) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> anyhow::Result<(u16, Bytes)> {
        let mut headers = vec![("authorization".to_owned(), self.authorization.clone())];
        headers.extend(content_type.map(|kind| ("content-type".to_owned(), kind.to_owned())));
        let what = format!("{method} {path}");
        let outgoing = Outgoing {
            method,
            url: format!("http://{}{path}", self.server),
            headers,
            body,
            deadline: PATIENCE,
            body_cap: ANSWER_LIMIT,
        };
        let answer = self.client.send(outgoing).await.result.with_context(|| what.clone())?;
        anyhow::ensure!(!answer.truncated, "{what}: the answer is too large");
        Ok((answer.status, answer.body))
    }

    /// The body of a good answer.
    pub(in crate::cli) async fn get(&self, path: &str) -> anyhow::Result<Bytes> {
        let (status, body) = self.send(Method::GET, path, None, Bytes::new()).await?;
        anyhow::ensure!(status == 200, "GET {path}: {status} {}", String::from_utf8_lossy(&body));
        Ok(body)
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
        let body = Bytes::from(value.to_string());
        let (status, body) = self.send(Method::POST, path, Some("application/json"), body).await?;
        let text = String::from_utf8_lossy(&body);
        anyhow::ensure!(status == expected, "POST {path}: {status} {text}");
        serde_json::from_slice(&body).with_context(|| format!("POST {path}: not JSON"))
    }
}
