//! The one integration binary: every test runs on SQLite and on Postgres where state is involved.

mod architecture;
mod engine;
mod handlers;
mod lifecycle;
mod support;
