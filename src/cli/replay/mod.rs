//! `ringback replay`: sends files as real signed webhooks, with or without a server.
//!
//! Signs with the product's own formats, so that what a receiver accepts from here it accepts from
//! a server. Must not know what is in a file beyond its id and event.

mod fixture;
mod sign;
mod tamper;

use std::path::PathBuf;

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};

use super::client::{Answer, Target};
use super::output::{printable, say};
use crate::clock::Clock;
use crate::formats::{Header, Signature};
use crate::ids::Timestamp;
use fixture::Fixture;
use sign::Signer;
use tamper::Tamper;

/// What to send, where to, and how to spoil it.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Files with a webhook's body each; a folder stands for all its *.json, in the order of names
    #[arg(required = true, value_name = "FIXTURE")]
    fixtures: Vec<PathBuf>,
    /// The receiver
    #[arg(long, value_name = "URL")]
    to: Target,
    /// What to sign with: whsec_…, or whsk_… for ed25519 (repeatable)
    #[arg(long = "secret", value_name = "SECRET", required = true)]
    secrets: Vec<String>,
    /// Sign at that time, RFC 3339 or Unix seconds [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<i64>,
    /// Spoil one part after signing; the receiver must refuse then
    #[arg(long, value_name = "PART")]
    tamper: Option<Tamper>,
    /// How to sign: standard, hex or ed25519
    #[arg(long, value_name = "KIND", default_value = "standard", value_parser = Signature::parse)]
    signature: Signature,
}

fn parse_time(text: &str) -> Result<i64, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| "too many seconds".to_owned());
    }
    let time = text.parse::<Timestamp>();
    time.map(Timestamp::seconds).map_err(|said| format!("{said}, nor Unix seconds"))
}

/// What left here: the headers and the body, spoiled or not.
struct Webhook {
    headers: Vec<Header>,
    body: String,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let signer = Signer::new(options.signature, &options.secrets)?;
    // All are read before one is sent: a mistake in the last one is no half of a replay.
    let fixtures = fixture::read_all(&options.fixtures)?;
    if let Some(public) = signer.public_key() {
        say!("public key {public}");
    }
    super::runtime()?.block_on(replay(options, &signer, &fixtures))
}

async fn replay(options: &Options, signer: &Signer, fixtures: &[Fixture]) -> anyhow::Result<()> {
    let clock = Clock::system();
    let mut wrong = 0;
    for fixture in fixtures {
        let seconds = options.at.unwrap_or_else(|| clock.now().seconds());
        let mut webhook = Webhook {
            headers: signer.headers(&fixture.webhook_id, &fixture.event, seconds, &fixture.body),
            body: fixture.body.clone(),
        };
        if let Some(part) = options.tamper {
            tamper::spoil(&mut webhook, part)
                .ok_or_else(|| anyhow::anyhow!("{}: there is no byte to change", fixture.name))?;
        }
        let answered = send(&options.to, webhook).await;
        let (said, good) = judge(&answered, options.tamper.is_some());
        say!("{}  {}  -> {said}", fixture.name, printable(&fixture.event));
        wrong += usize::from(!good);
    }
    let not = if options.tamper.is_some() { "not refused" } else { "not received" };
    anyhow::ensure!(wrong == 0, "{wrong} of {} {not}", fixtures.len());
    Ok(())
}

async fn send(to: &Target, webhook: Webhook) -> anyhow::Result<Answer> {
    let mut headers = HeaderMap::new();
    for (name, value) in webhook.headers {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(&value)?);
    }
    to.send(Method::POST, headers, Bytes::from(webhook.body)).await
}

/// A line for people, and whether it is what was hoped for.
fn judge(answered: &anyhow::Result<Answer>, tampered: bool) -> (String, bool) {
    let answer = match answered {
        Ok(answer) => answer,
        // Nobody refused anything.
        Err(error) => return (format!("no answer: {error:#}"), false),
    };
    let (said, good) = match (answer.status, tampered) {
        (200..=299, false) => ("", true),
        (_, false) => (", not received", false),
        (200..=299, true) => (", received although it was tampered with", false),
        (status, true) if is_refusal(status) => (", refused", true),
        // Whoever fails, or is not there, has not looked at the signature.
        (_, true) => (", neither received nor refused", false),
    };
    (format!("{} in {} ms{said}", answer.status, answer.took.as_millis()), good)
}

/// Whether a status says that this request is not accepted as it is.
fn is_refusal(status: u16) -> bool {
    (400..=499).contains(&status) && ![404, 405, 408, 410, 425, 429].contains(&status)
}
