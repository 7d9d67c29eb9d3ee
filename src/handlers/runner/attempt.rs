//! One try: runs the handler with its time limit, then applies how it ended.
//!
//! Must not know how jobs are claimed.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;

use super::Runner;
use crate::engine::{Applied, ClaimedJob, EngineError, EngineResult, StoredJob};
use crate::handlers::context::{Context, Ending, Progress, Stop};
use crate::ids::Key;
use crate::lifecycle::{Command, Failure, Status, retry_delay_millis};

/// How often progress is written at most.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);

impl Runner {
    /// One try from its lease to its end.
    pub(super) async fn attempt(
        self: Arc<Self>,
        claimed: ClaimedJob,
        stop: Stop,
        released: Arc<AtomicBool>,
        lost: Arc<AtomicBool>,
    ) {
        let job = Arc::new(claimed.job.clone());
        let (key, token) = (job.key, job.state.token);
        let progress = Progress::default();
        let mut ending = self.run_handler(claimed, stop, progress).await;
        self.working.fetch_sub(1, Ordering::SeqCst);
        self.services.engine.bells.jobs.notify_one();
        if lost.load(Ordering::SeqCst) {
            // Nobody may have taken the lease yet, and nobody will while this node lives: so it
            // is handed back. If it is somebody else's, the token is refused.
            released.store(true, Ordering::SeqCst);
            ending = Ending::Stopped;
        }
        match self.settle(&job, ending, &released).await {
            Ok(applied) => self.report(&job.submission.job_type, &applied),
            Err(EngineError::Refused(refusal)) => {
                tracing::warn!(%refusal, "the end of this try came too late");
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "the end of this try could not be stored");
            }
        }
        {
            // The job may run here again already, under a newer lease, if this one was lost.
            let mut running = self.running();
            if running.get(&key).is_some_and(|running| running.token == token) {
                running.remove(&key);
            }
        }
        self.busy.fetch_sub(1, Ordering::SeqCst);
        self.freed.notify_waiters();
        self.services.engine.bells.jobs.notify_one();
    }

    fn report(&self, job_type: &str, applied: &Applied) {
        let state = &applied.state;
        let outcome = match state.status {
            Status::Pending if state.failure.is_some() => "retried",
            Status::Pending => "released",
            status => status.as_str(),
        };
        self.metrics.count_job(job_type, outcome);
        match (&state.failure, outcome) {
            (Some(failure), "error" | "retried") => tracing::warn!(
                r#type = job_type,
                outcome,
                code = failure.code,
                detail = failure.detail,
                "job"
            ),
            _ => tracing::info!(r#type = job_type, outcome, "job"),
        }
    }

    /// Runs the handler with its time limit, writing progress meanwhile. A panic is an ending.
    async fn run_handler(&self, claimed: ClaimedJob, stop: Stop, progress: Progress) -> Ending {
        let ClaimedJob { job, secrets } = claimed;
        let Some(handler) = self.handlers.get(job.submission.job_type.as_str()) else {
            let detail = format!("this server has no handler for {}", job.submission.job_type);
            return Ending::permanent("no_handler", detail);
        };
        let (key, token) = (job.key, job.state.token);
        let limit = job
            .submission
            .timeout_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(self.limits.timeout, Duration::from_secs);
        let context = Context {
            job,
            secrets,
            services: Arc::clone(&self.services),
            progress: progress.clone(),
            stop,
        };
        let handler = Arc::clone(handler);
        let work = std::panic::AssertUnwindSafe(async move { handler.run(context).await });
        let mut work = std::pin::pin!(work.catch_unwind());
        // Most tries are over at once; the timers are for the others.
        if let Some(ending) = work.as_mut().now_or_never() {
            return ending.unwrap_or_else(panicked);
        }
        // The work goes on while its progress is being written, however long that takes.
        tokio::select! {
            ending = &mut work => ending.unwrap_or_else(panicked),
            () = tokio::time::sleep(limit) => {
                let detail = format!("one try may take {} s", limit.as_secs());
                Ending::permanent("timeout", detail)
            }
            never = self.write_progress(key, token, &progress) => match never {},
        }
    }

    /// Writes how far a try is whenever that has changed.
    async fn write_progress(&self, key: Key, token: i64, progress: &Progress) -> Infallible {
        let mut written = 0.0;
        loop {
            tokio::time::sleep(PROGRESS_PERIOD).await;
            let fraction = progress.get();
            if fraction != written {
                written = fraction;
                let command = Command::Progress { token, fraction };
                if let Err(EngineError::Refused(_)) = self.services.engine.apply(key, command).await
                {
                    self.lose(key, token);
                }
            }
        }
    }

    /// Applies an ending; goes on trying while the database cannot be reached, because work that
    /// is done should not be done again.
    async fn settle(
        &self,
        job: &Arc<StoredJob>,
        ending: Ending,
        released: &AtomicBool,
    ) -> EngineResult<Applied> {
        let engine = &self.services.engine;
        let (application, key, token) = (job.application, job.key, job.state.token);
        let (command, product) = match ending {
            Ending::Done(product) => (None, Some(product)),
            Ending::Stopped if released.load(Ordering::SeqCst) => {
                (Some(Command::Release { token }), None)
            }
            Ending::Stopped => (Some(Command::Halt { token }), None),
            Ending::Failed { failure, transient } => {
                let wait = retry_delay_millis(job.state.attempt, (self.chance)());
                let retry_at = transient.then(|| engine.now().plus_millis(wait));
                (Some(Command::Fail { token, failure, retry_at }), None)
            }
        };
        let mut pause = Duration::from_millis(100);
        loop {
            let result = match (&command, &product) {
                (Some(command), _) => engine.apply_of(application, key, command.clone()).await,
                (None, Some(product)) => {
                    let outputs = product.outputs.clone();
                    engine.succeed(job, outputs, Arc::clone(&product.render)).await
                }
                (None, None) => {
                    let failure = Failure::new("internal", "the handler gave no ending");
                    let command = Command::Fail { token, failure, retry_at: None };
                    engine.apply_of(application, key, command).await
                }
            };
            match result {
                Err(error) if error.is_passing() => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                other => return other,
            }
        }
    }
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Ending {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    tracing::error!(panic = text, "a handler panicked");
    // The text may quote input, so it stays in the log.
    Ending::permanent("handler_panicked", "the handler of this job failed unexpectedly")
}
