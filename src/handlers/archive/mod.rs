//! `archive.create` and `archive.extract`: two handlers on top of one blocking core.
//!
//! Whatever is read here came from a stranger: an archive is refused, with the entry named, rather
//! than interpreted generously. The core (`read*`, `write*` and what they need) must not know jobs,
//! files, stores, HTTP or async. The handlers (`create`, `extract`) run it on a blocking thread and
//! reach it through `Control`, `Entry` and `Sink`; `packing` and `unpacking` join the two.

mod control;
mod create;
mod entry_path;
mod error;
mod extract;
mod format;
mod measured;
mod packing;
mod read;
mod read_tar;
mod read_zip;
mod report;
mod run;
mod source;
mod specification;
mod tar_header;
mod unpacking;
mod write;
mod write_zip;

#[cfg(test)]
mod tests;

pub use control::Control;
pub use create::CreateArchive;
pub use entry_path::{MAX_ENTRY_PATH_BYTES, safe_entry_path};
pub use error::{ArchiveError, SinkError};
pub use extract::ExtractArchive;
pub use format::{ArchiveFormat, detect};
pub use read::{Limits, Sink, Summary, extract};
pub use report::{ReportFormat, ReportRow, render};
pub use write::{Entry, Open, unique_paths, write_archive};
