//! What the two archive jobs are told, read from JSON and written back as it is stored.
//!
//! Must not know whether the files are there.

use serde_json::{Value, json};

use super::{ArchiveFormat, ReportFormat, safe_entry_path, unique_paths};
use crate::engine::SourceName;
use crate::files::{DirectoryPath, FilePath};
use crate::handlers::destination::Destination;
use crate::handlers::members::{Members, kind};
use crate::ids::parse_id;

const MAX_SOURCES: usize = 10_000;

/// One file to pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub name: SourceName,
    /// Checked and tidied; the file's own path when absent.
    pub path_in_archive: Option<String>,
}

/// A checked `archive.create`.
pub(super) struct Creation {
    /// Absent when the submission's own sources are meant.
    pub sources: Option<Vec<Packed>>,
    pub destination: Destination,
    pub format: ArchiveFormat,
}

/// A checked `archive.extract`.
pub(super) struct Extraction {
    /// Absent when the submission's own source is meant.
    pub source: Option<SourceName>,
    pub directory: DirectoryPath,
    pub acl: &'static str,
    pub report: Option<ReportOrder>,
}

/// A report that is asked for.
#[derive(Clone)]
pub(super) struct ReportOrder {
    pub destination: Destination,
    pub format: ReportFormat,
}

impl Creation {
    pub fn read(specification: &Value) -> Result<Creation, String> {
        const ALLOWED: [&str; 3] = ["sources", "destination", "archiveType"];
        let members = Members::read(specification, "specification", &ALLOWED)?;
        let types = "zip, tar, tar.gz, tar.bz2";
        let format = ArchiveFormat::parse(members.required_text("archiveType", types)?)
            .map_err(|why| format!("{}: {why}", members.place("archiveType")))?;
        let destination = members.required("destination", "{path | directory, acl}")?;
        let destination = Destination::read(destination, &members.place("destination"))?;
        let sources = match members.get("sources") {
            None => None,
            Some(Value::Array(sources)) if sources.is_empty() => None,
            Some(Value::Array(sources)) => Some(packed(sources, &members.place("sources"))?),
            Some(other) => {
                let place = members.place("sources");
                return Err(format!("{place} is {}; allowed: an array", kind(other)));
            }
        };
        Ok(Creation { sources, destination, format })
    }

    pub fn shown(&self) -> Value {
        let mut shown = json!({
            "destination": self.destination.shown(),
            "archiveType": self.format.extension(),
        });
        if let Some(sources) = &self.sources {
            shown["sources"] = sources.iter().map(Packed::shown).collect();
        }
        shown
    }
}

impl Packed {
    fn shown(&self) -> Value {
        let mut shown = shown_source(&self.name);
        if let Some(path) = &self.path_in_archive {
            shown["pathInArchive"] = path.as_str().into();
        }
        shown
    }
}

impl Extraction {
    pub fn read(specification: &Value) -> Result<Extraction, String> {
        const ALLOWED: [&str; 3] = ["source", "destination", "extractedFilesReport"];
        let members = Members::read(specification, "specification", &ALLOWED)?;
        let source = match members.get("source") {
            None => None,
            Some(value) => {
                let place = members.place("source");
                Some(source(&Members::read(value, &place, &["path", "fileId"])?, &place)?)
            }
        };
        let destination = members.required("destination", "{directory, acl}")?;
        let (directory, acl) =
            Destination::read_directory(destination, &members.place("destination"))?;
        let report = match members.get("extractedFilesReport") {
            None => None,
            Some(value) => {
                let place = members.place("extractedFilesReport");
                Some(ReportOrder::read(&Members::read(value, &place, &["destination", "format"])?)?)
            }
        };
        Ok(Extraction { source, directory, acl, report })
    }

    pub fn shown(&self) -> Value {
        let mut shown =
            json!({"destination": {"directory": self.directory.as_str(), "acl": self.acl}});
        if let Some(source) = &self.source {
            shown["source"] = shown_source(source);
        }
        if let Some(report) = &self.report {
            shown["extractedFilesReport"] = report.shown();
        }
        shown
    }
}

impl ReportOrder {
    fn read(members: &Members<'_>) -> Result<ReportOrder, String> {
        let format = ReportFormat::parse(members.required_text("format", "csv, json")?)
            .map_err(|why| format!("{}: {why}", members.place("format")))?;
        let destination = members.required("destination", "{path | directory, acl}")?;
        let destination = Destination::read(destination, &members.place("destination"))?;
        Ok(ReportOrder { destination, format })
    }

