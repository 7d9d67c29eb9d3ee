//! The composition root: puts the parts together, runs the loops, takes everything down in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App as WebApp, HttpServer, web};
use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::Config;
use crate::delivery::{self, Dispatcher};
use crate::egress::{Client, Policy, SystemResolver};
use crate::engine::{Engine, NODE_LIFE_MILLIS, Parts, RateLimit, Sealer, Standing};
use crate::files::Blobs;
use crate::formats::{Formats, Schedule, Standard};
use crate::handlers::runner::{Limits, Runner};
use crate::handlers::{self, Services};
use crate::ids::Timestamp;
use crate::ingress;
use crate::store::{Access, Backend, Store};
use crate::telemetry::Metrics;

/// How often a node says that it is alive.
const BEAT_PERIOD: Duration = Duration::from_secs(2);
/// How often dead nodes and deadlines are looked for.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);
/// How often retention runs.
const RETENTION_PERIOD: Duration = Duration::from_secs(60);
/// How often bytes without an owner are looked for.
const ORPHAN_PERIOD: Duration = Duration::from_secs(6 * 60 * 60);
/// Bytes that no transaction claimed are orphans after this time.
const ORPHAN_AGE_MILLIS: i64 = 24 * 60 * 60 * 1_000;
/// Superseded versions are kept this long for requests that are just reading them.
const SUPERSEDED_AGE_MILLIS: i64 = 60 * 60 * 1_000;

/// A running server.
pub struct App {
    engine: Arc<Engine>,
    runner: Arc<Runner>,
    dispatcher: Arc<Dispatcher>,
    state: web::Data<ingress::State>,
    server: ServerHandle,
    serving: JoinHandle<std::io::Result<()>>,
    claiming: Vec<JoinHandle<()>>,
    loops: Vec<JoinHandle<()>>,
    shutdown: watch::Sender<bool>,
    grace: Duration,
    temporary: std::path::PathBuf,
    address: SocketAddr,
    public_url: String,
    database: String,
}

/// The data folder, made when missing, and the sealer under its master key.
pub fn open_sealer(config: &Config) -> anyhow::Result<Sealer> {
    use std::os::unix::fs::DirBuilderExt;
    // Jobs, results and files are nobody else's business on this machine.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data_dir)
        .with_context(|| format!("cannot create the data folder {}", config.data_dir.display()))?;
    let drawn = Sealer::new_master_key()?;
    let key = config.master_key(|| drawn)?;
    Ok(Sealer::new(&key)?)
}

fn formats(config: &Config) -> Formats {
    match &config.retry_schedule_seconds {
        None => Formats::standard_only(),
        Some(waits) => {
            let waits = waits.iter().map(|seconds| Duration::from_secs(*seconds));
            Formats::with_standard(Standard::with_schedule(Schedule::after_first(waits)))
        }
    }
}

/// An engine for commands that work beside a running server.
pub async fn open_engine(config: &Config) -> anyhow::Result<Engine> {
    let sealer = open_sealer(config)?;
    let store = Store::open(&config.database_url(), Access::Beside)?;
    Ok(Engine::start(Parts {
        store,
        clock: Clock::system(),
        catalog: handlers::catalog(&handlers::all()),
        formats: formats(config),
        sealer,
        public_url: config.public_url.clone().unwrap_or_default(),
        observe_batch: Box::new(|_| {}),
    })
    .await?)
}

fn listen(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4_096)?.into_std()
}

/// Numbers in 0..1 that spread retries; nothing secret hangs on them.
fn chance() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let bits = RandomState::new().hash_one(0u8) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

/// Our own listeners, which nobody may make us call.
fn own_listeners(address: SocketAddr, public_url: &str) -> Vec<(String, u16)> {
    let mut own = vec![(address.ip().to_string(), address.port())];
    if let Ok(url) = url::Url::parse(public_url)
        && let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default())
    {
        own.push((host.to_owned(), port));
    }
    own
}

