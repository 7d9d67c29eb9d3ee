//! Signed webhooks out: claims what is due, sends it within the limits of its lane, records what
//! came.
//!
//! At least once: an attempt is written down before its request, so a crash leaves an attempt of
//! unknown outcome and not a hole. A delivery keeps its `webhook-id` over all tries. Must not know
//! jobs, handlers or HTTP in.

mod breaker;
mod bucket;
mod dispatcher;
mod health;
mod lanes;
mod outcome;
mod secrets;

pub use breaker::BreakerSettings;
pub use dispatcher::{Dispatcher, Settings, Step};
