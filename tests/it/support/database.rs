//! A database for each test, on both backends.
//!
//! SQLite gets a file in a folder of its own; Postgres a database of its own in the cluster that
//! `./test` started. Both are empty: migrating is the product's business.

use std::path::Path;
use std::thread;
use std::time::Duration;

pub use ringback::store::Backend;
use ringback::store::{Connection, Location, Statement};
use tempfile::TempDir;
use uuid::Uuid;

use super::machine::environment;
use super::wait;

const PATIENCE: Duration = Duration::from_secs(60);

/// Both, in the order tests run on them.
pub const BACKENDS: [Backend; 2] = [Backend::Sqlite, Backend::Postgres];

/// An empty database that is gone when this is dropped.
pub struct Database {
    backend: Backend,
    url: String,
    folder: TempDir,
    /// What to drop, and the URL to do it from.
    on_server: Option<OnServer>,
}

struct OnServer {
    cluster_url: String,
    name: String,
}

impl Database {
    /// A new database of that kind.
    pub fn fresh(backend: Backend) -> Database {
        match backend {
            Backend::Sqlite => {
                let folder = new_folder();
                let url = format!("sqlite://{}", folder.path().join("ringback.db").display());
                Database { backend, url, folder, on_server: None }
            }
            Backend::Postgres => Database::fresh_in(&environment("RINGBACK_TEST_POSTGRES")),
        }
    }

    /// A new database in the Postgres cluster at `cluster_url`.
    pub fn fresh_in(cluster_url: &str) -> Database {
        let name = format!("test_{}", Uuid::now_v7().simple());
        administer(cluster_url, &format!("CREATE DATABASE {name}"))
            .unwrap_or_else(|error| panic!("cannot create a database in {cluster_url}: {error}"));
        let mut url = url::Url::parse(cluster_url).expect("a URL");
        url.set_path(&name);
        let on_server = Some(OnServer { cluster_url: cluster_url.to_owned(), name });
        Database { backend: Backend::Postgres, url: url.into(), folder: new_folder(), on_server }
    }

    /// What `--database` takes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Which kind it is.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// A folder that lives as long as the database, for `--data-dir` and whatever else.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn location(&self) -> Location {
        Location::parse(&self.url).expect("a location")
    }

    /// A connection for looking at rows behind the product's back.
    pub fn connect(&self) -> Connection {
        Connection::open(&self.location())
            .unwrap_or_else(|error| panic!("cannot open {}: {error}", self.url))
    }

    /// A transaction of a test's own that holds what these statements take until it is dropped.
    pub fn hold(&self, sql: &str) -> Connection {
        let mut connection = self.connect();
        let patient = "SET idle_in_transaction_session_timeout = 0; SET lock_timeout = 0";
        connection.batch(patient).expect("SQL");
        connection.begin().expect("a transaction");
        connection.batch(sql).expect("SQL");
        connection
    }

    /// How many sessions of Postgres wait for what somebody holds.
    pub fn waiting(&self) -> i64 {
        let sql = "SELECT COUNT(*) AS number FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
        number(self, sql)
    }

    /// Waits for a session of Postgres that waits for what somebody holds, and ends it.
    pub fn cut_off_whoever_waits(&self) {
        let mut killer = self.connect();
        wait::eventually("somebody waits and is cut off", PATIENCE, || {
            let sql = "DO $$ DECLARE waiting INT; BEGIN \
                       SELECT pid INTO STRICT waiting FROM pg_stat_activity \
                       WHERE datname = current_database() AND wait_event_type = 'Lock'; \
                       PERFORM pg_terminate_backend(waiting); END $$";
            killer.batch(sql).ok()
        });
    }

    /// Whatever a test is about: the log of every job it made must tell its row.
    ///
    /// # Panics
    /// Also when it cannot look, which would pass for a success.
    fn audit(&self) {
        let mut connection = patient_connection(&self.location())
            .unwrap_or_else(|error| panic!("cannot audit {}: {error}", self.url));
        match connection.batch("SELECT 1 FROM jobs LIMIT 1") {
            Ok(()) => super::audit::every_job(&mut connection),
            Err(error) => {
                let error = format!("{error:?}");
                let is_empty = error.contains("no such table") || error.contains("does not exist");
                assert!(is_empty, "cannot audit {}: {error}", self.url);
            }
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.audit();
        }
        if let Some(OnServer { cluster_url, name }) = &self.on_server {
            // FORCE, because servers that were killed may still look connected.
            let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            if let Err(error) = administer(cluster_url, &sql) {
                // The cluster may be gone on purpose, and the test may be panicking already.
                eprintln!("the database {name} stays behind: {error}");
            }
        }
    }
}