    pub fn shown(&self) -> Value {
        json!({"destination": self.destination.shown(), "format": self.extension()})
    }

    pub fn extension(&self) -> &'static str {
        match self.format {
            ReportFormat::Csv => "csv",
            ReportFormat::Json => "json",
        }
    }
}

/// The path a file has in an archive when nobody says otherwise.
pub(super) fn default_path(path: &str) -> Result<String, String> {
    safe_entry_path(path.trim_start_matches('/'))
        .map_err(|why| format!("{why}; allowed: a pathInArchive without that"))
}

/// Refuses what is known to clash before the files are looked at.
pub(super) fn check_paths(sources: &[Packed], place: &str) -> Result<(), String> {
    let mut known = Vec::with_capacity(sources.len());
    for (index, source) in sources.iter().enumerate() {
        match (&source.path_in_archive, &source.name.path) {
            (Some(path), _) => known.push(path.clone()),
            (None, Some(path)) => {
                known.push(default_path(path).map_err(|why| format!("{place}[{index}]: {why}"))?)
            }
            (None, None) => {}
        }
    }
    unique_paths(known.iter().map(String::as_str)).map_err(|why| format!("{place}: {why}"))
}

/// The submission's own sources, for a specification that names none.
pub(super) fn outside(sources: &[SourceName], most: usize) -> Result<Vec<SourceName>, String> {
    check_count(sources.len(), most, "sources")?;
    let checked = sources.iter().enumerate().map(|(index, source)| {
        let place = format!("sources[{index}]");
        let path = source.path.as_deref().map(FilePath::parse).transpose();
        let path = path.map_err(|why| format!("{place}.path: {why}"))?;
        if path.is_none() && source.file_id.is_none() {
            return Err(format!("{place} has neither path nor fileId; allowed: one of them"));
        }
        Ok(SourceName { path: path.map(|path| path.to_string()), file_id: source.file_id })
    });
    checked.collect()
}

fn check_count(count: usize, most: usize, place: &str) -> Result<(), String> {
    if (1..=most).contains(&count) {
        return Ok(());
    }
    let allowed = if most == 1 { "exactly 1".to_owned() } else { format!("1 to {most}") };
    Err(format!("{place} has {count} entries; allowed: {allowed}"))
}

/// As many sources as an archive may have.
pub(super) fn outside_many(sources: &[SourceName]) -> Result<Vec<SourceName>, String> {
    outside(sources, MAX_SOURCES)
}

fn packed(values: &[Value], place: &str) -> Result<Vec<Packed>, String> {
    check_count(values.len(), MAX_SOURCES, place)?;
    let read = values.iter().enumerate().map(|(index, value)| {
        let place = format!("{place}[{index}]");
        let members = Members::read(value, &place, &["path", "fileId", "pathInArchive"])?;
        let name = source(&members, &place)?;
        let path_in_archive = members
            .text("pathInArchive")?
            .map(safe_entry_path)
            .transpose()
            .map_err(|why| format!("{}: {why}", members.place("pathInArchive")))?;
        Ok(Packed { name, path_in_archive })
    });
    let sources: Vec<Packed> = read.collect::<Result<_, String>>()?;
    check_paths(&sources, place)?;
    Ok(sources)
}

fn source(members: &Members<'_>, place: &str) -> Result<SourceName, String> {
    match (members.text("path")?, members.text("fileId")?) {
        (Some(path), None) => {
            let path = FilePath::parse(path).map_err(|why| format!("{place}.path: {why}"))?;
            Ok(SourceName { path: Some(path.to_string()), file_id: None })
        }
        (None, Some(id)) => {
            let file_id = parse_id(id).ok_or_else(|| {
                let id: String = id.chars().take(80).collect();
                format!("{place}.fileId {id:?} is no file id; allowed: a UUID")
            })?;
            Ok(SourceName { path: None, file_id: Some(file_id) })
        }
        (both, _) => {
            let found =
                if both.is_some() { "both path and fileId" } else { "neither path nor fileId" };
            Err(format!("{place} has {found}; allowed: exactly one of them"))
        }
    }
}

fn shown_source(source: &SourceName) -> Value {
    match (&source.path, source.file_id) {
        (Some(path), _) => json!({"path": path}),
        (None, Some(id)) => json!({"fileId": id}),
        (None, None) => json!({}),
    }
}

#[cfg(test)]
#[path = "specification_tests.rs"]
mod tests;
