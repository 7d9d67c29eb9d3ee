//! `bench --deliveries`: events that are already due go out to many endpoints; how many a second.
//!
//! What is owed is made beforehand, through the engine and without a server, so that nothing but
//! claiming, signing, sending and recording is measured.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::audit::{self, Alike};
use super::crew::Crew;
use super::ground::Ground;
use super::measure::Counters;
use super::notice::{LENGTH, Notice, Verdict};
use super::orders::{SinkOrder, SinkReady};
use super::report::{Cpu, rounded};
use super::server::{self, PATIENCE, settle};
use super::{durability, processes};
use crate::app::open_engine;
use crate::engine::{
    Address, Caller, EndpointSettings, Engine, MOST_ENDPOINTS, NewEndpoint, NewJob, lookup_of,
};
use crate::ids::Timestamp;
use crate::store::history::Whole;

/// When nothing has come for so long, nothing will.
const STILL: Duration = Duration::from_secs(30);
/// Jobs that are submitted in one batch.
const BATCH: usize = 200;
/// They never run: only that they were made is told.
const FAR: Timestamp = Timestamp(4_102_444_800_000_000);

/// The figures. Names and shape are what scripts rely on.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sent {
    pub deliveries_per_second: f64,
    pub deliveries: usize,
    pub endpoints: usize,
    pub cpu_ms_per_delivery: Cpu,
    pub peak_memory_mb: f64,
    pub lost: usize,
    pub duplicates: usize,
}

/// Runs once; what is wrong with the figures comes second.
pub(super) async fn measure(
    ground: &Ground,
    deliveries: usize,
    endpoints: usize,
    crew: &mut Crew,
) -> anyhow::Result<(Sent, Vec<String>)> {
    let mut sink = crew.talk("sink", &["bench", "--role", "sink"])?;
    // The sink has to listen before its address can be registered, and knows the secrets later.
    sink.tell(&SinkOrder { secrets: Vec::new() }).await?;
    let ready: SinkReady = sink.hear().await?;
    let Owed { secrets, jobs } = owe(ground, deliveries, endpoints, ready.webhooks).await?;
    sink.tell(&SinkOrder { secrets }).await?;

    let notices = TcpStream::connect((Ipv4Addr::LOCALHOST, ready.notices)).await?;
    let server = server::start(crew, ground).await?;
    let before = Counters::read(&server).await?;
    let received = receive(notices, deliveries).await?;
    let settled = settle(&server.api, 0).await?;
    let spent = Counters::read(&server).await?.since(&before, ground.location.backend);
    let peak_memory = processes::peak_memory_mib(server.pid).context("the server is gone")?;

    let per_second = rounded(received.per_second());
    let mut faults = received.strange;
    let lost = deliveries.saturating_sub(received.count);
    if lost > 0 {
        faults.push(format!("{lost} of {deliveries} deliveries did not come"));
    }
    if !settled {
        faults.push(format!("deliveries are still owed after {} s", PATIENCE.as_secs()));
    }
    crew.stop("server").await?;
    if let Err(error) = durability::check(&ground.url) {
        faults.push(format!("{error:#}"));
    }
    let duplicates = i64::try_from(received.duplicates)?;
    let (_, missing) = audit::faults_of_all(&ground.location, &jobs, duplicates)?;
    faults.extend(missing);
    let each = |millis: f64| rounded(millis / deliveries as f64);
    let sent = Sent {
        deliveries_per_second: per_second,
        deliveries,
        endpoints,
        cpu_ms_per_delivery: Cpu {
            server: each(spent.server),
            database: spent.database.map(each),
            total: spent.database.map(|database| each(spent.server + database)),
        },
        peak_memory_mb: rounded(peak_memory),
        lost,
        duplicates: received.duplicates,
    };
    Ok((sent, faults))
}

/// What was made to be sent.
#[derive(Default)]
struct Owed {
    /// Of the endpoints.
    secrets: Vec<String>,
    /// By application. They tell what they owe, and wait.
    jobs: Vec<Alike>,
}

/// Registers the endpoints, and makes so many events that each is owed its share.
async fn owe(
    ground: &Ground,
    deliveries: usize,
    endpoints: usize,
    sink: u16,
) -> anyhow::Result<Owed> {
    let engine = open_engine(&ground.config()).await?;
    let owed = async {
        let mut owed = Owed::default();
        let most = usize::try_from(MOST_ENDPOINTS)?;
        for first in (0..endpoints).step_by(most) {
            let caller = application(&engine).await?;
            let places = Places {
                port: sink,
                path: "due",
                numbers: first..endpoints.min(first + most),
                event: "job.created",
            };
            owed.secrets.extend(register(&engine, &caller, &places).await?);
            let mut events = deliveries / endpoints;
            let each = Whole {
                after: 0,
                application: Some(caller.application),
                ended: false,
                delivered: i64::try_from(places.numbers.len())?,
                owed: 0,
            };
            owed.jobs.push(Alike { jobs: i64::try_from(events)?, each });
            let at_once = (BATCH * 10).div_ceil(endpoints.min(most)).clamp(1, BATCH);
            while events > 0 {
                let jobs = vec![job(); events.min(at_once)];
                events -= jobs.len();
                engine.submit_batch(&caller, jobs, None, None, "bench").await?;
            }
        }
        Ok(owed)
    }
    .await;
    engine.close();
    owed
}

