//! The one integration binary: every test runs on SQLite and on Postgres where state is involved.

mod api;
mod architecture;
mod cli;
mod cli_locks;
mod crash_points;
mod deliveries;
mod engine;
mod fixtures;
mod fuzz_api;
mod handlers;
mod history;
mod kills;
mod lifecycle;
mod sdk;
mod secrets;
mod support;
