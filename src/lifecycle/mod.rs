//! The rules of a job's life: which command may follow which state, and what it leaves behind.
//!
//! Pure: no Diesel, no actix, no clock, no randomness, no async. Time and new run times come in as
//! arguments; refusals are values. `decide` turns a command into events and `evolve` folds events
//! into a state, so the stored row and the event log cannot tell two stories.
//!
//! | from \ command | start | progress | succeed | fail | halt | release | rescue | stop | expire | trash | restore |
//! |---|---|---|---|---|---|---|---|---|---|---|---|
//! | pending  | working | – | – | – | – | – | – | stopped | error | – | – |
//! | working  | – | working | success | pending, error | error | pending | pending, error | stopping | – | – | – |
//! | stopping | – | stopping | success | stopped, error | stopped | stopped | stopped | no change | – | – | – |
//! | success, error, stopped | – | – | – | – | – | – | – | – | – | same, deleted | same, restored |
//!
//! `–` is a refusal. Commands of a worker name the token of their lease; another token is refused
//! as `LeaseLost` whatever the state.

mod backoff;
mod command;
mod event;
mod group;
mod pattern;
mod state;
mod submission;
mod transition;

pub use backoff::retry_delay_millis;
pub use command::Command;
pub use event::{EventType, JobEvent, callback_default, endpoint_default};
pub use group::{GroupState, GroupTally};
pub use pattern::{MAX_PATTERNS, is_pattern, known_patterns, pattern_matches};
pub use state::{Failure, JobResult, JobState, Status};
pub use submission::{Source, Submission};
pub use transition::{MAX_LOST_NODES, Refusal, Transition, born, decide, evolve, fold};
