//! The native API, version 1, as `openapi/document.json` describes it.
//!
//! One file a kind of thing; what they share is in `entry` (who calls), `parse` (bodies), `query`
//! (parameters), `job_type`, `paging` and `idempotency`. Must not know faces.

pub mod batch;
pub mod callback;
pub mod deliveries;
pub mod endpoints;
mod entry;
pub mod events;
pub mod feed;
mod file_view;
pub mod files;
pub mod groups;
mod idempotency;
mod job_type;
pub mod jobs;
mod list_jobs;
mod paging;
mod parse;
mod query;
mod range;
pub mod receiver;
mod submission;
