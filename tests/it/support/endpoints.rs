//! Endpoints registered beside running servers, by an engine of the test's own on their database.
//!
//! For tests that are about deliveries to endpoints and not about how these are registered.

use std::path::PathBuf;
use std::sync::Arc;

use ringback::app;
use ringback::config::Config;
use ringback::engine::{Address, Caller, EndpointSettings, Engine, NewEndpoint, lookup_of};
use ringback::store::Statement;
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::database::Database;
use super::process::{Application, data_dir};

/// Registers endpoints of one application.
pub struct Registry<'a> {
    database: &'a Database,
    runtime: Runtime,
    engine: Arc<Engine>,
    caller: Caller,
}

/// An endpoint and what its receiver needs.
pub struct Endpoint {
    pub id: Uuid,
    /// What its deliveries are signed with.
    pub secret: String,
    /// Where its limits and its order apply.
    pub lane: i64,
}

#[derive(diesel::QueryableByName)]
struct LaneLine {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    lane: i64,
}

impl<'a> Registry<'a> {
    /// Opens an engine with the key of the servers on that database.
    pub fn of(database: &'a Database, application: &Application) -> Registry<'a> {
        let config = Config {
            database: Some(database.url().to_owned()),
            data_dir: PathBuf::from(data_dir(database)),
            ..Config::default()
        };
        let runtime = Runtime::new().expect("a runtime");
        let key = &application.api_key;
        let (engine, caller) = runtime.block_on(async {
            let engine = app::open_engine(&config).await.expect("an engine");
            let caller = engine.authenticate(lookup_of(key)).await.expect("a read");
            (Arc::new(engine), caller.expect("the application's caller"))
        });
        Registry { database, runtime, engine, caller }
    }

    /// An endpoint at that URL.
    pub fn register(&self, url: &str, settings: EndpointSettings) -> Endpoint {
        let parsed = url::Url::parse(url).expect("a URL");
        let address = Address {
            url: url.to_owned(),
            shown_url: url.to_owned(),
            origin: parsed.origin().ascii_serialization(),
        };
        let new = NewEndpoint { address, settings, enabled: true };
        let made = self.runtime.block_on(self.engine.create_endpoint(&self.caller, new));
        let made = made.expect("it is registered");
        let id = made.endpoint.id;
        let sql = Statement::new("SELECT lane FROM receivers WHERE public_id = ?").bind(id);
        let line = self.database.connect().first::<LaneLine>(sql).expect("a read");
        Endpoint { id, secret: made.key.expect("a secret").shown, lane: line.expect("it").lane }
    }

    /// The same on a lane of the test's choice.
    pub fn register_where(
        &self,
        url: &str,
        settings: &EndpointSettings,
        suits: impl Fn(&Endpoint) -> bool,
    ) -> Endpoint {
        loop {
            let endpoint = self.register(url, settings.clone());
            if suits(&endpoint) {
                return endpoint;
            }
            let removed = self.engine.delete_endpoint(&self.caller, endpoint.id);
            self.runtime.block_on(removed).expect("it goes");
        }
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        self.engine.close();
    }
}
