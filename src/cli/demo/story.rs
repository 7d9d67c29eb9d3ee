//! What the demo does, step by step, as any application would: over HTTP, with an API key.

use anyhow::Context as _;
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::check;
use super::follow::Follower;
use super::material::Material;
use super::receiver::Receiver;
use crate::cli::api::Api;
use crate::cli::output::say;

const ARCHIVE: &str = "/demo/files.zip";
const UNPACKED: &str = "/demo/unpacked";
const REPORT: &str = "/demo/report.json";
const IMPORTED: &str = "/demo/imported";

/// Tells it; a summary.
pub(super) async fn tell(
    api: &Api,
    receiver: Receiver,
    material: &Material,
    began: Instant,
) -> anyhow::Result<String> {
    let export_url = format!("{}/exports/{}", receiver.base_url, file_name(&material.export.name));
    let callback = json!({
        "url": format!("{}/webhooks", receiver.base_url),
        "events": ["job.*"],
    });
    let authorization = receiver.authorization;
    let mut follower = Follower::new(api, receiver.received, began);

    upload(api, material).await?;

    say!("\narchive.create: packs them into a zip");
    let sources = material
        .files
        .iter()
        .map(|file| json!({"path": format!("/demo/{}", file.name), "pathInArchive": file.name}));
    let packed = json!({
        "type": "urn:job:archive.create",
        "specification": {
            "sources": sources.collect::<Vec<_>>(),
            "destination": {"path": ARCHIVE},
            "archiveType": "zip",
        },
        "callback": callback,
    });
    follower.run(&packed).await?;

    say!("\narchive.extract: unpacks it again, with a report");
    let unpacked = json!({
        "type": "urn:job:archive.extract",
        "specification": {
            "source": {"path": ARCHIVE},
            "destination": {"directory": UNPACKED},
            "extractedFilesReport": {"destination": {"path": REPORT}, "format": "json"},
        },
        "callback": callback,
    });
    follower.run(&unpacked).await?;
    for file in &material.files {
        check::same(api, &format!("{UNPACKED}/{}", file.name), file).await?;
    }
    check::report(api, REPORT, UNPACKED, &material.files).await?;
    say!("           all {} files are as they were (SHA-256)", material.files.len());

    say!("\nimport.file: fetches {} over HTTP, with a secret header", material.export.name);
    let imported = json!({
        "type": "urn:job:import.file",
        "specification": {
            "sourceUrl": export_url,
            "destination": {"path": IMPORTED},
            "externalAuthorization": {"headers": {"Authorization": authorization}},
        },
        "callback": callback,
    });
    follower.run(&imported).await?;
    check::same(api, IMPORTED, &material.export).await?;
    say!("           it is as it was (SHA-256)");

    Ok(format!(
        "{} jobs, {} events, {} webhooks with every signature verified",
        follower.jobs, follower.events, follower.webhooks
    ))
}

async fn upload(api: &Api, material: &Material) -> anyhow::Result<()> {
    say!("");
    let widest = material.files.iter().map(|file| file.name.len()).max().unwrap_or_default();
    for file in &material.files {
        let path = format!("/v1/files/demo/{}", file.name);
        let answer = api.send(Method::PUT, &path, None, file.bytes.clone()).await?;
        let text = String::from_utf8_lossy(&answer.body);
        anyhow::ensure!(answer.status == 201, "PUT {path}: {} {text}", answer.status);
        let stored: Value = serde_json::from_slice(&answer.body).context("a file descriptor")?;
        anyhow::ensure!(
            stored["hash"] == check::hash(&file.bytes),
            "{} was stored with another hash",
            file.name
        );
        say!("uploaded   {:<widest$}  {:>8} bytes", file.name, file.bytes.len());
    }
    Ok(())
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
