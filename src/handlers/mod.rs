//! Background work: one file or folder per job type, and the runner that drives them.
//!
//! A handler gets a context and returns how the work ended. It holds no transaction and no
//! connection while it works, stages its outputs and lets the runner publish them in one step.
//! Must not know HTTP in, faces, deliveries or SQL.

pub mod archive;
pub mod context;
pub mod destination;
pub mod members;
pub mod noop;
pub mod replay;
pub mod runner;
pub mod work;

use std::sync::Arc;

use futures_util::future::BoxFuture;

pub use context::{Context, Ending, Product, Services, Stop};

use crate::engine::{Catalog, JobType};

/// The code that does one job type.
pub trait Handler: JobType {
    /// Works on one try. A panic fails the job, not the server.
    fn run(self: Arc<Self>, context: Context) -> BoxFuture<'static, Ending>;
}

/// Every handler of this server. Adding a job type is one line here.
pub fn all() -> Vec<Arc<dyn Handler>> {
    vec![
        Arc::new(noop::Noop),
        Arc::new(archive::CreateArchive),
        Arc::new(archive::ExtractArchive),
        Arc::new(import::ImportFile),
        Arc::new(replay::ReplayWebhooks),
    ]
}

pub mod import;

/// The catalog of these handlers.
pub fn catalog(handlers: &[Arc<dyn Handler>]) -> Catalog {
    let mut catalog = Catalog::default();
    for handler in handlers {
        catalog.register(Arc::clone(handler) as Arc<dyn JobType>);
    }
    catalog
}
