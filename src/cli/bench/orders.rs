//! What the processes of a bench say to each other: one JSON value a line, orders on stdin and
//! answers on stdout. Orders hold secrets, so they never stand on a command line.

use std::io::BufRead;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::cli::output;

/// Orders of the sink: the first makes it listen, later ones replace what it verifies with.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SinkOrder {
    /// `whsec_…` by the number at the end of the path; the first one where there is none.
    pub secrets: Vec<String>,
}

/// Where the sink listens.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SinkReady {
    /// Port for webhooks.
    pub webhooks: u16,
    /// Port for webhooks that are never answered.
    pub hanging: u16,
    /// Port on which it tells what it received.
    pub notices: u16,
}

/// First order of the load generator.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LoadOrder {
    /// Port of the server.
    pub server: u16,
    pub api_key: String,
    pub sink: SinkReady,
    /// Jobs before those that count.
    pub warm_up: u32,
    pub jobs: u32,
    pub in_flight: u32,
    /// Bytes added to each job.
    pub payload: u32,
    /// Endpoints that each job is told to and that answer, at places from 1.
    pub endpoints: u32,
}

/// Later orders of the load generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cue {
    /// The jobs that count may begin.
    Go,
    /// Say what was seen.
    Report,
}

/// What the load generator says on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// The first jobs are over.
    Warm,
    /// All are over, or nothing moves any more.
    Finished,
}

/// What the load generator saw. Times are microseconds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LoadReport {
    /// From the first submission to the last webhook.
    pub elapsed: i64,
    /// Median and 99th percentile from sending a submission to reading its 202.
    pub submit: (i64, i64),
    /// The same from sending a submission to the arrival of the webhook at the callback.
    pub webhook: (i64, i64),
    /// The same to each arrival at an endpoint.
    pub endpoints: (i64, i64),
    /// Jobs that count of which all have been told.
    pub delivered: u32,
    /// Webhooks of jobs with a 202 that did not come.
    pub lost: u32,
    /// Webhooks that came again under the same `webhook-id`.
    pub duplicates: u32,
    /// Webhooks that no job with a 202 owed, in words.
    pub strangers: Vec<String>,
    /// Some of the jobs, spread evenly.
    pub sample: Vec<Uuid>,
}

/// Reads orders until the other side is gone. A thread of its own, because a pending read of stdin
/// would hold up the end of an async runtime.
pub(super) fn listen() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The next order.
pub(super) async fn next<T: DeserializeOwned>(
    orders: &mut mpsc::UnboundedReceiver<String>,
) -> anyhow::Result<T> {
    let line = orders.recv().await.context("the bench that started this process is gone")?;
    serde_json::from_str(&line).context("an order that is not known")
}

/// Answers.
pub(super) fn say(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(output::line(format_args!("{}", serde_json::to_string(value)?))?)
}
