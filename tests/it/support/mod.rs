//! What the tests stand on: databases, server processes, a receiver of webhooks, waits.
//!
//! Everything here starts its own things, ends only those, and waits for conditions within a
//! bound. Must not know what a job is. Needs the surroundings that `./test` makes; without them it
//! panics with that advice, because a test that skips itself proves nothing.

#![allow(dead_code, reason = "a helper may be there before the first test that needs it")]

pub mod audit;
pub mod chance;
pub mod cluster;
pub mod database;
pub mod endpoints;
pub mod forgetful;
pub mod http;
pub mod log;
pub mod loops;
pub mod machine;
pub mod node;
pub mod process;
pub mod receiver;
pub mod rude;
pub mod rust_text;
pub mod schemathesis;
pub mod sdk;
pub mod shop;
pub mod stall;
pub mod wait;

mod self_test;
