//! The handlers at work: a real engine on SQLite, real bytes in a local folder, a real socket.
//!
//! No runner: a test claims, runs the handler and applies its product itself, so that each step
//! can be looked at.

mod archive;
mod import;

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use ringback::clock::Clock;
use ringback::egress::{Client, Policy, ScriptedResolver};
use ringback::engine::{
    Applied, Caller, Engine, NewJob, Output, Parts, Sealer, SourceName, lookup_of,
};
use ringback::files::Blobs;
use ringback::formats::Formats;
use ringback::handlers::archive::Limits;
use ringback::handlers::{self, Context, Ending, Handler, Services, Stop, context::Progress};
use ringback::ids::new_id;
use ringback::store::{Access, Store};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::node::bounded;

struct World {
    engine: Arc<Engine>,
    caller: Caller,
    services: Arc<Services>,
    handlers: Vec<Arc<dyn Handler>>,
    folder: TempDir,
}

impl World {
    async fn new() -> World {
        World::with(1 << 30, Limits::default()).await
    }

    async fn with(max_file_bytes: u64, archive_limits: Limits) -> World {
        let folder = tempfile::tempdir().unwrap();
        let temporary = folder.path().join("work");
        std::fs::create_dir(&temporary).unwrap();
        let url = format!("sqlite://{}", folder.path().join("r.db").display());
        let store = Store::open(&url, Access::Server).unwrap();
        let handlers = handlers::all();
        let engine = Engine::start(Parts {
            store,
            clock: Clock::system(),
            catalog: handlers::catalog(&handlers),
            formats: Formats::standard_only(),
            sealer: Sealer::new(&[7; 32]).unwrap(),
            public_url: "http://localhost".to_owned(),
            disable_after: Duration::from_secs(120 * 60 * 60),
            lane_rate: None,
            observe_batch: Box::new(|_| {}),
        });
        let engine = Arc::new(engine.await.unwrap());
        engine.beat(engine.now()).await.unwrap();
        let new = engine.create_application("test", &["*".to_owned()], None, None).await.unwrap();
        let caller = engine.authenticate(lookup_of(&new.api_key)).await.unwrap().unwrap();
        let policy = Policy { allow: vec!["127.0.0.1/32".parse().unwrap()], ..Policy::default() };
        let services = Services {
            engine: Arc::clone(&engine),
            blobs: Blobs::local(&folder.path().join("files")).unwrap(),
            egress: Client::new(policy, Arc::new(ScriptedResolver::new())),
            temporary,
            max_file_bytes,
            import_deadline: Duration::from_secs(20),
            archive_limits,
        };
        World { engine, caller, services: Arc::new(services), handlers, folder }
    }

    async fn put(&self, path: &str, content: impl Into<Vec<u8>>) -> uuid::Uuid {
        let content = bytes::Bytes::from(content.into());
        let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(content)]);
        let staged = self.services.blobs.stage(new_id(), stream, u64::MAX).await.unwrap();
        let output = Output {
            path: path.to_owned(),
            version: staged.key,
            file_id: new_id(),
            size: staged.size,
            sha256: staged.sha256_hex,
            media_type: "text/plain".to_owned(),
            acl: "public".to_owned(),
        };
        self.engine.put_file(&self.caller, output).await.unwrap().id
    }

    async fn get(&self, path: &str) -> Vec<u8> {
        let file = self.engine.find_file(self.caller.application, path).await.unwrap();
        let opened = self.services.blobs.open(file.version, None).await.unwrap();
        opened.stream.try_collect::<Vec<_>>().await.unwrap().concat()
    }

    async fn begin(&self, job_type: &str, specification: Value) -> Context {
        self.begin_with(job_type, specification, Vec::new()).await
    }

    /// Submits and claims.
    async fn begin_with(
        &self,
        job_type: &str,
        specification: Value,
        sources: Vec<SourceName>,
    ) -> Context {
        let job = NewJob {
            job_type: format!("urn:job:{job_type}"),
            specification,
            sources,
            group_id: None,
            callback: None,
            metadata: None,
            priority: 0,
            queue: "default".to_owned(),
            run_at: None,
            expires_at: None,
            max_attempts: None,
            timeout_seconds: None,
        };
        self.engine.submit(&self.caller, job, None, "request").await.unwrap();
        let batch = self.engine.claim(vec![("default".to_owned(), 1)], 1).await.unwrap();
        let claimed = batch.jobs.into_iter().next().unwrap();
        let (_, stop) = Stop::new();
        Context {
            job: claimed.job,
            secrets: claimed.secrets,
            services: Arc::clone(&self.services),
            progress: Progress::default(),
            stop,
        }
    }

    async fn work(&self, context: Context) -> Ending {
        let name = context.job.submission.job_type.clone();
        let handler = self.handlers.iter().find(|handler| handler.name() == name).unwrap();
        let ending = Arc::clone(handler).run(context).await;
        // Dropped as in the runner, before the ending is looked at.
        assert_eq!(std::fs::read_dir(&self.services.temporary).unwrap().count(), 0);
        ending
    }

    /// Runs to a success and publishes; the result's payload.
    async fn done(&self, job_type: &str, specification: Value) -> Value {
        let context = self.begin(job_type, specification).await;
        self.finish(context).await
    }

    async fn finish(&self, context: Context) -> Value {
        let (job, progress) = (Arc::new(context.job.clone()), context.progress.clone());
        let product = match self.work(context).await {
            Ending::Done(product) => product,
            Ending::Failed { failure, .. } => panic!("{failure:?}"),
            Ending::Stopped => panic!("stopped"),
        };
        assert!(progress.get() > 0.99, "{}", progress.get());
        let applied: Applied =
            self.engine.succeed(&job, product.outputs, product.render).await.unwrap();
        let result = applied.state.result.unwrap();
        serde_json::from_str(result.payload.get()).unwrap()
    }

    async fn fails(&self, job_type: &str, specification: Value) -> (String, bool, String) {
        let context = self.begin(job_type, specification).await;
        match self.work(context).await {
            Ending::Failed { failure, transient } => (failure.code, transient, failure.detail),
            Ending::Done(_) => panic!("it went well"),
            Ending::Stopped => panic!("stopped"),
        }
    }

    fn blobs(&self) -> usize {
        fn count(folder: &std::path::Path) -> usize {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
        }
        count(&self.folder.path().join("files"))
    }

    /// Staged bytes are removed by a task of their own.
    async fn has_blobs(&self, wanted: usize) {
        bounded("staged bytes to be removed", || self.blobs() == wanted).await;
    }
}

/// Asks for a stop as soon as so much is done. The switch it gives is to be kept until the work ends.
fn stop_after(
    switch: watch::Sender<bool>,
    progress: Progress,
    done: f64,
) -> JoinHandle<watch::Sender<bool>> {
    tokio::spawn(async move {
        bounded("work to be under way", || progress.get() > done).await;
        switch.send_replace(true);
        switch
    })
}
