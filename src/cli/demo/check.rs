//! Whether what the server stored is what it was given, byte for byte.

use anyhow::Context as _;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::material::Original;
use crate::cli::api::Api;

/// SHA-256 in hex.
pub(super) fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Fetches a stored file and compares it with its original.
pub(super) async fn same(api: &Api, path: &str, original: &Original) -> anyhow::Result<()> {
    let stored = api.get(&format!("/v1/files{path}")).await?;
    anyhow::ensure!(
        hash(&stored) == hash(&original.bytes),
        "{path} differs from its original {}",
        original.name
    );
    Ok(())
}

#[derive(Deserialize)]
struct Row {
    path: String,
    hash: String,
}

/// Whether a report of an extraction lists exactly these files with their hashes.
pub(super) async fn report(
    api: &Api,
    path: &str,
    folder: &str,
    originals: &[Original],
) -> anyhow::Result<()> {
    let rows = api.get_json(&format!("/v1/files{path}")).await?;
    let rows: Vec<Row> = serde_json::from_value(rows).context("the report of the extraction")?;
    anyhow::ensure!(rows.len() == originals.len(), "the report lists {} files", rows.len());
    for original in originals {
        let (path, hash) = (format!("{folder}/{}", original.name), hash(&original.bytes));
        let listed = rows.iter().any(|row| row.path == path && row.hash == hash);
        anyhow::ensure!(listed, "{path} is not in the report with its hash");
    }
    Ok(())
}