fn new_folder() -> TempDir {
    tempfile::Builder::new().prefix("ringback-database-").tempdir().expect("a temporary folder")
}

/// Runs one statement outside the database it is about.
fn administer(cluster_url: &str, sql: &str) -> Result<(), String> {
    let location = Location::parse(cluster_url).map_err(|error| error.to_string())?;
    let mut connection = patient_connection(&location)?;
    let mut run = |sql: &str| connection.batch(sql).map_err(|error| format!("{error:?}"));
    run("SET lock_timeout = 0")?;
    run(sql)
}

/// A connection, as soon as there is a free one.
fn patient_connection(location: &Location) -> Result<Connection, String> {
    let connect = || match Connection::open(location).map_err(|error| format!("{error:?}")) {
        // Other tests hold all connections just now.
        Err(error) if error.contains("too many clients") || error.contains("reserved") => None,
        result => Some(result),
    };
    wait::within(PATIENCE, connect)
        .unwrap_or_else(|| Err(format!("no free connection within {PATIENCE:?}")))
}

/// Runs a check on both backends, one after the other.
pub fn each_backend(check: impl Fn(Database)) {
    for backend in BACKENDS {
        eprintln!("on {backend:?}");
        check(Database::fresh(backend));
    }
}

/// Runs async code the way the server does: on several threads, with timers and sockets.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().expect("a runtime").block_on(work)
}

/// Runs async code on this thread alone: what it spawns begins when it waits for something.
pub fn block_on_one_thread<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().expect("a runtime").block_on(work)
}

/// Makes two tests, `NAME::sqlite` and `NAME::postgres`, of the function that follows:
///
/// ```ignore
/// on_both!(a_late_worker_changes_nothing);
/// fn a_late_worker_changes_nothing(database: Database) { … }
///
/// on_both!(async a_stop_races_with_a_completion);
/// async fn a_stop_races_with_a_completion(database: Database) { … }
/// ```
macro_rules! on_both {
    (async $name:ident) => {
        mod $name {
            use $crate::support::database::{Backend, Database, block_on};

            #[test]
            fn sqlite() {
                block_on(super::$name(Database::fresh(Backend::Sqlite)));
            }

            #[test]
            fn postgres() {
                block_on(super::$name(Database::fresh(Backend::Postgres)));
            }
        }
    };
    ($name:ident) => {
        mod $name {
            use $crate::support::database::{Backend, Database};

            #[test]
            fn sqlite() {
                super::$name(Database::fresh(Backend::Sqlite));
            }

            #[test]
            fn postgres() {
                super::$name(Database::fresh(Backend::Postgres));
            }
        }
    };
}
pub(crate) use on_both;

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    number: i64,
}

#[derive(diesel::QueryableByName)]
struct Plan {
    #[diesel(sql_type = diesel::sql_types::Text)]
    detail: String,
}

/// What a query behind the product's back finds as `number`.
pub fn number(database: &Database, sql: &str) -> i64 {
    number_on(&mut database.connect(), sql)
}

/// The same on a connection that is there.
pub fn number_on(connection: &mut Connection, sql: &str) -> i64 {
    let found = connection.first::<Number>(Statement::new(sql.to_owned()));
    found.expect("SQL of ours").expect("one row").number
}

/// The steps of a statement's plan, asked with `EXPLAIN QUERY PLAN`.
pub fn plan(connection: &mut Connection, statement: Statement) -> Vec<String> {
    let steps: Vec<Plan> = connection.load(statement).expect("SQL of ours");
    steps.into_iter().map(|step| step.detail).collect()
}
