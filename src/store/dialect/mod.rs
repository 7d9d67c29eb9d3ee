//! The only places that differ by database: how rows go in and out in bulk, and the settings of a
//! connection. Must not know any table.

pub(super) mod pending;
pub(super) mod postgres;
pub(super) mod sqlite;
