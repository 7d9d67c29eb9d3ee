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
    _made: Option<Made>,
}

/// A Postgres database of ours, which is dropped by way of the one that was given, also when somebody
/// interrupts.
struct Made {
    name: String,
    given: Location,
}

impl Made {
    fn create(given: &Location, name: String) -> anyhow::Result<Made> {
        // It is there before it is asked for: nobody knows how far that comes.
        let made = Made { name, given: given.clone() };
        let sql = format!("CREATE DATABASE {}", made.name);
        Connection::open(given)?.batch(&sql).context(
            "cannot make an empty database beside the one that was given; the user needs the right \
             to (ALTER ROLE … CREATEDB)",
        )?;
        Ok(made)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let given = Connection::open(&self.given);
        if let Err(error) = given.and_then(|mut given| given.batch(&sql)) {
            output::complain(&format!("cannot drop the database {}: {error:#}", self.name));
        }
    }
}

impl Ground {
    /// The database that was given, or a new SQLite file in the folder.
    pub(super) async fn of(database: Option<&str>, folder: &Path) -> anyhow::Result<Ground> {
        let fallback = || format!("sqlite://{}", folder.join("bench.db").display());
        let url = database.map_or_else(fallback, str::to_owned);
        Ground::at(&url, folder.join("data"), None).await
    }

    /// An empty one of the same kind as the database that was given, for one run.
    pub(super) async fn empty(
        database: Option<&str>,
        folder: &Path,
        number: u32,
    ) -> anyhow::Result<Ground> {
        let data = folder.join(format!("data-{number}"));
        let given = database.map(Location::parse).transpose()?;
        match given.filter(|given| given.backend == Backend::Postgres) {
            None => {
                let file = folder.join(format!("empty-{number}.db"));
                Ground::at(&format!("sqlite://{}", file.display()), data, None).await
            }
            Some(given) => {
                let name = format!("ringback_bench_{}_{number}", std::process::id());
                let mut url = url::Url::parse(&given.address)?;
                url.set_path(&name);
                let made = Made::create(&given, name)?;
                Ground::at(url.as_str(), data, Some(made)).await
            }
        }
    }

    async fn at(url: &str, data: PathBuf, made: Option<Made>) -> anyhow::Result<Ground> {
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
        Ok(Ground { location, url, data, application, _made: made })
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

fn beside(url: &str, data: &Path) -> Config {
    Config { database: Some(url.to_owned()), data_dir: data.to_owned(), ..Config::default() }
}

/// Migrates, says what is there already, and makes the application that submits. A database that
/// was set up before knows its master key, which is taken from where `serve` takes it.
async fn prepare(url: &str, data: &Path) -> anyhow::Result<NewApplication> {
    // Only a server is refused where another one runs, and nothing may be written there before.
    drop(Store::open(url, Access::Server)?);
    let given = Config::load(&Flags::default())?;
    if given.master_key.is_some() {
        // Refused here, where it is known whose it is.
        given.master_key(|| [0; 32])?;
    }
    let config = beside(url, data);
    if let Some(key) = &given.master_key {
        // The server is started without anybody's variables, so it finds the key here.
        std::fs::create_dir_all(data)?;
        std::fs::write(data.join("master.key"), key)?;
    }
    let engine = open_engine(&config).await?;
    let made = async {
        let nodes = engine.nodes_alive().await?;
        anyhow::ensure!(
            nodes == 0,
            "another ringback server is at work on the database, or was until a few seconds ago: \
             what it does would be measured too"
        );
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
