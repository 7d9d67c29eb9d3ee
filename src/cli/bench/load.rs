//! The load generator: a closed loop with so many jobs submitted and not yet delivered.
//!
//! A job leaves flight when its webhooks have arrived, at its callback and at each endpoint that
//! answers, which the sink tells over a connection of its own. Both read their times from a [`Ruler`], because they are compared.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::http::{Connection, Submitting};
use super::notice::{LENGTH, Notice};
use super::orders::{self, Cue, LoadOrder, Stage};
use super::ruler::Ruler;
use crate::clock::Clock;

mod board;
use board::Board;

/// Connections at most; more only cost memory, as each carries one request after the other.
const CONNECTIONS: u32 = 128;
/// When nothing has moved for so long, nothing will: a failed webhook is tried again after 5 s.
const STILL: Duration = Duration::from_secs(30);

pub(super) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(generate())
}

async fn generate() -> anyhow::Result<()> {
    let mut orders = orders::listen();
    let order: LoadOrder = orders::next(&mut orders).await?;
    let (warm_up, jobs) = (order.warm_up, order.jobs);
    let notices = TcpStream::connect((Ipv4Addr::LOCALHOST, order.sink.notices)).await?;
    let load = Arc::new(Load::new(&order)?);
    let reading = Arc::clone(&load);
    let mut work = tokio::spawn(async move {
        load.run(0..warm_up).await?;
        orders::say(&Stage::Warm)?;
        anyhow::ensure!(orders::next::<Cue>(&mut orders).await? == Cue::Go, "not in this order");
        load.run(warm_up..warm_up + jobs).await?;
        orders::say(&Stage::Finished)?;
        anyhow::ensure!(
            orders::next::<Cue>(&mut orders).await? == Cue::Report,
            "not in this order"
        );
        let report = load.board().report();
        orders::say(&report)
    });
    tokio::select! {
        done = &mut work => done?,
        heard = reading.hear(notices) => heard,
    }
}

struct Load {
    server: SocketAddr,
    submitting: Submitting,
    callback: String,
    payload: String,
    ruler: Ruler,
    flight: Semaphore,
    connections: u32,
    board: Mutex<Board>,
}

/// All that is needed of a job.
#[derive(Deserialize)]
struct Accepted {
    id: Uuid,
}

impl Load {
    fn new(order: &LoadOrder) -> anyhow::Result<Load> {
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, order.server));
        Ok(Load {
            server,
            submitting: Submitting::new(server, &order.api_key)?,
            callback: format!("http://127.0.0.1:{}/webhooks", order.sink.webhooks),
            payload: match usize::try_from(order.payload)? {
                0 => String::new(),
                bytes => format!(r#","payload":"{}""#, "x".repeat(bytes)),
            },
            ruler: Ruler::new(&Clock::system()),
            flight: Semaphore::new(usize::try_from(order.in_flight)?),
            connections: order.in_flight.min(CONNECTIONS),
            board: Mutex::new(Board::new(order)),
        })
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Submits the jobs of these numbers and waits until each has been delivered.
    async fn run(self: &Arc<Load>, numbers: std::ops::Range<u32>) -> anyhow::Result<()> {
        let next = Arc::new(AtomicU32::new(numbers.start));
        let mut connections = Vec::new();
        for _ in 0..self.connections {
            connections.push(Connection::open(self.server).await?);
        }
        let mut submitters = JoinSet::new();
        for connection in connections {
            let load = Arc::clone(self);
            submitters.spawn(load.submit(connection, Arc::clone(&next), numbers.end));
        }
        let mut moved = (Instant::now(), 0);
        let mut look = tokio::time::interval(Duration::from_millis(5));
        loop {
            tokio::select! {
                Some(ended) = submitters.join_next(), if !submitters.is_empty() => ended??,
                _ = look.tick() => {}
            }
            let (accepted, delivered, steps) = self.board().progress();
            if submitters.is_empty() && accepted == numbers.end && delivered == accepted {
                return Ok(());
            }
            if steps != moved.1 {
                moved = (Instant::now(), steps);
            }
            if moved.0.elapsed() > STILL {
                // What was accepted and not delivered is lost; the report says so.
                anyhow::ensure!(
                    submitters.is_empty(),
                    "nothing moved for {} s: {accepted} jobs were accepted, {delivered} delivered",
                    STILL.as_secs()
                );
                return Ok(());
            }
        }
    }

    /// Submits on one connection until the numbers are used up.
    async fn submit(
        self: Arc<Load>,
        mut connection: Connection,
        next: Arc<AtomicU32>,
        end: u32,
    ) -> anyhow::Result<()> {
        loop {
            let permit = self.flight.acquire().await?;
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= end {
                return Ok(());
            }
            // It comes back when the last of its webhooks is here.
            permit.forget();
            let body = format!(
                r#"{{"type":"urn:job:noop","specification":{{}},"callback":{{"url":"{}"}},"metadata":{{"n":{number}{}}}}}"#,
                self.callback, self.payload
            );
            let start = self.ruler.now();
            self.board().submitted(number, start);
            let (status, body) = connection.submit(&self.submitting, body).await?;
            let end = self.ruler.now();
            anyhow::ensure!(
                status != 429,
                "this machine does more than the requests a second that a server takes from one \
                 application by default (rate_per_second, rate_burst), so a run as long as this \
                 one cannot be measured: {}",
                String::from_utf8_lossy(&body)
            );
            anyhow::ensure!(
                status == 202,
                "a submission was answered with {status}: {}",
                String::from_utf8_lossy(&body)
            );
            let job: Accepted = serde_json::from_slice(&body).context("not a job")?;
            self.board().accepted(number, job.id, end);
        }
    }

    /// Reads what the sink received.
    async fn hear(&self, mut notices: TcpStream) -> anyhow::Result<()> {
        let mut buffer = Vec::with_capacity(64 * LENGTH);
        loop {
            let count = notices.read_buf(&mut buffer).await?;
            anyhow::ensure!(count > 0, "the sink is gone");
            let mut landed = 0;
            {
                let mut board = self.board();
                let (records, _) = buffer.as_chunks::<LENGTH>();
                for record in records {
                    landed += usize::from(board.noticed(&Notice::decode(record)));
                }
            }
            self.flight.add_permits(landed);
            buffer.drain(..buffer.len() / LENGTH * LENGTH);
        }
    }
}
