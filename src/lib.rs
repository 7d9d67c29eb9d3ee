//! ringback: long-running jobs over HTTP, with signed callbacks.
//!
//! The modules follow the way of one job: `ingress` takes it in, `engine` stores it together with
//! its first event, a handler in `handlers` works on it under a lease, and `delivery` sends what
//! the events owe. `lifecycle` holds the rules and `store` the SQL; only `engine` joins the two.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod egress;
pub mod engine;
pub mod files;
pub mod formats;
pub mod handlers;
pub mod ids;
pub mod ingress;
pub mod lifecycle;
pub mod store;
pub mod telemetry;
