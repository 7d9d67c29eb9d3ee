//! `urn:job:archive.create`: packs stored files into one archive.
//!
//! What is packed is what was there at submission: versions are pinned then.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use uuid::Uuid;

use super::packing::{Pinned, Watch, pack};
use super::specification::{Creation, Packed, check_paths, default_path, outside_many};
use super::{ArchiveError, unique_paths};
use crate::engine::{Checked, Descriptor, JobType, SourceName};
use crate::files::{BlobError, Blobs};
use crate::handlers::work::{self, StagedKeys, archive_failure, blob_failure, unless_stopped};
use crate::handlers::{Context, Ending, Handler, Product};
use crate::lifecycle::Source;

/// How many sources are asked for their size at once.
const ASKED_AT_ONCE: usize = 16;
/// The part of the progress that packing is; the rest is storing the archive.
const PACKING: f64 = 0.9;

/// See the module.
pub struct CreateArchive;

impl JobType for CreateArchive {
    fn name(&self) -> &'static str {
        "urn:job:archive.create"
    }

    fn check(&self, specification: &Value, sources: &[SourceName]) -> Result<Checked, String> {
        let creation = Creation::read(specification)?;
        let name = format!("{}.{}", Uuid::nil(), creation.format.extension());
        creation
            .destination
            .path_for(&name)
            .map_err(|why| format!("specification.destination: {why}"))?;
        let sources = match &creation.sources {
            Some(_) if !sources.is_empty() => {
                return Err(format!(
                    "sources has {} entries beside specification.sources; allowed: one of the two",
                    sources.len()
                ));
            }
            Some(packed) => packed.iter().map(|source| source.name.clone()).collect(),
            None => {
                let names = outside_many(sources)?;
                let packed =
                    names.iter().cloned().map(|name| Packed { name, path_in_archive: None });
                check_paths(&packed.collect::<Vec<_>>(), "sources")?;
                names
            }
        };
        Ok(Checked {
            specification: creation.shown(),
            secrets: Value::Null,
            sources,
            outside_url: None,
        })
    }
}

impl Handler for CreateArchive {
    fn run(self: Arc<Self>, context: Context) -> BoxFuture<'static, Ending> {
        Box::pin(async move { create(&context).await.map_or_else(|ending| ending, Ending::Done) })
    }
}

async fn create(context: &Context) -> Result<Product, Ending> {
    let services = &context.services;
    let creation = Creation::read(&work::specification(context))
        .map_err(|why| Ending::permanent("specification_invalid", why))?;
    let format = creation.format;
    let path = creation
        .destination
        .path_for(&format!("{}.{}", context.job.id, format.extension()))
        .map_err(|why| Ending::permanent("destination_invalid", why.to_string()))?;
    let named = named(&context.job.submission.sources, creation.sources.as_deref())?;
    let pinned = unless_stopped(&context.stop, measured(&services.blobs, named)).await??;

    let folder = work::folder(services)?;
    let archive = folder.path().join("archive");
    let (blobs, progress) = (services.blobs.clone(), context.progress.clone());
    let (to, cap) = (archive.clone(), services.max_file_bytes);
    // The folder goes along, so that it outlives the work even if nobody waits for it.
    let (packed, _folder) = work::blocking(&context.stop, move |wish| {
        let watch = Watch { wish, progress, from: 0.0, to: PACKING };
        (pack(&blobs, pinned, format, &to, cap, watch), folder)
    })
    .await?;
    let size = packed.map_err(|error| failure(&error, context))?;

    let staged_keys = StagedKeys::new(&services.blobs);
    let (stop, progress) = (context.stop.clone(), context.progress.clone());
    let staging = services.blobs.stage_file(staged_keys.next(), &archive, move |done| {
        progress.set(PACKING + (1.0 - PACKING) * (done as f64 / size.max(1) as f64).min(1.0));
        if stop.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let staged = unless_stopped(&context.stop, staging)
        .await?
        .map_err(|error| blob_failure("the archive", &error))?;
    let media_type = format.mime_type().to_owned();
    let output = work::output(&path, &staged, media_type, creation.destination.acl);
    staged_keys.keep();
    Ok(Product { outputs: vec![output], render: Arc::new(render) })
}

/// Clients disagree on where the descriptor stands in the result, so it stands in both places.
fn render(files: &[Descriptor]) -> Box<serde_json::value::RawValue> {
    let mut payload = json!(files.first());
    if let Value::Object(_) = payload {
        payload["createdFileDescriptor"] = payload.clone();
    }
    work::payload(&payload)
}

/// Every source with its bytes and its path in the archive.
fn named(sources: &[Source], packed: Option<&[Packed]>) -> Result<Vec<(String, Pinned)>, Ending> {
    if packed.is_some_and(|packed| packed.len() != sources.len()) {
        let detail = "the job's sources are not those of its specification";
        return Err(Ending::permanent("specification_invalid", detail));
    }
    let mut named = Vec::with_capacity(sources.len());
    for (index, source) in sources.iter().enumerate() {
        let shown = shown(source);
        let Some(version) = source.version else {
            return Err(not_found(&shown));
        };
        let given = packed.and_then(|packed| packed[index].path_in_archive.clone());
        let path_in_archive = match (given, &source.path) {
            (Some(path), _) => path,
            (None, Some(path)) => default_path(path)
                .map_err(|why| Ending::permanent("unsafe_path", format!("{shown}: {why}")))?,
            (None, None) => return Err(not_found(&shown)),
        };
        named.push((shown, Pinned { version, size: 0, path_in_archive }));
    }
    unique_paths(named.iter().map(|(_, pinned)| pinned.path_in_archive.as_str()))
        .map_err(|error| archive_failure(&error))?;
    Ok(named)
}

/// How a source is called in messages.
pub(super) fn shown(source: &Source) -> String {
    match (&source.path, source.file_id) {
        (Some(path), _) => format!("file {path}"),
        (None, Some(id)) => format!("file {id}"),
        (None, None) => "a source without a name".to_owned(),
    }
}

pub(super) fn not_found(shown: &str) -> Ending {
    let detail = format!("{shown} was not there when the job was submitted; upload it, then retry");
    Ending::permanent("source_not_found", detail)
}

/// Asks the store for sizes, since entries have to say theirs before they are written.
async fn measured(blobs: &Blobs, named: Vec<(String, Pinned)>) -> Result<Vec<Pinned>, Ending> {
    futures_util::stream::iter(named)
        .map(|(shown, pinned)| async move {
            // One byte, so that a bucket does not begin to send what is not read.
            let size = match blobs.open(pinned.version, Some(0..1)).await {
                Ok(opened) => opened.size,
                Err(BlobError::Range { size, .. }) => size,
                Err(error) => return Err(blob_failure(&shown, &error)),
            };
            Ok(Pinned { size, ..pinned })
        })
        .buffered(ASKED_AT_ONCE)
        .try_collect()
        .await
}

fn failure(error: &ArchiveError, context: &Context) -> Ending {
    // A wait that was broken off looks to the archive like a source that failed.
    if context.stop.requested() { Ending::Stopped } else { archive_failure(error) }
}
