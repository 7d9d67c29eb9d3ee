//! Files as the engine keeps them: a path, an id, versions. The bytes are somebody else's.

use std::sync::OnceLock;

use serde::Serialize;
use uuid::Uuid;

use super::Engine;
use super::callers::Caller;
use super::core::Core;
use super::error::{EngineError, EngineResult};
use super::ledger::{Ledger, Occurrence};
use super::operation::subject;
use super::stored::{json_null, read_id};
use crate::ids::{Key, SubjectKind, Timestamp, new_id};
use crate::lifecycle::EventType;
use crate::store::files::{FileRow, NewVersion};
use crate::store::{StoreResult, Transaction, files};

/// Bytes that are stored and wait to be published under a path.
#[derive(Clone, Debug)]
pub struct Output {
    /// Where to.
    pub path: String,
    /// Key of the bytes.
    pub version: Uuid,
    /// Id of the file, if the path is new.
    pub file_id: Uuid,
    /// Bytes.
    pub size: u64,
    /// Hex.
    pub sha256: String,
    /// MIME type.
    pub media_type: String,
    /// public or private.
    pub acl: String,
}

/// A file as the API shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Id.
    pub id: Uuid,
    /// Path.
    pub path: String,
    /// SHA-256, hex.
    pub hash: String,
    /// MIME type.
    pub mime_type: String,
    /// `-`: a file.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Bytes.
    pub size: i64,
    /// public or private.
    pub acl: String,
    /// Nothing removes it by itself.
    pub lifecycle: Option<()>,
    /// `urn:file:<id>`
    pub urn: String,
    /// When the path was first used.
    pub date_created: Timestamp,
    /// When this version came.
    pub date_updated: Timestamp,
    /// Key of the bytes.
    #[serde(skip)]
    pub version: Uuid,
}

impl Descriptor {
    pub(super) fn read(row: FileRow) -> StoreResult<Descriptor> {
        let id = read_id(&row.public_id)?;
        Ok(Descriptor {
            id,
            path: row.path,
            hash: row.sha256,
            mime_type: row.media_type,
            kind: "-",
            size: row.size,
            acl: row.acl,
            lifecycle: None,
            urn: format!("urn:file:{id}"),
            date_created: Timestamp(row.created_at),
            date_updated: Timestamp(row.updated_at),
            version: read_id(&row.version_id)?,
        })
    }
}

/// Puts outputs at their paths inside a transaction, with event `file.created` for each; the files
/// in the order of the outputs. Of two outputs with one path the later one stays. Lanes on which the
/// events are owed are added.
pub(super) fn publish(
    core: &Core,
    transaction: &mut Transaction<'_>,
    application: Key,
    outputs: &[Output],
    now: Timestamp,
    lanes: &mut Vec<i64>,
) -> StoreResult<Vec<Descriptor>> {
    let mut descriptors = Vec::with_capacity(outputs.len());
    let mut rest = outputs;
    while !rest.is_empty() {
        let (round, later) = rest.split_at(different_paths(rest));
        rest = later;
        let mut versions = Vec::with_capacity(round.len());
        for output in round {
            versions.push(NewVersion {
                file_key: transaction.key()?,
                file_id: output.file_id,
                path: output.path.clone(),
                version_id: output.version,
                size: i64::try_from(output.size).unwrap_or(i64::MAX),
                sha256: output.sha256.clone(),
                media_type: output.media_type.clone(),
                acl: output.acl.clone(),
            });
        }
        let rows = files::put(transaction, application, &versions, now.0)?;
        append(core, transaction, application, &rows, EventType::FileCreated, now, lanes)?;
        for row in rows {
            descriptors.push(Descriptor::read(row)?);
        }
    }
    Ok(descriptors)
}

/// How many outputs from the start have paths of their own.
fn different_paths(outputs: &[Output]) -> usize {
    let mut seen = std::collections::HashSet::new();
    outputs.iter().position(|output| !seen.insert(&output.path)).unwrap_or(outputs.len())
}

/// Removes a path inside a transaction, with event `file.deleted`; the lanes on which that is owed.
pub(super) fn remove(
    core: &Core,
    transaction: &mut Transaction<'_>,
    application: Key,
    path: &str,
    now: Timestamp,
) -> EngineResult<Vec<i64>> {
    let row = files::remove(transaction, application, path, now.0)?
        .ok_or_else(|| EngineError::not_found("file", path))?;
    let mut lanes = Vec::new();
    append(core, transaction, application, &[row], EventType::FileDeleted, now, &mut lanes)?;
    Ok(lanes)
}

fn append(
    core: &Core,
    transaction: &mut Transaction<'_>,
    application: Key,
    rows: &[FileRow],
    event_type: EventType,
    now: Timestamp,
    lanes: &mut Vec<i64>,
) -> StoreResult<()> {
    let mut ledger = Ledger::default();
    for row in rows {
        let descriptor = Descriptor::read(row.clone())?;
        let data = serde_json::value::to_raw_value(&descriptor).unwrap_or_else(|_| json_null());
        let occurrence = Occurrence {
            subject: row.id,
            kind: SubjectKind::File,
            subject_id: descriptor.id,
            application,
            sequence: row.last_sequence,
            event_id: new_id(),
            event_type,
            job_type: None,
            at: now,
            data: data.get().to_owned(),
            receiver: None,
            request_id: "",
        };
        ledger.announce(transaction, core, occurrence, || data, lanes)?;
    }
    ledger.write(transaction)
}

impl Engine {
    /// Puts stored bytes at a path.
    pub async fn put_file(&self, caller: &Caller, output: Output) -> EngineResult<Descriptor> {
        let application = caller.application;
        let key = subject("path", (application, &output.path));
        let (descriptor, lanes) = self
            .custom(vec![key], move |transaction, core, now| {
                if transaction.is_repeated()
                    && !files::versions(transaction, &[output.version])?.is_empty()
                    && let Some(row) = files::at_path(transaction, application, &output.path)?
                {
                    // The first run's commit got no answer.
                    return Ok((Descriptor::read(row)?, Vec::new()));
                }
                let (outputs, mut lanes) = (std::slice::from_ref(&output), Vec::new());
                let published = publish(core, transaction, application, outputs, now, &mut lanes)?;
                let descriptor = published.into_iter().next().ok_or_else(super::confused)?;
                Ok((descriptor, lanes))
            })
            .await?;
        self.bells.ring_lanes(&lanes);
        Ok(descriptor)
    }

    /// Removes a path.
    pub async fn delete_file(&self, caller: &Caller, path: String) -> EngineResult<()> {
        let application = caller.application;
        let key = subject("path", (application, &path));
        let removed = OnceLock::new();
        let lanes = self
            .custom(vec![key], move |transaction, core, now| {
                match remove(core, transaction, application, &path, now) {
                    Ok(lanes) => {
                        let _ = removed.set(());
                        Ok(lanes)
                    }
                    // By the first run, whose commit got no answer.
                    Err(EngineError::NotFound { .. }) if removed.get().is_some() => Ok(Vec::new()),
                    Err(error) => Err(error),
                }
            })
            .await?;
        self.bells.ring_lanes(&lanes);
        Ok(())
    }
}
