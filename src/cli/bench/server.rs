//! The server of a bench: started as anybody would, and asked how far it is.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use super::audit::metric;
use super::crew::Crew;
use super::ground::Ground;
use super::processes;
use crate::cli::api::Api;
use crate::cli::client::Target;
use crate::store::{Backend, Connection};

/// How long the server may take to get ready, or to close its last attempts.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked how far a start is. It is part of what a start is measured to take.
const LOOK: Duration = Duration::from_millis(1);
/// How old a number of `/metrics` may be that the server counts in its database, with some to spare.
const SCRAPE_AGE: Duration = Duration::from_millis(1_500);

/// A server that is ready.
pub(super) struct Server {
    pub pid: u32,
    pub port: u16,
    pub api: Api,
    /// The database's first process. Nobody to find when the database is part of the server.
    pub database: Option<u32>,
    /// From before the process was made to the first good answer of `/readyz`.
    pub start_to_ready: Duration,
}

/// Starts `serve` and waits until it is ready.
pub(super) async fn start(crew: &mut Crew, ground: &Ground) -> anyhow::Result<Server> {
    let began = Instant::now();
    let pid = spawn(crew, ground)?;
    let port = loop {
        if let Some(port) = port(&crew.printed("server")) {
            break port;
        }
        wait(crew, began, "does not say where it listens").await?;
    };
    let api = Api::new(Target::at(([127, 0, 0, 1], port).into())?, &ground.application.api_key)?;
    while api.get("/readyz").await.is_err() {
        wait(crew, began, "does not get ready").await?;
    }
    let start_to_ready = began.elapsed();
    let database = match ground.location.backend {
        Backend::Sqlite => None,
        Backend::Postgres => {
            let mut connection = Connection::open(&ground.location)?;
            let backend = connection.process()?;
            backend.and_then(|pid| processes::postmaster(u32::try_from(pid).ok()?))
        }
    };
    Ok(Server { pid, port, api, database, start_to_ready })
}

fn spawn(crew: &mut Crew, ground: &Ground) -> anyhow::Result<u32> {
    let data = ground.data.to_str().context("the path is not UTF-8")?;
    let arguments = [
        ["--database", &ground.url],
        ["--data-dir", data],
        ["--listen", "127.0.0.1:0"],
        ["--egress-allow", "127.0.0.0/8"],
    ];
    let mut all = vec!["serve"];
    all.extend(arguments.iter().flatten());
    crew.start("server", &all)
}

/// The port in what it has printed so far.
fn port(printed: &str) -> Option<u16> {
    let (_, rest) = printed.split_once("http://127.0.0.1:")?;
    rest.split_once('\n')?.0.trim().parse().ok()
}

async fn wait(crew: &mut Crew, began: Instant, failing: &str) -> anyhow::Result<()> {
    crew.check("server")?;
    anyhow::ensure!(began.elapsed() < PATIENCE, "the server {failing}");
    sleep(LOOK).await;
    Ok(())
}

/// Waits until no more is owed than what will never be answered; whether that came true. Told by a
/// number that cannot be older than the question.
pub(super) async fn settle(api: &Api, unanswered: u64) -> anyhow::Result<bool> {
    let began = Instant::now();
    loop {
        let asked = began.elapsed();
        let owed = metric(api, "ringback_deliveries_owed").await?;
        if owed == Some(unanswered as f64) && asked >= SCRAPE_AGE {
            return Ok(true);
        }
        if asked > PATIENCE {
            return Ok(false);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::port;

    #[test]
    fn the_port_is_known_when_its_line_is_whole() {
        assert_eq!(port("ringback 0.1.0 listens on http://127.0.0.1:80"), None);
        assert_eq!(port("ringback 0.1.0 listens on http://127.0.0.1:8080\nmore"), Some(8_080));
    }
}