impl App {
    /// Opens the database, starts the loops and listens.
    pub async fn start(config: Config) -> anyhow::Result<App> {
        let sealer = open_sealer(&config)?;
        let database = config.database_url();
        let store = tokio::task::spawn_blocking(move || Store::open(&database, Access::Server))
            .await
            .context("opening the database")??;
        let database = store.location().shown();
        let backend = store.location().backend;
        let listener =
            listen(config.listen).with_context(|| format!("cannot listen on {}", config.listen))?;
        let address = listener.local_addr()?;
        let public_url = config
            .public_url
            .clone()
            .map_or_else(|| format!("http://{address}"), |url| url.trim_end_matches('/').into());
        let metrics = Arc::new(Metrics::default());
        let observer = Arc::clone(&metrics);
        let handlers = handlers::all();
        let engine = Arc::new(
            Engine::start(Parts {
                store,
                clock: Clock::system(),
                catalog: handlers::catalog(&handlers),
                formats: formats(&config),
                sealer,
                public_url: public_url.clone(),
                observe_batch: Box::new(move |operations| observer.observe_batch(operations)),
            })
            .await?,
        );
        let egress = Client::new(
            Policy {
                allow: config.egress_allow.clone(),
                https_only: config.https_only,
                allow_nat64: false,
                own: own_listeners(address, &public_url),
            },
            Arc::new(SystemResolver::default()),
        );
        let blobs = Blobs::local(&config.data_dir.join("files"))?;
        let temporary = work_folder(&config, backend)?;
        let services = Arc::new(Services {
            engine: Arc::clone(&engine),
            blobs: blobs.clone(),
            egress: egress.clone(),
            temporary: temporary.clone(),
            max_file_bytes: config.max_file_bytes,
            import_deadline: Duration::from_secs(config.import_deadline_seconds),
            archive_limits: handlers::archive::Limits::default(),
        });
        let runner = Arc::new(Runner::new(
            services,
            handlers,
            Arc::clone(&metrics),
            Limits {
                slots: config.job_slots,
                queue_slots: config.queue_slots.clone(),
                timeout: Duration::from_secs(config.job_timeout_seconds),
            },
            chance,
        ));
        let dispatcher = Arc::new(Dispatcher::new(
            Arc::clone(&engine),
            egress.clone(),
            Arc::clone(&metrics),
            delivery::Settings {
                lane_cap: config.lane_in_flight,
                lane_rate: config.lane_rate_per_second.map(|per_second| RateLimit {
                    per_second,
                    burst: config.lane_rate_burst.max(1),
                }),
                deadline: Duration::from_secs(config.delivery_deadline_seconds),
                ..delivery::Settings::default()
            },
            chance,
        ));
        let started_at = engine.now();
        if backend == Backend::Sqlite {
            engine.forget_other_nodes().await?;
        }
        let standing = engine.beat(started_at).await?;
        dispatcher.set_shards(&standing.shards);
        let state = web::Data::new(ingress::State::new(
            Arc::clone(&engine),
            egress,
            blobs,
            metrics,
            ingress::Settings {
                public_url: public_url.clone(),
                max_file_bytes: config.max_file_bytes,
                default_rate_per_second: config.rate_per_second,
                default_rate_burst: config.rate_burst,
                ..ingress::Settings::default()
            },
        ));
        let shutdown = watch::Sender::new(false);
        let keeper = Keeper {
            engine: Arc::clone(&engine),
            runner: Arc::clone(&runner),
            dispatcher: Arc::clone(&dispatcher),
            state: state.clone(),
            started_at,
            retention_millis: i64::from(config.retention_days) * 24 * 60 * 60 * 1_000,
        };
        let (claiming, loops) = start_loops(keeper, &shutdown);
        let (server, serving) = serve(listener, state.clone())?;
        Ok(App {
            engine,
            runner,
            dispatcher,
            state,
            server,
            serving,
            claiming,
            loops,
            shutdown,
            grace: Duration::from_secs(config.grace_seconds),
            temporary,
            address,
            public_url,
            database,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Base of absolute URLs.
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    /// Which database, without its password.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The door to its state.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Stops accepting, lets running work end or hands it back, flushes, leaves.
    pub async fn stop(self) -> anyhow::Result<()> {
        // Claiming ends first, so that nothing new begins while the rest winds down.
        self.shutdown.send_replace(true);
        let accepting = self.server.stop(true);
        let working = async {
            // A claim that is under way still brings work, which has to be drained too.
            for task in self.claiming {
                let _ = task.await;
            }
            self.runner.drain(self.grace).await;
            self.dispatcher.drain(self.grace.min(Duration::from_secs(10))).await;
        };
        tokio::join!(accepting, working);
        let _ = self.serving.await;
        for task in self.loops {
            // Their work has ended or was handed back; one may still sleep until its next turn.
            task.abort();
            let _ = task.await;
        }
        if let Err(error) = self.state.auth.flush_uses(&self.engine).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "uses of keys are lost");
        }
        self.engine.leave().await?;
        let engine = Arc::clone(&self.engine);
        tokio::task::spawn_blocking(move || engine.close()).await?;
        let _ = std::fs::remove_dir_all(&self.temporary);
        Ok(())
    }
}

/// Work files. On SQLite the server is alone in its data folder, so what an earlier one left
/// behind goes; nodes that share a folder each have their own.
fn work_folder(config: &Config, backend: Backend) -> anyhow::Result<std::path::PathBuf> {
    let parent = config.data_dir.join("work");
    if backend == Backend::Sqlite && parent.exists() {
        std::fs::remove_dir_all(&parent)?;
    }
    let folder = parent.join(crate::ids::new_id().simple().to_string());
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

fn serve(
    listener: std::net::TcpListener,
    state: web::Data<ingress::State>,
) -> anyhow::Result<(ServerHandle, JoinHandle<std::io::Result<()>>)> {
    let server = HttpServer::new(move || {
        WebApp::new()
            .app_data(state.clone())
            .wrap(actix_web::middleware::from_fn(ingress::observe))
            .configure(ingress::configure)
    })
    .workers(2)
    .max_connections(20_000)
    .shutdown_timeout(10)
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    Ok((handle, tokio::spawn(server)))
}

/// What the loops of a node share.
struct Keeper {
    engine: Arc<Engine>,
    runner: Arc<Runner>,
    dispatcher: Arc<Dispatcher>,
    state: web::Data<ingress::State>,
    started_at: Timestamp,
    retention_millis: i64,
}

/// The loops that claim, and the others.
fn start_loops(
    keeper: Keeper,
    shutdown: &watch::Sender<bool>,
) -> (Vec<JoinHandle<()>>, Vec<JoinHandle<()>>) {
    let keeper = Arc::new(keeper);
    let beat = |name: &'static str| {
        let ready = Arc::clone(&keeper.state.ready);
        ready.register(name);
        move || ready.beat(name)
    };
    let claiming = vec![
        tokio::spawn(Arc::clone(&keeper.runner).run(shutdown.subscribe(), beat("runner"))),
        tokio::spawn(Arc::clone(&keeper.dispatcher).run(shutdown.subscribe(), beat("dispatcher"))),
    ];
    let others = vec![
        tokio::spawn(Arc::clone(&keeper.runner).watch_leases(shutdown.subscribe(), beat("leases"))),
        tokio::spawn(Arc::clone(&keeper).keep_alive(shutdown.subscribe(), beat("node"))),
        tokio::spawn(Arc::clone(&keeper).sweep(shutdown.subscribe(), beat("sweeper"))),
        tokio::spawn(Arc::clone(&keeper).retain(shutdown.subscribe())),
    ];
    (claiming, others)
}

impl Keeper {
    /// Beats, and fences this node when its beats do not get through: by then its leases may be
    /// somebody else's.
    async fn keep_alive(self: Arc<Self>, mut shutdown: watch::Receiver<bool>, beat: impl Fn()) {
        let life = Duration::from_millis(NODE_LIFE_MILLIS.unsigned_abs());
        let margin = life.mul_f64(0.8);
        let mut last = Instant::now();
        // Beats go on during shutdown, for as long as work is winding down.
        loop {
            let asked = Instant::now();
            let answered = tokio::time::timeout(margin, self.engine.beat(self.started_at)).await;
            match answered {
                Ok(Ok(Standing { shards, .. })) => {
                    let silent = asked.duration_since(last);
                    if silent > life {
                        tracing::warn!(
                            seconds = silent.as_secs_f64(),
                            "this node was silent for longer than its life; its work is dropped"
                        );
                        self.fence();
                    }
                    last = asked;
                    beat();
                    if !*shutdown.borrow() {
                        self.dispatcher.set_shards(&shards);
                    }
                }
                Ok(Err(error)) => complain("beating", &error),
                Err(_) => tracing::error!("beating took too long"),
            }
            if last.elapsed() > margin && self.engine.backend() == Backend::Postgres {
                self.fence();
            }
            let idle = self.runner.busy() == 0 && self.dispatcher.in_flight() == 0;
            if *shutdown.borrow() && idle {
                return;
            }
            let wait = if *shutdown.borrow() { Duration::from_millis(200) } else { BEAT_PERIOD };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = shutdown.changed(), if !*shutdown.borrow() => {}
            }
        }
    }

