//! `ringback trigger`: has a running server send the example of an event to the endpoints of the
//! application.
//!
//! Must not know the events; the server says which there are.

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::Api;
use super::client::Target;
use super::output::say;
use crate::config;

const PATH: &str = "/v1/events/trigger";
const TYPE_PREFIX: &str = "urn:job:";

/// What to send, and through which server.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The event, such as job.succeeded
    event: String,
    /// The job type of the example, such as archive.create
    #[arg(long = "type", value_name = "TYPE")]
    job_type: Option<String>,
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: Target,
    /// An API key of the application [default: RINGBACK_API_KEY]
    #[arg(long, value_name = "API_KEY")]
    key: Option<String>,
    /// Print the server's answer
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Triggered {
    deliveries: Vec<Delivery>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delivery {
    id: String,
    endpoint_id: String,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let key = options.key.clone().or_else(config::api_key);
    let key = key.context("which application? Give --key API_KEY or set RINGBACK_API_KEY")?;
    super::runtime()?.block_on(trigger(options, &key))
}

async fn trigger(options: &Options, key: &str) -> anyhow::Result<()> {
    let mut wanted = json!({"event": options.event});
    if let Some(job_type) = &options.job_type {
        wanted["type"] = full_name(job_type).into();
    }
    let answer = Api::new(options.url.clone(), key)?.post(PATH, &wanted).await?;
    if answer.status != 202 {
        anyhow::bail!("{} answered {}", options.url.origin(), refusal(answer.status, &answer.body));
    }
    let triggered: Triggered = serde_json::from_slice(&answer.body)
        .with_context(|| format!("{} did not answer as ringback does", options.url.origin()))?;
    if options.json {
        say!("{}", serde_json::from_slice::<Value>(&answer.body)?);
    } else {
        for delivery in &triggered.deliveries {
            say!("delivery {} to endpoint {}", delivery.id, delivery.endpoint_id);
        }
    }
    // Whoever triggers an event waits for a webhook, and none will come.
    anyhow::ensure!(
        !triggered.deliveries.is_empty(),
        "no enabled endpoint of the application wants {}",
        options.event
    );
    Ok(())
}

/// The prefix may be left out.
fn full_name(job_type: &str) -> String {
    if job_type.starts_with(TYPE_PREFIX) {
        job_type.to_owned()
    } else {
        format!("{TYPE_PREFIX}{job_type}")
    }
}

/// What a problem says; the first of the text when it is none.
fn refusal(status: u16, body: &[u8]) -> String {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    match (problem["code"].as_str(), problem["detail"].as_str().or(problem["title"].as_str())) {
        (Some(code), Some(detail)) => format!("{status} {code}: {detail}"),
        _ => {
            let text = String::from_utf8_lossy(body);
            let start: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
            format!("{status} {start}").trim_end().to_owned()
        }
    }
}
