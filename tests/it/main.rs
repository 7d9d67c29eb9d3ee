//! The one integration binary: every test runs on SQLite and on Postgres where state is involved.

mod architecture;
mod engine;
mod handlers;
mod kills;
mod lifecycle;
mod support;
