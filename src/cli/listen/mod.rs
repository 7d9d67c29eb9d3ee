//! `ringback listen`: a receiver on loopback that verifies, shows and, if asked, fails.
//!
//! Whatever a client does, it goes on until a signal ends it. Must not know who sends.

mod answer;
mod forward;
mod json_text;
mod memory;
mod show;

use std::net::Ipv4Addr;

use actix_web::{App, HttpServer, web};
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::client::Target;
use super::output;
use super::verify::Keys;
use crate::clock::Clock;
use crate::config::number;
use answer::Listener;

const BODY_LIMIT: usize = 1_024 * 1_024;

/// What to listen for, and how to answer.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The port on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 9_000,
        value_parser = number::whole(0..=u16::MAX))]
    port: u16,
    /// What to verify with: whsec_…, or whpk_… for ed25519 (repeatable) [default: no check]
    #[arg(long = "secret", value_name = "SECRET")]
    secrets: Vec<String>,
    /// Pass requests on to this URL, headers and body unchanged, and answer what it answers
    #[arg(long, value_name = "URL", conflicts_with = "status")]
    forward: Option<Target>,
    /// Answer 500 to the first N requests that are not refused; each try counts
    #[arg(long, value_name = "N", default_value_t = 0,
        value_parser = number::whole(0..=u64::MAX))]
    fail_first: u64,
    /// Wait before each answer, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0,
        value_parser = number::whole::<u64>(0..=3_600_000))]
    delay: u64,
    /// Answer with this status
    #[arg(long, value_name = "CODE", default_value_t = 204,
        value_parser = number::whole::<u16>(200..=599))]
    status: u16,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: Options) -> anyhow::Result<()> {
    let keys = Keys::parse(&options.secrets).context("--secret")?;
    super::runtime()?.block_on(listen(options, keys))
}

async fn listen(options: Options, keys: Keys) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("no handler for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("no handler for SIGTERM")?;
    let (port, json, checks) = (options.port, options.json, !options.secrets.is_empty());
    let told = web::Data::new(Output { gone: Notify::new() });
    let listener = web::Data::new(Listener::new(options, keys, told.clone(), Clock::system()));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(listener.clone())
            .app_data(web::PayloadConfig::new(BODY_LIMIT))
            .default_service(web::to(answer::take))
    })
    .workers(1)
    .disable_signals()
    .bind((Ipv4Addr::LOCALHOST, port))
    .with_context(|| {
        format!("cannot listen on 127.0.0.1:{port}; --port 0 takes a port that is free")
    })?;
    let address = *server.addrs().first().context("the receiver has no address")?;
    let url = format!("http://{address}");
    told.line(&if json {
        serde_json::json!({ "listening": url }).to_string()
    } else {
        format!("listening on {url}")
    });
    if !checks {
        output::complain("no --secret is given, so signatures are not checked");
    }
    let server = server.run();
    let handle = server.handle();
    let serving = tokio::spawn(server);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = told.gone.notified() => {}
        served = serving => served.context("the receiver broke off")??,
    }
    handle.stop(false).await;
    Ok(())
}

/// Where everything is told.
struct Output {
    /// Nobody reads any more.
    gone: Notify,
}

impl Output {
    /// Writes a line, or several, in one piece and at once.
    fn line(&self, text: &str) {
        if output::line(format_args!("{text}")).is_err() {
            self.gone.notify_one();
        }
    }
}
