//! The loop that removes what is old enough, and bytes that nobody owns. Must not know what may go:
//! the engine judges that.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Keeper;
use crate::engine::FeedPasses;
use crate::ids::Timestamp;

/// How often retention runs.
const RETENTION_PERIOD: Duration = Duration::from_secs(60);
/// Pages in a row with nothing old enough that end a pass. Writers draw keys in blocks, so keys
/// tell the order of rows only roughly.
const FRESH_PAGES: usize = 40;
/// How often bytes without an owner are looked for.
const ORPHAN_PERIOD: Duration = Duration::from_secs(6 * 60 * 60);
/// Bytes that no transaction claimed are orphans after this time.
const ORPHAN_AGE_MILLIS: i64 = 24 * 60 * 60 * 1_000;
/// Superseded versions are kept this long for requests that are just reading them.
const SUPERSEDED_AGE_MILLIS: i64 = 60 * 60 * 1_000;

impl Keeper {
    /// Purges what is old enough, in bounded batches with a breath between them.
    pub(super) async fn retain(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        let mut swept: Option<Instant> = None;
        let mut feed = FeedPasses::default();
        while !*shutdown.borrow() {
            let mut result = self.retain_once(&mut feed, &shutdown).await;
            if result.is_ok() && swept.is_none_or(|at| at.elapsed() > ORPHAN_PERIOD) {
                swept = Some(Instant::now());
                result = self.sweep_orphans(self.engine.now()).await;
            }
            if let Err(error) = result {
                let error: &dyn std::error::Error = error.as_ref();
                tracing::error!(error, "retention failed");
            }
            tokio::select! {
                () = tokio::time::sleep(RETENTION_PERIOD) => {}
                _ = shutdown.changed() => {}
            }
        }
    }

    async fn retain_once(
        &self,
        feed: &mut FeedPasses,
        shutdown: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let now = self.engine.now();
        let before = now.plus_millis(-self.retention_millis);
        let mut purged = 0;
        for kind in ["jobs", "groups", "files", "endpoints"] {
            let mut cursor = 0;
            let mut fresh = 0;
            while !*shutdown.borrow() && fresh < FRESH_PAGES {
                let page = match kind {
                    "jobs" => self.engine.purge_jobs(before, cursor).await?,
                    "groups" => self.engine.purge_groups(before, cursor).await?,
                    "endpoints" => self.engine.purge_endpoints(before, cursor).await?,
                    _ => self.engine.purge_files(before, cursor).await?,
                };
                purged += page.purged;
                fresh = if page.fresh { fresh + 1 } else { 0 };
                let Some(next) = page.next else { break };
                cursor = next;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        while !*shutdown.borrow() {
            let step = self.engine.purge_feed(before, feed).await?;
            purged += step.purged;
            if step.done {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if purged > 0 {
            tracing::info!(purged, "retention");
        }
        // A callback is touched at most a day before its last use.
        let callbacks = before.plus_millis(-2 * 24 * 60 * 60 * 1_000);
        self.engine.purge_leftovers(callbacks).await?;
        self.sweep_superseded(now).await
    }

    /// Removes bytes of versions that were replaced or deleted and that no live job reads.
    async fn sweep_superseded(&self, now: Timestamp) -> anyhow::Result<()> {
        let blobs = &self.state.blobs;
        let unread = self.engine.unread_versions(now.plus_millis(-SUPERSEDED_AGE_MILLIS)).await?;
        for version in &unread {
            blobs.delete(*version).await?;
        }
        if !unread.is_empty() {
            self.engine.forget_versions(unread).await?;
        }
        Ok(())
    }

    /// Removes bytes that were staged and never published. Lists all bytes, so it is done rarely.
    async fn sweep_orphans(&self, now: Timestamp) -> anyhow::Result<()> {
        use futures_util::StreamExt;
        let blobs = &self.state.blobs;
        let cutoff = now.plus_millis(-ORPHAN_AGE_MILLIS).to_datetime();
        blobs.remove_unfinished(cutoff).await?;
        let mut old = blobs.list_older_than(cutoff).chunks(500);
        while let Some(page) = old.next().await {
            let keys: Vec<uuid::Uuid> = page.into_iter().collect::<Result<_, _>>()?;
            for orphan in self.engine.unknown_versions(keys).await? {
                blobs.delete(orphan).await?;
            }
        }
        Ok(())
    }
}
