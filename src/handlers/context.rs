//! What a handler sees of the world: its job, a way to tell progress, a way to be stopped, bytes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::archive::Limits;
use crate::egress::Client;
use crate::engine::{Engine, Output, RenderPayload, StoredJob};
use crate::files::Blobs;
use crate::lifecycle::Failure;

/// What all handlers share.
pub struct Services {
    /// For looking files up; handlers change nothing through it.
    pub engine: Arc<Engine>,
    /// Bytes.
    pub blobs: Blobs,
    /// The guarded way out.
    pub egress: Client,
    /// Work files; emptied at start.
    pub temporary: PathBuf,
    /// Largest file that is imported or made.
    pub max_file_bytes: u64,
    /// Longest time one import may take, whatever the job says.
    pub import_deadline: Duration,
    /// What an archive may hold.
    pub archive_limits: Limits,
}

/// How a try ended.
pub enum Ending {
    /// Done.
    Done(Product),
    /// Failed; `transient` when trying again may help.
    Failed {
        /// Why.
        failure: Failure,
        /// Whether trying again may help.
        transient: bool,
    },
    /// The wish to stop was seen and the work ended.
    Stopped,
}

impl Ending {
    /// A failure that trying again will not mend.
    pub fn permanent(code: &str, detail: impl Into<String>) -> Ending {
        Ending::Failed { failure: Failure::new(code, detail), transient: false }
    }

    /// A failure that may be gone at the next try.
    pub fn transient(code: &str, detail: impl Into<String>) -> Ending {
        Ending::Failed { failure: Failure::new(code, detail), transient: true }
    }
}

/// What good work leaves: staged files, and how the result tells of them.
pub struct Product {
    /// Published together with the end of the job.
    pub outputs: Vec<Output>,
    /// Makes the result's payload of the published files.
    pub render: RenderPayload,
}

impl Product {
    /// A product without files.
    pub fn of(payload: Box<RawValue>) -> Product {
        Product { outputs: Vec::new(), render: Arc::new(move |_| payload.clone()) }
    }
}

/// Progress in 0..1, told by the handler, written by the runner.
#[derive(Clone, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Tells how far the work is.
    pub fn set(&self, fraction: f64) {
        self.0.store(fraction.to_bits(), Ordering::Relaxed);
    }

    /// As last told.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// The wish to stop. Cheap to ask, can be awaited, can be shared with blocking work.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// A switch and the wish it sets.
    pub fn new() -> (watch::Sender<bool>, Stop) {
        let (switch, wish) = watch::channel(false);
        (switch, Stop(wish))
    }

    /// Whether the work should end.
    pub fn requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when the work should end; never when the runner has let go of the job.
    pub async fn wait(&self) {
        let mut wish = self.0.clone();
        if wish.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// One try of one job.
pub struct Context {
    /// The job, working.
    pub job: StoredJob,
    /// Secret values of its specification, as its type's `check` returned them; null when none.
    pub secrets: Value,
    /// Shared by all.
    pub services: Arc<Services>,
    /// To be told.
    pub progress: Progress,
    /// To be asked.
    pub stop: Stop,
}
