//! `urn:job:archive.extract`: unpacks a stored archive into files, with a report if wanted.
//!
//! Nothing is seen of the files before all of them are stored: they are published together, with
//! the job's end.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::create::{not_found, shown};
use super::packing::Watch;
use super::specification::{Extraction, ReportOrder, outside};
use super::unpacking::{Shelf, unpack};
use super::{Limits, ReportRow, render};
use crate::engine::{Checked, Descriptor, EngineError, JobType, Output, SourceName};
use crate::files::FilePath;
use crate::handlers::work::{self, StagedKeys, archive_failure, blob_failure, unless_stopped};
use crate::handlers::{Context, Ending, Handler, Product};

/// The part of the progress that fetching the archive is.
const FETCHING: f64 = 0.1;
/// How many paths are looked up at once for a report.
const ASKED_AT_ONCE: usize = 4;

/// See the module.
pub struct ExtractArchive;

impl JobType for ExtractArchive {
    fn name(&self) -> &'static str {
        "urn:job:archive.extract"
    }

    fn check(&self, specification: &Value, sources: &[SourceName]) -> Result<Checked, String> {
        let extraction = Extraction::read(specification)?;
        if let Some(report) = &extraction.report {
            let name = format!("{}.{}", uuid::Uuid::nil(), report.extension());
            report
                .destination
                .path_for(&name)
                .map_err(|why| format!("specification.extractedFilesReport.destination: {why}"))?;
        }
        let sources = match &extraction.source {
            Some(_) if !sources.is_empty() => {
                return Err(format!(
                    "sources has {} entries beside specification.source; allowed: one of the two",
                    sources.len()
                ));
            }
            Some(source) => vec![source.clone()],
            None if sources.is_empty() => {
                return Err("specification.source is missing; allowed: {path | fileId}".to_owned());
            }
            None => outside(sources, 1)?,
        };
        Ok(Checked {
            specification: extraction.shown(),
            secrets: Value::Null,
            sources,
            outside_url: None,
        })
    }
}

impl Handler for ExtractArchive {
    fn run(self: Arc<Self>, context: Context) -> BoxFuture<'static, Ending> {
        Box::pin(async move { extract(&context).await.map_or_else(|ending| ending, Ending::Done) })
    }
}

async fn extract(context: &Context) -> Result<Product, Ending> {
    let services = &context.services;
    let order = Extraction::read(&work::specification(context))
        .map_err(|why| Ending::permanent("specification_invalid", why))?;
    let source = context.job.submission.sources.first().cloned().unwrap_or_default();
    let shown = shown(&source);
    let version = source.version.ok_or_else(|| not_found(&shown))?;

    let folder = work::folder(services)?;
    let archive = folder.path().join("archive");
    let opened = unless_stopped(&context.stop, services.blobs.open(version, Some(0..1))).await?;
    let size = opened.map_or(1, |opened| opened.size);
    let (stop, progress) = (context.stop.clone(), context.progress.clone());
    let fetching = services.blobs.download_to(version, &archive, move |done| {
        progress.set(FETCHING * (done as f64 / size as f64).min(1.0));
        if stop.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    unless_stopped(&context.stop, fetching).await?.map_err(|error| blob_failure(&shown, &error))?;

    let staged_keys = StagedKeys::new(&services.blobs);
    let largest = services.archive_limits.max_entry_bytes.min(services.max_file_bytes);
    let shelf = Shelf {
        blobs: services.blobs.clone(),
        staged_keys: staged_keys.clone(),
        directory: order.directory.clone(),
        acl: order.acl,
        limits: Limits { max_entry_bytes: largest, ..services.archive_limits.clone() },
    };
    let progress = context.progress.clone();
    let unpacked = work::blocking(&context.stop, move |wish| {
        let watch = Watch { wish, progress, from: FETCHING, to: 1.0 };
        let unpacked = unpack(&archive, shelf, watch);
        drop(folder);
        unpacked
    })
    .await?;
    let (summary, mut outputs) = unpacked.map_err(|error| {
        // A wait that was broken off looks to the archive like a store that failed.
        if context.stop.requested() { Ending::Stopped } else { archive_failure(&error) }
    })?;

    if let Some(report) = &order.report {
        let reporting = write_report(context, report, &outputs, &staged_keys);
        outputs.push(unless_stopped(&context.stop, reporting).await??);
    }
    staged_keys.keep();
    let (files, bytes) = (summary.files, summary.bytes);
    let report = order.report.as_ref().map(ReportOrder::shown);
    Ok(Product {
        outputs,
        render: Arc::new(move |all| payload(all, files, bytes, report.as_ref())),
    })
}

fn payload(
    published: &[Descriptor],
    files: u64,
    bytes: u64,
    report: Option<&Value>,
) -> Box<serde_json::value::RawValue> {
    let mut payload = json!({"files": files, "bytes": bytes});
    if let Some(report) = report {
        payload["reportFileDescriptor"] = json!(published.last());
        payload["extractedFilesReport"] = report.clone();
    }
    work::payload(&payload)
}

/// Stores the list of files, among the outputs and published with them.
async fn write_report(
    context: &Context,
    report: &ReportOrder,
    outputs: &[Output],
    staged_keys: &StagedKeys,
) -> Result<Output, Ending> {
    let services = &context.services;
    let path = report
        .destination
        .path_for(&format!("{}.{}", context.job.id, report.extension()))
        .map_err(|why| Ending::permanent("destination_invalid", why.to_string()))?;
    let taken: HashSet<&str> = outputs.iter().map(|output| output.path.as_str()).collect();
    if taken.contains(path.as_str()) {
        return Err(clash(&path));
    }
    let rows: Vec<ReportRow> = stream::iter(outputs.iter().cloned())
        .map(|output| row(context, output))
        .buffered(ASKED_AT_ONCE)
        .try_collect()
        .await?;
    let text = Bytes::from(render(report.format, &rows));
    let content = stream::iter([Ok::<_, std::io::Error>(text)]);
    let staged = services
        .blobs
        .stage(staged_keys.next(), content, services.max_file_bytes)
        .await
        .map_err(|error| blob_failure("the report", &error))?;
    let media_type = report.format.mime_type().to_owned();
    Ok(work::output(&path, &staged, media_type, report.destination.acl))
}

fn clash(path: &FilePath) -> Ending {
    let detail = format!(
        "the report would replace {path}, which is in the archive; allowed: a path of its own"
    );
    Ending::permanent("duplicate_path", detail)
}

/// A path that is in use keeps its file's id when a new version comes.
async fn row(context: &Context, output: Output) -> Result<ReportRow, Ending> {
    let found = context.services.engine.find_file(context.job.application, &output.path).await;
    let file_id = match found {
        Ok(descriptor) => descriptor.id,
        Err(EngineError::NotFound { .. }) => output.file_id,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "no look-up for a report");
            return Err(Ending::transient("database_failed", "the database could not be read"));
        }
    };
    Ok(ReportRow {
        path: output.path,
        size: output.size,
        mime_type: output.media_type,
        hash: output.sha256,
        file_id: file_id.to_string(),
    })
}
