//! The real files that the demo works on: of the repository when it is here, else of the binary.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;

/// Files of the repository that are packed: text and data, small and large, in several folders.
const PACKED: [&str; 10] = [
    "README.md",
    "ARCHITECTURE.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "Cargo.toml",
    "Cargo.lock",
    "src/main.rs",
    "src/lib.rs",
    "src/lifecycle/transition.rs",
    "migrations/sqlite/0001_spine/up.sql",
];
/// The one that is imported over HTTP.
const EXPORTED: &str = "src/ingress/openapi/document.json";

/// What the binary carries for wherever there is no repository.
const EMBEDDED: [(&str, &[u8]); 4] = [
    ("Cargo.toml", include_bytes!("../../../Cargo.toml")),
    ("src/main.rs", include_bytes!("../../main.rs")),
    ("src/lib.rs", include_bytes!("../../lib.rs")),
    ("src/cli/demo/material.rs", include_bytes!("material.rs")),
];

/// A file by its path in the repository.
#[derive(Clone, Debug)]
pub(super) struct Original {
    pub name: String,
    pub bytes: Bytes,
}

/// What the demo works on.
pub(super) struct Material {
    /// Where it comes from, for people.
    pub origin: String,
    /// To be uploaded and packed.
    pub files: Vec<Original>,
    /// To be imported.
    pub export: Original,
}

/// Reads the files.
pub(super) fn find() -> anyhow::Result<Material> {
    match repository() {
        Some(root) => from_repository(&root),
        None => embedded(),
    }
}

fn from_repository(root: &Path) -> anyhow::Result<Material> {
    let read = |name: &str| {
        let bytes = std::fs::read(root.join(name));
        let bytes = bytes.with_context(|| format!("cannot read {name}"))?;
        Ok::<_, anyhow::Error>(Original { name: name.to_owned(), bytes: bytes.into() })
    };
    let there = PACKED.iter().filter(|name| root.join(name).is_file());
    Ok(Material {
        origin: format!("of the repository in {}", root.display()),
        files: there.map(|name| read(name)).collect::<Result<_, _>>()?,
        export: read(EXPORTED)?,
    })
}

fn embedded() -> anyhow::Result<Material> {
    let originals = EMBEDDED
        .map(|(name, bytes)| Original { name: name.to_owned(), bytes: Bytes::from_static(bytes) });
    Ok(Material {
        origin: "that this binary carries".to_owned(),
        export: originals.first().cloned().context("no embedded files")?,
        files: originals.into(),
    })
}

/// The repository around the current folder, or else the one this binary was built from.
fn repository() -> Option<PathBuf> {
    let current = std::env::current_dir().ok();
    let around = current.iter().flat_map(|folder| folder.ancestors().map(Path::to_owned));
    let built_from = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    around.chain([built_from]).find(|folder| is_ours(folder))
}

fn is_ours(folder: &Path) -> bool {
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    manifest.lines().any(|line| line == "name = \"ringback\"") && folder.join(EXPORTED).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_from_the_repository_or_from_the_binary() {
        let found = find().unwrap();
        assert!(found.origin.contains("repository"), "{}", found.origin);
        assert!(found.files.len() >= 5);
        let carried = embedded().unwrap();
        let manifest = found.files.iter().find(|file| file.name == "Cargo.toml").unwrap();
        assert_eq!(carried.files[0].bytes, manifest.bytes);
    }
}
