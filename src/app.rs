//! The composition root: puts the parts together, runs the loops, takes everything down in order.

mod keeper;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App as WebApp, HttpServer, web};
use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::{ClientErrorChoice, Config};
use crate::delivery::{self, BreakerSettings, Dispatcher};
use crate::egress::{Client, Policy, SystemResolver};
use crate::engine::{ClientErrors, Engine, Parts, RateLimit, Sealer};
use crate::files::Blobs;
use crate::formats::{Formats, Schedule, Standard};
use crate::handlers::runner::{Limits, Runner};
use crate::handlers::{self, Services};
use crate::ingress;
use crate::store::{Access, Backend, Store};
use crate::telemetry::Metrics;
use keeper::{Keeper, start_loops};

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
    temporary: PathBuf,
    work_lock: std::fs::File,
    address: SocketAddr,
    public_url: String,
    database: String,
}

/// The sealer under the master key, which is made when there is none.
pub fn open_sealer(config: &Config) -> anyhow::Result<Sealer> {
    if config.master_key.is_none() || config.database.is_none() {
        make_data_folder(config)?;
    }
    let drawn = Sealer::new_master_key()?;
    let key = config.master_key(|| drawn)?;
    Ok(Sealer::new(&key)?)
}

fn make_data_folder(config: &Config) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    // Jobs, results and files are nobody else's business on this machine.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data_dir)
        .with_context(|| format!("cannot create the data folder {}", config.data_dir.display()))
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
        disable_after: Duration::from_secs(config.disable_after_seconds),
        lane_rate: lane_rate(config),
        observe_batch: Box::new(|_| {}),
    })
    .await?)
}

fn lane_rate(config: &Config) -> Option<RateLimit> {
    let burst = config.lane_rate_burst;
    config.lane_rate_per_second.map(|per_second| RateLimit::even(per_second, burst))
}

fn delivery_settings(config: &Config) -> delivery::Settings {
    delivery::Settings {
        lane_cap: config.lane_in_flight,
        lane_rate: lane_rate(config),
        deadline: Duration::from_secs(config.delivery_deadline_seconds),
        breaker: BreakerSettings {
            failures: config.breaker_failures,
            pause: Duration::from_secs(config.breaker_seconds),
            ..BreakerSettings::default()
        },
        client_errors: match config.client_errors {
            ClientErrorChoice::Retry => ClientErrors::Retry,
            ClientErrorChoice::Final => ClientErrors::Final,
        },
        ..delivery::Settings::default()
    }
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
        make_data_folder(&config)?;
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
                disable_after: Duration::from_secs(config.disable_after_seconds),
                lane_rate: lane_rate(&config),
                observe_batch: Box::new(move |operations| observer.observe_batch(operations)),
            })
            .await?,
        );
        let egress = Client::new(
            Policy {
                allow: config.egress_allow.clone(),
                https_only: config.https_only,
                allow_nat64: config.egress_nat64,
                own: own_listeners(address, &public_url),
            },
            Arc::new(SystemResolver::default()),
        );
        let blobs = Blobs::local(&config.data_dir.join("files"))?;
        let (temporary, work_lock) = work_folder(&config)?;
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
            Limits::new(
                config.job_slots,
                config.queue_slots.clone(),
                Duration::from_secs(config.job_timeout_seconds),
            ),
            chance,
        ));
        let dispatcher = Arc::new(Dispatcher::new(
            Arc::clone(&engine),
            egress.clone(),
            Arc::clone(&metrics),
            delivery_settings(&config),
            chance,
        ));
        let started_at = engine.now();
        if backend == Backend::Sqlite {
            engine.forget_other_nodes().await?;
        }
        engine.look_around().await;
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
            work_lock,
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
        // Other nodes send for its lanes from here on, while its own work winds down.
        self.engine.retire();
        // Claiming ends first, so that nothing new begins while the rest winds down.
        self.shutdown.send_replace(true);
        // Answers that go on would keep the server until it runs out of patience.
        self.state.streams.end();
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
        if let Err(error) = self.dispatcher.flush_secret_uses().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "uses of secrets are lost");
        }
        self.engine.leave().await?;
        let engine = Arc::clone(&self.engine);
        tokio::task::spawn_blocking(move || engine.close()).await?;
        let _ = std::fs::remove_dir_all(&self.temporary);
        let _ = std::fs::remove_file(self.temporary.with_extension("lock"));
        drop(self.work_lock);
        Ok(())
    }
}

/// Work files of this process, under a lock that goes with it. What processes that are gone left
/// behind is removed; a folder whose lock is held belongs to somebody who is alive.
fn work_folder(config: &Config) -> anyhow::Result<(PathBuf, std::fs::File)> {
    let parent = config.data_dir.join("work");
    let failed = |path: &Path| format!("cannot make a folder for work files at {}", path.display());
    std::fs::create_dir_all(&parent).with_context(|| failed(&parent))?;
    for entry in std::fs::read_dir(&parent)? {
        let lock = entry?.path();
        if lock.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        // Another start may be removing the same remains just now.
        let Ok(file) = std::fs::File::open(&lock) else { continue };
        if file.try_lock().is_ok() {
            let _ = std::fs::remove_dir_all(lock.with_extension(""));
            let _ = std::fs::remove_file(&lock);
        }
    }
    let folder = parent.join(crate::ids::new_id().simple().to_string());
    let lock_path = folder.with_extension("lock");
    let lock = std::fs::File::create(&lock_path).with_context(|| failed(&lock_path))?;
    lock.lock().with_context(|| failed(&lock_path))?;
    std::fs::create_dir(&folder).with_context(|| failed(&folder))?;
    Ok((folder, lock))
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
