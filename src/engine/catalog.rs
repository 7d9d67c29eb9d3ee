//! The job types that this server knows, and how a specification of each is checked.
//!
//! Handlers implement `JobType`; the list is made once at start. Must not know any type itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

/// A source as the caller named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceName {
    /// By path …
    pub path: Option<String>,
    /// … or by id.
    pub file_id: Option<uuid::Uuid>,
}

/// A specification that can be run.
#[derive(Clone, Debug)]
pub struct Checked {
    /// As it is stored and shown: secret values masked.
    pub specification: Value,
    /// The secret values, sealed before they are stored; null when there are none.
    pub secrets: Value,
    /// Files that the job reads, taken from the specification.
    pub sources: Vec<SourceName>,
    /// An outside address that must be allowed, checked once more before it is used.
    pub outside_url: Option<String>,
}

/// How a job of a type comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeBy {
    /// Whoever may submit jobs submits one.
    Submission,
    /// A replay of events to an endpoint makes it, after checks that a specification alone does
    /// not get.
    Replay,
}

/// What the engine and the API need to know of a job type.
pub trait JobType: Send + Sync + 'static {
    /// `urn:job:…`
    fn name(&self) -> &'static str;

    /// Checks a specification; the error names the value and what is allowed. `sources` are the
    /// submission's own, for types that take them from there.
    fn check(&self, specification: &Value, sources: &[SourceName]) -> Result<Checked, String>;

    /// How its jobs come to be.
    fn made_by(&self) -> MadeBy {
        MadeBy::Submission
    }

    /// Tries when the caller says nothing.
    fn default_attempts(&self) -> i64 {
        3
    }
}

/// All known job types by name.
#[derive(Clone, Default)]
pub struct Catalog {
    types: BTreeMap<&'static str, Arc<dyn JobType>>,
}

impl Catalog {
    /// Adds a type.
    pub fn register(&mut self, job_type: Arc<dyn JobType>) {
        self.types.insert(job_type.name(), job_type);
    }

    /// The type of that name; the error lists the known ones.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn JobType>, String> {
        self.types.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.types.keys().copied().collect();
            format!("job type `{name}` is not known; allowed: {}", known.join(", "))
        })
    }

    /// All types in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &dyn JobType> {
        self.types.values().map(|job_type| &**job_type)
    }
}