/// Where endpoints are at the sink, and the one kind of event that they want.
pub(super) struct Places<'a> {
    pub port: u16,
    pub path: &'a str,
    pub numbers: Range<usize>,
    pub event: &'a str,
}

/// Registers endpoints; their secrets.
pub(super) async fn register(
    engine: &Engine,
    caller: &Caller,
    places: &Places<'_>,
) -> anyhow::Result<Vec<String>> {
    let mut secrets = Vec::with_capacity(places.numbers.len());
    for number in places.numbers.clone() {
        let settings = EndpointSettings {
            events: Some(vec![places.event.to_owned()]),
            ..EndpointSettings::default()
        };
        let new = NewEndpoint { address: places.address(number), settings, enabled: true };
        let made = engine.create_endpoint(caller, new).await?;
        secrets.push(made.key.context("a new endpoint has a key")?.shown);
    }
    Ok(secrets)
}

async fn application(engine: &Engine) -> anyhow::Result<Caller> {
    let new = engine.create_application("bench", &["*".to_owned()], None, None).await?;
    let caller = engine.authenticate(lookup_of(&new.api_key)).await?;
    caller.context("a new application has a caller")
}

impl Places<'_> {
    fn address(&self, number: usize) -> Address {
        let origin = format!("http://127.0.0.1:{}", self.port);
        let url = format!("{origin}/{}/{number}", self.path);
        Address { shown_url: url.clone(), url, origin }
    }
}

fn job() -> NewJob {
    NewJob {
        job_type: "urn:job:noop".to_owned(),
        specification: json!({}),
        sources: Vec::new(),
        group_id: None,
        callback: None,
        metadata: None,
        priority: 0,
        queue: "default".to_owned(),
        run_at: Some(FAR),
        expires_at: None,
        max_attempts: None,
        timeout_seconds: None,
    }
}

#[derive(Default)]
struct Received {
    count: usize,
    duplicates: usize,
    seconds: f64,
    strange: Vec<String>,
}

impl Received {
    /// From the first one to the last: the first one is where the clock starts.
    fn per_second(&self) -> f64 {
        if self.seconds > 0.0 { (self.count - 1) as f64 / self.seconds } else { 0.0 }
    }
}

/// Reads what the sink tells until all are there or nothing comes any more.
async fn receive(mut notices: TcpStream, deliveries: usize) -> anyhow::Result<Received> {
    let (mut received, mut known) = (Received::default(), HashSet::with_capacity(deliveries));
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    let mut buffer = Vec::with_capacity(256 * LENGTH);
    let mut moved = Instant::now();
    while received.count < deliveries && moved.elapsed() < STILL {
        let Ok(read) = timeout(STILL, notices.read_buf(&mut buffer)).await else { break };
        anyhow::ensure!(read? > 0, "the sink is gone");
        moved = Instant::now();
        let (records, _) = buffer.as_chunks::<LENGTH>();
        for notice in records.iter().map(Notice::decode) {
            if notice.verdict != Verdict::Signed {
                if received.strange.len() < 5 {
                    received.strange.push("a webhook's signature is wrong".to_owned());
                }
            } else if known.insert((notice.place, notice.webhook)) {
                received.count += 1;
                (first, last) = (first.min(notice.at), last.max(notice.at));
            } else {
                received.duplicates += 1;
            }
        }
        buffer.drain(..buffer.len() / LENGTH * LENGTH);
    }
    received.seconds = (last - first).max(0) as f64 / 1_000_000.0;
    Ok(received)
}

impl Sent {
    /// For people.
    pub(super) fn table(&self, database: &str) -> String {
        let cpu = &self.cpu_ms_per_delivery;
        let total = cpu.total.map_or("unknown".to_owned(), |total| format!("{total:.3}"));
        format!(
            "{} deliveries that were due, to {} endpoints, on {database}\n\n  deliveries a second   {:.0}\n  \
             CPU a delivery        {total} ms (server {:.3})\n  server's peak memory  {:.1} MiB\n  \
             lost                  {}\n  duplicates            {}\n\nevery signature checked, \
             every delivery audited",
            self.deliveries,
            self.endpoints,
            self.deliveries_per_second,
            cpu.server,
            self.peak_memory_mb,
            self.lost,
            self.duplicates
        )
    }
}
