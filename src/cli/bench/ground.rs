//! What a bench runs on: a database, a data folder, and the application that submits.
//!
//! One ground may see several runs, which find there what the earlier ones left.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::app::open_engine;
use crate::cli::output;
use crate::config::{Config, Flags};
use crate::engine::NewApplication;
use crate::store::{Access, Backend, Connection, Location, Store, history};

/// See the module.
pub(super) struct Ground {
    pub location: Location,
    pub url: String,
    pub data: PathBuf,
    pub application: NewApplication,
    /// A Postgres database of ours, to be dropped by way of another one.
    made_beside: Option<Location>,
}

impl Ground {
    /// The database that was given, or a new SQLite file in the folder.
    pub(super) async fn of(database: Option<&str>, folder: &Path) -> anyhow::Result<Ground> {
        let fallback = || format!("sqlite://{}", folder.join("bench.db").display());
        let url = database.map_or_else(fallback, str::to_owned);
        Ground::at(&url, folder.join("data"), None).await
    }

    /// An empty one of the same kind, for one run.
    pub(super) async fn empty_beside(&self, folder: &Path, number: u32) -> anyhow::Result<Ground> {
        let data = folder.join(format!("data-{number}"));
        match self.location.backend {
            Backend::Sqlite => {
                let url =
                    format!("sqlite://{}", folder.join(format!("empty-{number}.db")).display());
                Ground::at(&url, data, None).await
            }
            Backend::Postgres => {
                let name = format!("ringback_bench_{}_{number}", std::process::id());
                let sql = format!("CREATE DATABASE {name}");
                Connection::open(&self.location)?.batch(&sql).context(
                    "cannot make an empty database beside the one that was given; the user needs \
                     the right to (ALTER ROLE … CREATEDB)",
                )?;
                let mut url = url::Url::parse(&self.location.address)?;
                url.set_path(&name);
                Ground::at(url.as_str(), data, Some(self.location.clone())).await
            }
        }
    }

    async fn at(url: &str, data: PathBuf, made_beside: Option<Location>) -> anyhow::Result<Ground> {
        let mut location = Location::parse(url)?;
        if location.backend == Backend::Sqlite {
            // In words that hold in the server's working folder too.
            let path = std::path::absolute(&location.address)?;
            location.address = path.to_str().context("the path is not UTF-8")?.to_owned();
        }
        let url = match location.backend {
            Backend::Sqlite => format!("sqlite://{}", location.address),
            Backend::Postgres => location.address.clone(),
        };
        let application = prepare(&url, &data).await?;
        Ok(Ground { location, url, data, application, made_beside })
    }

    /// For commands that work beside the server.
    pub(super) fn config(&self) -> Config {
        beside(&self.url, &self.data)
    }

    /// Brings the database to rest before a server is started: with a past in it or without.
    pub(super) async fn let_settle(&self) -> anyhow::Result<()> {
        let location = self.location.clone();
        let settle = move || history::let_settle(&mut Connection::open(&location)?);
        Ok(tokio::task::spawn_blocking(settle).await??)
    }

    /// The folder whose disk the database waits for, as far as it can be known from here.
    pub(super) fn disk(&self) -> Option<&Path> {
        match self.location.backend {
            Backend::Sqlite => Path::new(&self.location.address).parent(),
            Backend::Postgres => None,
        }
    }
}

/// What was made for one run goes with it, also when somebody interrupts.
impl Drop for Ground {
    fn drop(&mut self) {
        let Some(beside) = &self.made_beside else { return };
        let dropped = url::Url::parse(&self.url).map_err(anyhow::Error::from).and_then(|url| {
            let name = url.path().trim_start_matches('/');
            let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            Ok(Connection::open(beside)?.batch(&sql)?)
        });
        if let Err(error) = dropped {
            output::complain(&format!("cannot drop {}: {error:#}", self.location.shown()));
        }
    }
}

fn beside(url: &str, data: &Path) -> Config {
    Config { database: Some(url.to_owned()), data_dir: data.to_owned(), ..Config::default() }
}

/// Migrates, says what is there already, and makes the application that submits. A database that
/// was set up before knows its master key, which is taken from where `serve` takes it.
async fn prepare(url: &str, data: &Path) -> anyhow::Result<NewApplication> {
    // Only a server is refused where another one runs, and nothing may be written there before.
    drop(Store::open(url, Access::Server)?);
    let given = Config::load(&Flags::default())?;
    let config = beside(url, data);
    if let Some(key) = &given.master_key {
        // The server is started without anybody's variables, so it finds the key here.
        std::fs::create_dir_all(data)?;
        std::fs::write(data.join("master.key"), key)?;
    }
    let engine = open_engine(&config).await?;
    let made = async {
        let applications = engine.list_applications().await?.len();
        if applications > 0 {
            let live: i64 = engine.queue_depths().await?.iter().map(|depth| depth.jobs).sum();
            let owed = engine.delivery_depth().await?.owed;
            output::complain(&format!(
                "the database is not new: {applications} applications, {live} live jobs and \
                 {owed} owed deliveries are in it"
            ));
        }
        Ok(engine.create_application("bench", &["*".to_owned()], None, None).await?)
    }
    .await;
    engine.close();
    made
}