    fn fence(&self) {
        self.dispatcher.set_shards(&[]);
        self.runner.drop_all();
    }

    /// Finds what dead nodes left and what is past its deadline; notes uses of keys.
    async fn sweep(self: Arc<Self>, mut shutdown: watch::Receiver<bool>, beat: impl Fn()) {
        let mut flushed = Instant::now();
        while !*shutdown.borrow() {
            beat();
            match self.engine.rescue().await {
                Ok(0) => {}
                Ok(count) => tracing::warn!(count, "gave work of dead nodes back"),
                Err(error) => complain("rescuing", &error),
            }
            if let Err(error) = self.engine.expire().await {
                complain("expiring", &error);
            }
            if flushed.elapsed() > Duration::from_secs(10) {
                flushed = Instant::now();
                if let Err(error) = self.state.auth.flush_uses(&self.engine).await {
                    complain("noting uses of keys", &error);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(SWEEP_PERIOD) => {}
                _ = shutdown.changed() => {}
            }
        }
    }

    /// Purges what is old enough, in bounded batches with a breath between them.
    async fn retain(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut swept: Option<Instant> = None;
        while !*shutdown.borrow() {
            let mut result = self.retain_once(&shutdown).await;
            if result.is_ok() && swept.is_none_or(|at| at.elapsed() > ORPHAN_PERIOD) {
                swept = Some(Instant::now());
                result = self.sweep_orphans(self.engine.now()).await;
            }
            if let Err(error) = result {
                let error: &dyn std::error::Error = error.as_ref();
                tracing::error!(error, "retention failed");
            }
            tokio::select! {
                () = tokio::time::sleep(RETENTION_PERIOD) => {}
                _ = shutdown.changed() => {}
            }
        }
    }

    async fn retain_once(&self, shutdown: &watch::Receiver<bool>) -> anyhow::Result<()> {
        let now = self.engine.now();
        let before = now.plus_millis(-self.retention_millis);
        let mut purged = 0;
        for kind in ["jobs", "groups", "files"] {
            let mut cursor = 0;
            while !*shutdown.borrow() {
                let (count, next) = match kind {
                    "jobs" => self.engine.purge_jobs(before, cursor).await?,
                    "groups" => self.engine.purge_groups(before, cursor).await?,
                    _ => self.engine.purge_files(before, cursor).await?,
                };
                purged += count;
                let Some(next) = next else { break };
                cursor = next;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        if purged > 0 {
            tracing::info!(purged, "retention");
        }
        // A callback is touched at most a day before its last use.
        let callbacks = before.plus_millis(-2 * 24 * 60 * 60 * 1_000);
        self.engine.purge_leftovers(callbacks).await?;
        self.sweep_superseded(now).await
    }

    /// Removes bytes of versions that were replaced or deleted and that no live job reads.
    async fn sweep_superseded(&self, now: Timestamp) -> anyhow::Result<()> {
        let blobs = &self.state.blobs;
        let unread = self.engine.unread_versions(now.plus_millis(-SUPERSEDED_AGE_MILLIS)).await?;
        for version in &unread {
            blobs.delete(*version).await?;
        }
        if !unread.is_empty() {
            self.engine.forget_versions(unread).await?;
        }
        Ok(())
    }

    /// Removes bytes that were staged and never published. Lists all bytes, so it is done rarely.
    async fn sweep_orphans(&self, now: Timestamp) -> anyhow::Result<()> {
        use futures_util::StreamExt;
        let blobs = &self.state.blobs;
        let cutoff = now.plus_millis(-ORPHAN_AGE_MILLIS).to_datetime();
        blobs.remove_unfinished(cutoff).await?;
        let mut old = blobs.list_older_than(cutoff).chunks(500);
        while let Some(page) = old.next().await {
            let keys: Vec<uuid::Uuid> = page.into_iter().collect::<Result<_, _>>()?;
            for orphan in self.engine.unknown_versions(keys).await? {
                blobs.delete(orphan).await?;
            }
        }
        Ok(())
    }
}

fn complain(what: &str, error: &crate::engine::EngineError) {
    let error: &dyn std::error::Error = error;
    tracing::error!(error, "{what} failed");
}
