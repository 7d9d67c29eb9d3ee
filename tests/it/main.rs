//! The one integration binary: every test runs on SQLite and on Postgres where state is involved.

// The sample for readers in Rust calls the crate by its own name; here hyper hands it on.
extern crate hyper as http;

mod api;
mod architecture;
mod cli;
mod cli_apps;
mod cli_bench;
mod cli_locks;
mod cli_numbers;
mod cli_output;
mod cli_webhooks;
mod crash_points;
mod deliveries;
mod endpoints;
mod engine;
mod feed;
mod fixtures;
mod fuzz_api;
mod groups;
mod handlers;
mod history;
mod kills;
mod lifecycle;
mod limits_over_nodes;
mod membership;
mod offers;
mod ordering;
mod readme;
mod receiving;
mod replay;
mod retention;
mod runner;
mod sdk;
mod secrets;
mod silence;
mod statements;
mod support;
