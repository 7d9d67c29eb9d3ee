//! `urn:job:import.file`: fetches one file over HTTP and stores it.
//!
//! The body goes straight from the socket into the store. Must not judge addresses: that is done
//! at ingress with the URL that `check` names, and again by the client at every request.

mod fetch;
mod name;
mod specification;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::BoxFuture;
use serde_json::Value;

use self::fetch::Fetched;
use self::specification::Order;
use super::work::{self, StagedKeys, unless_stopped};
use super::{Context, Ending, Handler, Product};
use crate::egress::SendError;
use crate::engine::{Checked, JobType, SourceName};
use crate::files::{BlobError, media_type};

/// See the module.
pub struct ImportFile;

impl JobType for ImportFile {
    fn name(&self) -> &'static str {
        "urn:job:import.file"
    }

    fn check(&self, specification: &Value, sources: &[SourceName]) -> Result<Checked, String> {
        if !sources.is_empty() {
            return Err(format!(
                "sources has {} entries; allowed with urn:job:import.file: none, the file comes \
                 from specification.sourceUrl",
                sources.len()
            ));
        }
        let order = Order::read(specification)?;
        Ok(Checked {
            specification: order.shown(),
            secrets: order.secrets(),
            sources: Vec::new(),
            outside_url: Some(order.url),
        })
    }
}

impl Handler for ImportFile {
    fn run(self: Arc<Self>, context: Context) -> BoxFuture<'static, Ending> {
        Box::pin(async move { import(&context).await.map_or_else(|ending| ending, Ending::Done) })
    }
}

async fn import(context: &Context) -> Result<Product, Ending> {
    let services = &context.services;
    let order = Order::restored(&work::specification(context), &context.secrets)
        .map_err(|why| Ending::permanent("specification_invalid", why))?;
    let own = context.job.submission.timeout_seconds.and_then(|limit| u64::try_from(limit).ok());
    let deadline = own.map_or(services.import_deadline, |limit| {
        services.import_deadline.min(Duration::from_secs(limit))
    });

    let opened = fetch::open(&services.egress, &order, deadline, services.max_file_bytes);
    let Fetched { download, length, proposed, declared } =
        unless_stopped(&context.stop, opened).await??;

    let staged_keys = StagedKeys::new(&services.blobs);
    let (mut received, progress) = (0_u64, context.progress.clone());
    let body = futures_util::stream::try_unfold(download, |mut download| async move {
        Ok::<_, SendError>(download.chunk().await?.map(|chunk| (chunk, download)))
    })
    .inspect_ok(move |chunk| {
        received = received.saturating_add(chunk.len() as u64);
        if let Some(length) = length.filter(|length| *length > 0) {
            progress.set((received as f64 / length as f64).min(1.0));
        }
    });
    let staging = services.blobs.stage(staged_keys.next(), body, services.max_file_bytes);
    let staged = unless_stopped(&context.stop, staging).await?.map_err(staging_failure)?;
    if length.is_some_and(|length| length != staged.size) {
        let detail = format!("the source sent {} of {} bytes", staged.size, length.unwrap_or(0));
        return Err(Ending::transient("body_closed", detail));
    }

    let name = proposed.or_else(|| name::from_url(&order.url));
    let kind = media_type(
        order
            .destination
            .path_for(name.as_deref().unwrap_or("-"))
            .as_ref()
            .map_or("", |p| p.as_str()),
        declared.as_deref(),
        &staged.head,
    );
    let name = name.unwrap_or_else(|| name::invented(context.job.id, &kind));
    let path = order
        .destination
        .path_for(&name)
        .map_err(|why| Ending::permanent("destination_invalid", why.to_string()))?;
    let output = work::output(&path, &staged, kind, order.destination.acl);
    staged_keys.keep();
    Ok(Product { outputs: vec![output], render: Arc::new(|files| work::payload(&files.first())) })
}

/// Storing fails either because the source did or because the store did.
fn staging_failure(error: BlobError) -> Ending {
    match error {
        BlobError::Source(source) => match source.downcast::<SendError>() {
            Ok(error) => fetch::failure(&error),
            Err(source) => {
                tracing::warn!(error = &*source as &dyn Error, "an import broke off");
                Ending::transient("source_failed", "the source could not be read to its end")
            }
        },
        error => work::blob_failure("the source", &error),
    }
}
