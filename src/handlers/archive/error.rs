//! Why an archive was refused or could not be finished: one enum at the border of this folder.
//!
//! Every message names the entry and what would have been allowed, because it ends up in front of
//! the person who sent the archive. Must not know statuses, HTTP or how a job fails.

use std::io;

use thiserror::Error;

/// What a `Sink` answers when it cannot keep a file.
#[derive(Debug, Error)]
pub enum SinkError {
    /// The place where files go failed; another try may work.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is not wanted, and would not be at another try.
    #[error("{0}")]
    Refused(String),
}

#[derive(Debug, Error)]
pub enum ArchiveError {
    #[error("{value:?} is not an archive type; allowed are {allowed}")]
    UnknownFormat { value: String, allowed: &'static str },

    #[error("{value:?} is not a report format; allowed are {allowed}")]
    UnknownReportFormat { value: String, allowed: &'static str },

    #[error("the file is {found}; accepted are zip, tar, tar.gz and tar.bz2")]
    NotAnArchive { found: String },

    #[error("the archive is damaged{}: {reason}", at(.entry))]
    BadArchive { entry: Option<String>, reason: String },

    #[error("the path {path} is refused: {reason}")]
    UnsafePath { path: String, reason: &'static str },

    #[error("the entry {entry} is {found}; accepted are plain files and folders{hint}")]
    UnsupportedEntry { entry: String, found: String, hint: &'static str },

    #[error("{what} is over the limit of {allowed}{}", at(.entry))]
    TooLarge { what: &'static str, allowed: u64, entry: Option<String> },

    #[error("the path {path} {clash}; every entry needs a path of its own")]
    DuplicatePath { path: String, clash: String },

    #[error("the source of {entry} holds {found} than the {expected} bytes it was said to hold")]
    WrongSize { entry: String, expected: u64, found: &'static str },

    #[error("stopped by request")]
    Stopped,

    /// Reading what was given to us failed: the archive to extract, or a file to pack.
    #[error("reading {what} failed: {source}")]
    Source { what: String, source: io::Error },

    #[error("writing the archive failed: {0}")]
    Output(io::Error),

    #[error("storing {entry} failed: {source}")]
    Sink { entry: String, source: SinkError },
}

impl ArchiveError {
    /// Stable across versions; callers match on it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownFormat { .. } => "unknown_format",
            Self::UnknownReportFormat { .. } => "unknown_report_format",
            Self::NotAnArchive { .. } => "not_an_archive",
            Self::BadArchive { .. } => "bad_archive",
            Self::UnsafePath { .. } => "unsafe_path",
            Self::UnsupportedEntry { .. } => "unsupported_entry",
            Self::TooLarge { .. } => "too_large",
            Self::DuplicatePath { .. } => "duplicate_path",
            Self::WrongSize { .. } => "wrong_size",
            Self::Stopped => "stopped",
            Self::Source { .. } | Self::Output(_) => "io",
            Self::Sink { source: SinkError::Io(_), .. } => "io",
            Self::Sink { source: SinkError::Refused(_), .. } => "refused",
        }
    }

    /// Whether the same work could succeed at another try: only when the input itself was fine
    /// and reading it, or handing a file on, is what failed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Source { .. } | Self::Sink { source: SinkError::Io(_), .. })
    }

    pub(super) fn bad(reason: impl ToString) -> Self {
        Self::BadArchive { entry: None, reason: reason.to_string() }
    }

    pub(super) fn bad_entry(entry: impl AsRef<[u8]>, reason: impl ToString) -> Self {
        Self::BadArchive { entry: Some(shown(entry)), reason: reason.to_string() }
    }
}

/// A name from an archive, made fit for a message: quoted, escaped, and not longer than a line.
pub(super) fn shown(raw: impl AsRef<[u8]>) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(raw.as_ref());
    let start: String = text.chars().take(LONGEST).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    format!("\"{}{more}\"", start.escape_debug())
}

fn at(entry: &Option<String>) -> String {
    entry.as_ref().map(|entry| format!(" at {entry}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_messages_are_escaped_and_short() {
        assert_eq!(shown(b"a\x1b[2J\n"), "\"a\\u{1b}[2J\\n\"");
        assert!(shown("é".repeat(5000)).len() < 500);
    }

    #[test]
    fn only_failures_around_the_archive_are_transient() {
        let source = ArchiveError::Source { what: "x".into(), source: io::Error::other("gone") };
        assert!(source.is_transient() && source.code() == "io");
        assert!(!ArchiveError::Output(io::Error::other("full")).is_transient());
        assert!(!ArchiveError::bad("no").is_transient());
        let refused = SinkError::Refused("no".into());
        assert!(!ArchiveError::Sink { entry: "x".into(), source: refused }.is_transient());
    }
}
