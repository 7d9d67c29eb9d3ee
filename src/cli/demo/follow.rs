//! Follows jobs: their events as the API tells them, in order, and the webhooks as they come.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::receiver::Received;
use crate::cli::api::Api;
use crate::cli::output::say;

/// How often events are asked for.
const PERIOD: Duration = Duration::from_millis(10);
/// A webhook that has not come by then does not come at once, and that is a failure here.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Page {
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    id: Uuid,
    sequence: u64,
    #[serde(rename = "type")]
    kind: String,
    data: Value,
}

/// Prints what happens and keeps count.
pub(super) struct Follower<'a> {
    api: &'a Api,
    received: mpsc::UnboundedReceiver<Received>,
    began: Instant,
    pub jobs: usize,
    pub events: usize,
    pub webhooks: usize,
    /// Events whose webhook has not come.
    owed: HashSet<Uuid>,
    /// Webhooks whose event has not been read.
    early: HashSet<Uuid>,
}

impl<'a> Follower<'a> {
    pub(super) fn new(
        api: &'a Api,
        received: mpsc::UnboundedReceiver<Received>,
        began: Instant,
    ) -> Follower<'a> {
        let (owed, early) = (HashSet::new(), HashSet::new());
        Follower { api, received, began, jobs: 0, events: 0, webhooks: 0, owed, early }
    }

    /// Submits a job and follows it to its end and to its last webhook.
    pub(super) async fn run(&mut self, submission: &Value) -> anyhow::Result<()> {
        let job = self.api.post_json("/v1/jobs", submission, 202).await?;
        let id: Uuid = serde_json::from_value(job["id"].clone()).context("a job without id")?;
        self.jobs += 1;
        let mut last = 0;
        loop {
            let page = self.api.get_json(&format!("/v1/jobs/{id}/events?after={last}")).await?;
            let page: Page = serde_json::from_value(page).context("events")?;
            for event in page.events {
                anyhow::ensure!(
                    event.sequence == last + 1,
                    "event {} follows event {last}",
                    event.sequence
                );
                last = event.sequence;
                self.print("event", event.sequence, &event.kind, &describe(&event));
                self.events += 1;
                if !self.early.remove(&event.id) {
                    self.owed.insert(event.id);
                }
                match event.kind.as_str() {
                    "job.succeeded" => return self.catch_up().await,
                    "job.failed" | "job.stopped" => {
                        anyhow::bail!("job {id} ended as {}: {}", event.kind, event.data)
                    }
                    _ => {}
                }
            }
            if let Ok(Some(received)) = timeout(PERIOD, self.received.recv()).await {
                self.take(received)?;
            }
        }
    }

    /// Waits until every event has had its webhook.
    async fn catch_up(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.owed.is_empty() {
            let received = tokio::time::timeout_at(deadline, self.received.recv()).await;
            let received = received.with_context(|| {
                format!("{} webhooks have not come after {} s", self.owed.len(), PATIENCE.as_secs())
            })?;
            self.take(received.context("the receiver has ended")?)?;
        }
        anyhow::ensure!(self.early.is_empty(), "webhooks came for events that nobody has seen");
        Ok(())
    }

    fn take(&mut self, received: Received) -> anyhow::Result<()> {
        match received {
            Received::Verified(notification) => {
                let (sequence, event) = (notification.sequence, &notification.event);
                self.print("webhook", sequence, event, "signature verified");
                self.webhooks += 1;
                if !self.owed.remove(&notification.id) {
                    self.early.insert(notification.id);
                }
                Ok(())
            }
            Received::Refused { webhook_id, reason } => {
                anyhow::bail!("webhook {webhook_id} was not accepted by the receiver: {reason}")
            }
        }
    }

    fn print(&self, what: &str, sequence: u64, kind: &str, text: &str) {
        let millis = self.began.elapsed().as_millis();
        let line = format!("{millis:>7} ms  {what:<8} {sequence:>2}  {kind:<15} {text}");
        say!("{}", line.trim_end());
    }
}

/// What an event says, in few words.
fn describe(event: &Event) -> String {
    let data = &event.data;
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    match event.kind.as_str() {
        "job.started" => format!("try {}", data["attempt"]),
        "job.progressed" => {
            format!("{:.0} %", data["progress"].as_f64().unwrap_or_default() * 100.0)
        }
        "job.retried" | "job.failed" => data["failure"]["detail"].as_str().unwrap_or("").to_owned(),
        "job.succeeded" => {
            let payload = &data["result"]["payload"];
            match (payload.get("files"), payload.get("size").or(payload.get("bytes"))) {
                (Some(files), Some(bytes)) => {
                    format!("{} files, {} bytes", number(files), number(bytes))
                }
                (None, Some(bytes)) => format!("{} bytes", number(bytes)),
                _ => String::new(),
            }
        }
        _ => String::new(),
    }
}
